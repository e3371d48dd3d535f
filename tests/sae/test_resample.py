"""Neuron resampling, step by step."""

import numpy as np
import pytest
import torch

from sae.architectures.weights import Weights
from sae.config import TrainingRecipe
from sae.losses import input_losses
from sae.recipes import bricken_2023, jumprelu
from sae.resample import choose_inputs, dead_units, reset_moments, revive, sample_losses
from sae.step import Step

D_IN, UNITS = 4, 6


def _weights(recipe: TrainingRecipe) -> Weights:
    generator = torch.Generator().manual_seed(0)
    w_dec = torch.nn.functional.normalize(torch.randn(UNITS, D_IN, generator=generator), dim=1)
    w_enc, b_enc = torch.randn(UNITS, D_IN, generator=generator), torch.randn(UNITS, generator=generator)
    b_dec = torch.randn(D_IN, generator=generator)
    return Weights(w_enc, b_enc, w_dec, b_dec, torch.rand(UNITS, generator=generator), recipe.pre_encoder_bias)


def _inputs(n: int) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(1))


def test_a_unit_is_dead_after_a_whole_silent_window() -> None:
    """Silent for the window: dead. Fired inside it: alive."""
    last_fired = torch.tensor([100, 51, 50, 49, 0])
    assert dead_units(last_fired, step=100, window=50).tolist() == [2, 3, 4]


def test_every_sampled_input_gets_its_own_loss() -> None:
    """The losses of a sample larger than one chunk are the objective's, input by input."""
    recipe = bricken_2023(batch=16, d_sae=UNITS)
    weights, x = _weights(recipe), _inputs(5000)
    losses = sample_losses(weights, recipe, x, 0.2).numpy()
    assert losses.shape == (5000,)
    for token in (0, 4095, 4096, 4999):
        f = ((x[[token]] - weights.b_dec) @ weights.W_enc.T + weights.b_enc).relu()
        expected = (f @ weights.W_dec + weights.b_dec - x[[token]]).square().mean() + 0.2 * f.sum()
        assert losses[token] == pytest.approx(expected.item(), rel=1e-5)
    assert np.allclose(losses, input_losses(weights, recipe, x, 0.2).numpy(), rtol=1e-5)


def test_inputs_are_chosen_with_probability_proportional_to_loss_squared() -> None:
    """Over many draws, an input with twice the loss is chosen four times as often."""
    rng = np.random.default_rng(0)
    losses = np.array([1.0, 2.0, 0.0, 3.0])
    draws = np.concatenate([choose_inputs(losses, 1, rng) for _ in range(14_000)])
    counts = np.bincount(draws, minlength=4)
    assert counts[2] == 0
    # Five standard errors of the largest count.
    assert np.abs(counts / 1000 - np.array([1, 4, 0, 9])).max() < 0.3


def test_no_input_is_given_to_two_units() -> None:
    """Inputs are drawn without replacement, and only those with any loss."""
    rng = np.random.default_rng(0)
    losses = np.array([1.0, 0.0, 5.0, 1.0])
    assert sorted(choose_inputs(losses, 3, rng)) == [0, 2, 3]
    assert sorted(choose_inputs(losses, 9, rng)) == [0, 2, 3]
    assert len(choose_inputs(np.zeros(4), 2, rng)) == 0


@pytest.mark.parametrize("recipe", [bricken_2023(), jumprelu(threshold=0.25)], ids=lambda recipe: recipe.name)
def test_a_dead_unit_is_pointed_at_its_input(recipe: TrainingRecipe) -> None:
    """Decoder: the unit vector. Encoder: the same times 0.2 of the mean alive norm. Bias: 0. Others: untouched."""
    weights, x = _weights(recipe), _inputs(2) * 7
    before = [tensor.clone() for tensor in (*weights.four(), weights.threshold)]
    units, alive = torch.tensor([1, 4]), [0, 2, 3, 5]
    revive(weights, recipe.sparsity, units, x)
    unit_vectors = x / x.norm(dim=1, keepdim=True)
    mean_alive = before[0][alive].norm(dim=1).mean()
    assert torch.allclose(weights.W_dec[units], unit_vectors)
    assert torch.allclose(weights.W_enc[units], 0.2 * mean_alive * unit_vectors)
    assert not weights.b_enc[units].any()
    assert torch.equal(weights.threshold[units] == 0.25, torch.tensor([recipe.name == "jumprelu"] * 2))
    for now, then in zip((*weights.four(), weights.threshold), before, strict=True):
        assert torch.equal(now[alive] if len(now) == UNITS else now, then[alive] if len(then) == UNITS else then)


@pytest.mark.parametrize("recipe", [bricken_2023(batch=16), jumprelu(batch=16)], ids=lambda recipe: recipe.name)
def test_exactly_the_changed_moments_are_reset(recipe: TrainingRecipe) -> None:
    """Adam's moments of the revived units are 0; of all other entries, and of the decoder bias, unchanged."""
    weights = _weights(recipe)
    step = Step(weights, recipe)
    for _ in range(2):
        step(_inputs(16), weight=0.1, learning_rate=1e-3)
    moments = ("exp_avg", "exp_avg_sq")
    before = {(i, m): step.optimizer.state[t][m].clone() for i, t in enumerate(step.trained) for m in moments}
    units = torch.tensor([0, 5])
    reset_moments(step.optimizer, weights, recipe.sparsity, units)
    for i, tensor in enumerate(step.trained):
        for moment in moments:
            expected = before[i, moment].clone()
            if tensor is not weights.b_dec:
                expected[units] = 0
            assert torch.equal(step.optimizer.state[tensor][moment], expected)
            assert expected.any() or i == 4
