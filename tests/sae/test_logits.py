"""The direct path from a unit to the logits."""

import numpy as np
import pytest
import torch

from sae.baselines import Neurons, RandomDirections
from sae.logits import logit_weights, top_logits
from sae.subject import Subject
from tests.sae.tiny import NEURONS, WIDTH, gpt2, llama


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """One subject of each family."""
    make = {"gpt2": gpt2, "llama": llama}[request.param]
    return make(tmp_path_factory.mktemp(request.param))


def centred(logits: torch.Tensor) -> torch.Tensor:
    """Up to the median and the scale, which the path shifts and leaves out."""
    logits = logits - logits.median(1, keepdim=True).values
    return logits / logits.norm(dim=1, keepdim=True)


def test_weights_are_the_model_s_own_logits_of_a_direction(subject: Subject) -> None:
    """The model's final norm and unembedding, applied to nothing but a neuron's output, point the same way."""
    model = subject.model
    is_gpt2 = model.config.model_type == "gpt2"
    if is_gpt2:
        mlp, norm = model.transformer.h[1].mlp, model.transformer.ln_f
        alone = mlp.c_proj(torch.eye(NEURONS)) - mlp.c_proj.bias
    else:
        mlp, norm = model.model.layers[1].mlp, model.model.norm
        alone = mlp.down_proj(torch.eye(NEURONS))
    bias = norm.bias if is_gpt2 else 0
    expected = model.lm_head(norm(alone * 100) - bias)
    site = subject.site("blocks.1.mlp.hook_post")
    chunks = logit_weights(subject, site, Neurons(NEURONS, signed=False))
    assert chunks is not None
    assert torch.allclose(centred(torch.cat(list(chunks))), centred(expected), atol=1e-4)


def test_the_median_token_has_weight_zero(subject: Subject) -> None:
    """Every unit's median over the vocabulary is 0."""
    site = subject.site("blocks.0.mlp.hook_post")
    chunks = logit_weights(subject, site, RandomDirections(NEURONS, 13, 0), chunk=4)
    assert chunks is not None
    parts = list(chunks)
    assert [len(p) for p in parts] == [4, 4, 4, 1]
    assert torch.allclose(torch.cat(parts).median(1).values, torch.zeros(13), atol=1e-6)


def test_weights_are_linear_per_unit_of_activation(subject: Subject) -> None:
    """A negative tail's weights are the positive tail's, reversed up to the median's choice of middle."""
    site = subject.site("blocks.0.mlp.hook_post")
    chunks = logit_weights(subject, site, Neurons(NEURONS, signed=True))
    assert chunks is not None
    weights = torch.cat(list(chunks))
    total = weights[0::2] + weights[1::2]
    assert torch.allclose(total, total[:, :1].expand_as(total), atol=1e-5)


def test_residual_sites_skip_w_down(subject: Subject) -> None:
    """Through W_down by hand on the residual site gives the neurons' weights."""
    down = subject.model.get_submodule(
        "transformer.h.1.mlp.c_proj" if subject.model.config.model_type == "gpt2" else "model.layers.1.mlp.down_proj"
    ).weight
    rows = down if down.shape[0] == NEURONS else down.T

    class Written(Neurons):
        """What the neurons write."""

        def directions(self) -> torch.Tensor:
            """Rows of W_down."""
            return rows

    for name in ("blocks.1.hook_mlp_out", "blocks.1.hook_resid_post", "blocks.0.hook_resid_pre"):
        direct = logit_weights(subject, subject.site(name), Written(WIDTH, signed=False))
        neurons = logit_weights(subject, subject.site("blocks.1.mlp.hook_post"), Neurons(NEURONS, signed=False))
        assert direct is not None
        assert neurons is not None
        assert torch.allclose(torch.cat(list(direct)), torch.cat(list(neurons)), atol=1e-5)


def test_tops_are_the_ends_of_the_weights(subject: Subject) -> None:
    """Ids and weights are those of a full sort, whatever the chunks."""
    site, dictionary = subject.site("blocks.1.mlp.hook_post"), RandomDirections(NEURONS, 300, 0)
    chunks, top = logit_weights(subject, site, dictionary), top_logits(subject, site, dictionary, k=4)
    assert chunks is not None
    assert top is not None
    weights = torch.cat(list(chunks)).numpy()
    order = np.argsort(weights, axis=1)
    np.testing.assert_array_equal(top.promoted, order[:, ::-1][:, :4])
    np.testing.assert_array_equal(top.suppressed, order[:, :4])
    np.testing.assert_allclose(top.promoted_weights, np.take_along_axis(weights, top.promoted, 1))
    np.testing.assert_allclose(top.suppressed_weights, np.take_along_axis(weights, top.suppressed, 1))


def test_other_sites_have_no_direct_path(subject: Subject) -> None:
    """A gate or an attention output gives no logit weights."""
    path = "transformer.h.0.attn" if subject.model.config.model_type == "gpt2" else "model.layers.0.mlp.act_fn"
    site = subject.site(path)
    dictionary = Neurons(site.width, signed=True)
    assert logit_weights(subject, site, dictionary) is None
    assert top_logits(subject, site, dictionary) is None
