"""The TopK autoencoder."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae.architectures.topk import TopKAutoencoder


def _autoencoder(k: int, *, pre_encoder_bias: bool = True, input_scale: float = 1.0) -> TopKAutoencoder:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(*shape, generator=generator) for shape in [(7, 4), (7,), (7, 4), (4,)]]
    return TopKAutoencoder(*tensors, k=k, pre_encoder_bias=pre_encoder_bias, input_scale=input_scale)


@given(k=st.integers(1, 7), seed=st.integers(0, 99), pre_encoder_bias=st.booleans())
def test_the_largest_pre_activations_fire_and_no_other(k: int, seed: int, pre_encoder_bias: bool) -> None:
    """Activations are the positive ones among the k largest pre-activations, at their own units."""
    sae = _autoencoder(k, pre_encoder_bias=pre_encoder_bias)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    z = (x - sae.b_dec if pre_encoder_bias else x) @ sae.W_enc.T + sae.b_enc
    rank = (z[:, :, None] < z[:, None, :]).sum(2)
    assert torch.allclose(sae.encode(x), torch.where(rank < k, z.relu(), 0.0), atol=1e-6)


@pytest.mark.parametrize("pre_encoder_bias", [True, False])
def test_folding_the_scale_changes_nothing(pre_encoder_bias: bool) -> None:
    """Activations, reconstructions and directions of the folded one are the same."""
    sae = _autoencoder(3, pre_encoder_bias=pre_encoder_bias, input_scale=3.7)
    x, folded = torch.randn(9, 4, generator=torch.Generator().manual_seed(1)), sae.folded()
    f = sae.encode(x)
    assert torch.allclose(folded.encode(x), f, atol=1e-5)
    assert folded.input_scale == 1.0
    assert torch.allclose(folded.decode(f), sae.decode(f), atol=1e-5)
    assert torch.allclose(folded.directions(), sae.directions(), atol=1e-6)
