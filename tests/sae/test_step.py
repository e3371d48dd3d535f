"""The hand-written gradient against autograd, and what a step does to the weights."""

import pytest
import torch

from sae.architectures.relu import ReluAutoencoder
from sae.config import TrainingRecipe, april_2024, bricken_2023
from sae.losses import Objective, input_losses
from sae.step import Step, matmul_precision, ramp, remove_parallel

D_IN, UNITS, BATCH = 6, 10, 32
RECIPES = [
    bricken_2023(batch=BATCH),
    april_2024(batch=BATCH),
    bricken_2023(batch=BATCH, norm_weighted=True, unit_norm=False),
    april_2024(batch=BATCH, pre_encoder_bias=True),
]


def _autoencoder(recipe: TrainingRecipe) -> ReluAutoencoder:
    generator = torch.Generator().manual_seed(0)
    shapes = [(UNITS, D_IN), (UNITS,), (UNITS, D_IN), (D_IN,)]
    tensors = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    if recipe.unit_norm:
        tensors[2] /= tensors[2].norm(dim=1, keepdim=True)
    return ReluAutoencoder(*tensors, pre_encoder_bias=recipe.pre_encoder_bias)


def _batch(seed: int = 1) -> torch.Tensor:
    return torch.randn(BATCH, D_IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("recipe", RECIPES)
def test_gradients_equal_autograd(recipe: TrainingRecipe) -> None:
    """Every gradient agrees with autograd on the written objective to 1e-10, the tied bias included."""
    sae, x, l1 = _autoencoder(recipe), _batch(), 0.3
    step = Step(sae, recipe)
    result = step.backward(x, l1)

    leaves = [tensor.detach().clone().requires_grad_() for tensor in sae.parameters()]
    copy = ReluAutoencoder(*leaves, pre_encoder_bias=recipe.pre_encoder_bias)
    loss = input_losses(copy, x, Objective(recipe.mean_over_elements, recipe.norm_weighted), l1).mean()
    loss.backward()
    for ours, theirs in zip(sae.parameters(), leaves, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert (ours.grad - theirs.grad).abs().max() < 1e-10
        assert theirs.grad.abs().max() > 1e-3
    assert result.loss == pytest.approx(loss.item(), abs=1e-10)
    assert result.mse + result.l1 == pytest.approx(result.loss)
    assert torch.equal(result.fired, (sae.encode(x) > 0).any(0))


def test_the_parallel_gradient_is_removed() -> None:
    """What is left of each gradient row is orthogonal to its unit-norm row, and the rest is untouched."""
    rows = torch.nn.functional.normalize(_batch(2), dim=1)
    gradient = _batch(3)
    before = gradient.clone()
    remove_parallel(gradient, rows)
    assert (gradient * rows).sum(1).abs().max() < 1e-12
    removed = before - gradient
    assert torch.allclose(removed, (removed * rows).sum(1, keepdim=True) * rows)


def test_decoder_rows_stay_at_norm_one_under_bricken() -> None:
    """After steps, decoder rows have norm 1, and the loss has fallen."""
    recipe = bricken_2023(batch=BATCH)
    sae = _autoencoder(recipe)
    step = Step(sae, recipe)
    losses = [step(_batch(), l1=0.01, learning_rate=1e-2).loss for _ in range(30)]
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(UNITS, dtype=torch.float64))
    assert losses[-1] < 0.5 * losses[0]


def test_the_gradient_is_clipped_to_its_norm() -> None:
    """With clipping, the norm of the whole gradient is at most the recipe's."""
    recipe = april_2024(batch=BATCH, clip=0.01)
    sae = _autoencoder(recipe)
    Step(sae, recipe)(_batch(), l1=1.0, learning_rate=1e-3)
    squares = [tensor.grad.square().sum() for tensor in sae.parameters() if tensor.grad is not None]
    assert torch.stack(squares).sum().sqrt().item() == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_changes_no_weight() -> None:
    """The weights before a bad batch are the weights after it."""
    recipe = april_2024(batch=BATCH)
    sae = _autoencoder(recipe)
    before = [tensor.clone() for tensor in sae.parameters()]
    x = _batch()
    x[0, 0] = torch.nan
    assert Step(sae, recipe)(x, l1=1.0, learning_rate=1e-3).loss != 0
    assert all(torch.equal(a, b) for a, b in zip(before, sae.parameters(), strict=True))


def test_the_matmul_precision_comes_back() -> None:
    """The global setting is put back, after an error too."""
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ZeroDivisionError), matmul_precision("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == before


def test_ramp_rises_and_falls_linearly() -> None:
    """Full from the end of the warm-up to the start of the decay, above 0 at both ends."""
    values = [ramp(step, 100, warmup=0.1, decay=0.2) for step in range(100)]
    assert values[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert set(values[9:81]) == {1.0}
    assert values[-2:] == pytest.approx([0.1, 0.05])
    assert {ramp(step, 100, warmup=0.0) for step in range(100)} == {1.0}
