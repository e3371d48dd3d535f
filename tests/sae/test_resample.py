"""Neuron resampling, step by step."""

import numpy as np
import pytest
import torch

from sae.architectures.relu import ReluAutoencoder
from sae.config import bricken_2023
from sae.losses import Objective, input_losses
from sae.resample import choose_inputs, dead_units, reset_moments, revive, sample_losses
from sae.step import Step

D_IN, UNITS = 4, 6


def _autoencoder() -> ReluAutoencoder:
    generator = torch.Generator().manual_seed(0)
    w_dec = torch.nn.functional.normalize(torch.randn(UNITS, D_IN, generator=generator), dim=1)
    return ReluAutoencoder(
        torch.randn(UNITS, D_IN, generator=generator),
        torch.randn(UNITS, generator=generator),
        w_dec,
        torch.randn(D_IN, generator=generator),
        pre_encoder_bias=True,
    )


def _inputs(n: int) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(1))


def test_a_unit_is_dead_after_a_whole_silent_window() -> None:
    """Silent for the window: dead. Fired inside it: alive."""
    last_fired = torch.tensor([100, 51, 50, 49, 0])
    assert dead_units(last_fired, step=100, window=50).tolist() == [2, 3, 4]


def test_every_sampled_input_gets_its_own_loss() -> None:
    """The losses of a sample larger than one chunk are the objective's, input by input."""
    sae, x, objective = _autoencoder(), _inputs(5000), Objective(mean_over_elements=True, norm_weighted=False)
    losses = sample_losses(sae, x, objective, l1=0.2)
    assert losses.shape == (5000,)
    for token in (0, 4095, 4096, 4999):
        f = sae.encode(x[[token]])
        expected = (sae.decode(f) - x[[token]]).square().mean() + 0.2 * f.sum()
        assert losses[token] == pytest.approx(expected.item(), rel=1e-5)
    assert np.allclose(losses, input_losses(sae, x, objective, 0.2).numpy(), rtol=1e-5)


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


def test_a_dead_unit_is_pointed_at_its_input() -> None:
    """Decoder: the unit vector. Encoder: the same times 0.2 of the mean alive norm. Bias: 0. Others: untouched."""
    sae, x = _autoencoder(), _inputs(2) * 7
    before = [tensor.clone() for tensor in sae.parameters()]
    units, alive = torch.tensor([1, 4]), [0, 2, 3, 5]
    revive(sae, units, x)
    unit_vectors = x / x.norm(dim=1, keepdim=True)
    mean_alive = before[0][alive].norm(dim=1).mean()
    assert torch.allclose(sae.W_dec[units], unit_vectors)
    assert torch.allclose(sae.W_enc[units], 0.2 * mean_alive * unit_vectors)
    assert not sae.b_enc[units].any()
    for now, then in zip(sae.parameters()[:3], before, strict=False):
        assert torch.equal(now[alive], then[alive])
    assert torch.equal(sae.b_dec, before[3])


def test_exactly_the_changed_moments_are_reset() -> None:
    """Adam's moments of the revived units are 0; of all other entries, and of the decoder bias, unchanged."""
    sae = _autoencoder()
    recipe = bricken_2023(batch=16)
    step = Step(sae, recipe)
    step(_inputs(16), l1=0.1, learning_rate=1e-3)
    moments = ("exp_avg", "exp_avg_sq")
    before = {(i, m): step.optimizer.state[t][m].clone() for i, t in enumerate(sae.parameters()) for m in moments}
    units = torch.tensor([0, 5])
    reset_moments(step.optimizer, sae, units)
    for i, tensor in enumerate(sae.parameters()):
        for moment in moments:
            expected = before[i, moment].clone()
            if i < 3:
                expected[units] = 0
            assert torch.equal(step.optimizer.state[tensor][moment], expected)
            assert expected.any()
