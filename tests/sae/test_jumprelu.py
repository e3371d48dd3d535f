"""The JumpReLU autoencoder: folding, and how its dead units come back."""

import pytest
import torch

from sae.architectures.initial import initial_weights
from sae.architectures.jumprelu import JumpReluAutoencoder
from sae.recipes import jumprelu
from sae.step import Step


def _autoencoder(pre_encoder_bias: bool) -> tuple[JumpReluAutoencoder, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(*shape, generator=generator) for shape in [(7, 4), (7,), (7, 4), (4,), (7,)]]
    sae = JumpReluAutoencoder(*tensors, pre_encoder_bias=pre_encoder_bias, input_scale=3.7)
    return sae, torch.randn(50, 4, generator=generator)


@pytest.mark.parametrize("pre_encoder_bias", [True, False])
def test_folding_the_scale_changes_nothing(pre_encoder_bias: bool) -> None:
    """Activations, reconstructions and directions of the folded one are the same."""
    sae, x = _autoencoder(pre_encoder_bias)
    folded, f = sae.folded(), sae.encode(x)
    assert folded.input_scale == 1.0
    assert torch.allclose(folded.encode(x), f, atol=1e-5)
    assert torch.allclose(folded.decode(f), sae.decode(f), atol=1e-5)
    assert torch.allclose(folded.directions(), sae.directions(), atol=1e-6)


def test_unit_directions_keep_what_fires_and_the_reconstruction() -> None:
    """Thresholds move with the norms: the same units fire, each times its row's norm."""
    sae, x = _autoencoder(pre_encoder_bias=True)
    unit, f = sae.with_unit_directions(), sae.encode(x)
    assert torch.allclose(unit.W_dec.norm(dim=1), torch.ones(7), atol=1e-6)
    assert torch.allclose(unit.encode(x), f * sae.W_dec.norm(dim=1), atol=1e-4)
    assert torch.allclose(unit.decode(unit.encode(x)), sae.decode(f), atol=1e-4)


@pytest.mark.parametrize("pre_act_weight", [0.0, 1e-3])
def test_only_the_pre_activation_loss_brings_dead_units_back(pre_act_weight: float) -> None:
    """A unit far below its threshold has no other gradient: with the loss it fires again, without it nothing moves."""
    recipe = jumprelu(d_sae=7, batch=50, pre_act_weight=pre_act_weight)
    _, x = _autoencoder(pre_encoder_bias=True)
    weights = initial_weights(recipe, x)
    weights.b_enc[2] = -9.0
    before = weights.b_enc.clone()
    step, dead, fired = Step(weights, recipe), torch.tensor([2]), False
    for _ in range(200):
        fired |= bool(step(x, weight=0.0, learning_rate=0.05, dead=dead).fired[2])
    assert fired == (pre_act_weight > 0)
    assert bool(weights.b_enc[2] == before[2]) == (pre_act_weight == 0)
