"""New directions for dead units (Bricken et al. 2023, neuron resampling), one small function per step."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae.architectures.initial import unit_rows
from sae.architectures.weights import Weights
from sae.config import JumpRelu, Sparsity, TrainingRecipe
from sae.losses import input_losses

_ENCODER_SHARE = 0.2
"""Norm of a new encoder row, as a share of the mean norm of the alive ones."""
_ROWS_AT_ONCE = 4096


def dead_units(last_fired: Int64[Tensor, " unit"], step: int, window: int) -> Int64[Tensor, " dead"]:
    """Units that have not fired in the `window` steps before `step`; `last_fired` is a step per unit."""
    return torch.nonzero(step - last_fired >= window).squeeze(1)


@torch.no_grad()
def sample_losses(
    weights: Weights, recipe: TrainingRecipe, inputs: Float[Tensor, "token d_in"], weight: float
) -> Float[Tensor, " token"]:
    """The current loss of every input."""
    parts = [input_losses(weights, recipe, part, weight) for part in inputs.split(_ROWS_AT_ONCE)]
    return torch.cat(parts)


def choose_inputs(
    losses: Float[np.ndarray, " token"], count: int, rng: np.random.Generator
) -> Int64[np.ndarray, " chosen"]:
    """Draw `count` inputs with probability proportional to loss squared; fewer where fewer have any loss.

    Without replacement: two units given the same input would stay equal for ever.
    """
    weights = losses**2
    count = min(count, int(np.count_nonzero(weights)))
    if count == 0:
        return np.empty(0, dtype=np.int64)
    return rng.choice(len(weights), size=count, replace=False, p=weights / weights.sum())


@torch.no_grad()
def revive(
    weights: Weights, sparsity: Sparsity, units: Int64[Tensor, " dead"], inputs: Float[Tensor, "dead d_in"]
) -> None:
    """Point each of `units` at its input, in place.

    The decoder row becomes the input at norm 1; the encoder row the same vector times 0.2 times the mean norm of the
    alive encoder rows; the encoder bias 0; a trained threshold what it was at the start.
    """
    alive = torch.ones(weights.n_units, dtype=torch.bool, device=units.device)
    alive[units] = False
    norms = weights.W_enc.norm(dim=1)
    mean = norms[alive].mean() if alive.any() else norms.mean()
    directions = unit_rows(inputs)
    weights.W_dec[units] = directions
    weights.W_enc[units] = directions * (_ENCODER_SHARE * mean)
    weights.b_enc[units] = 0
    if isinstance(sparsity, JumpRelu):
        weights.threshold[units] = sparsity.threshold


@torch.no_grad()
def reset_moments(
    optimizer: torch.optim.Optimizer, weights: Weights, sparsity: Sparsity, units: Int64[Tensor, " dead"]
) -> None:
    """Zero Adam's moments of exactly the entries that `revive` changed."""
    for tensor in weights.of_units(sparsity):
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in optimizer.state[tensor]:
                optimizer.state[tensor][moment][units] = 0
