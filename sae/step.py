"""One training step: forward and backward written out in five matrix products, then Adam.

No graph is recorded, every gradient is written into memory allocated once, and the gradient of a tied bias costs a
matrix-vector product in place of a sixth matrix product.
"""

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.architectures.relu import ReluAutoencoder
from sae.config import Precision, TrainingRecipe
from sae.losses import Objective


@dataclass(frozen=True, eq=False, slots=True)
class StepResult:
    """What a step saw, before it changed the weights."""

    loss: float
    """Objective: squared error plus weighted L1, mean over the batch."""
    mse: float
    """Its squared error, in the objective's own scale (mean or sum over elements)."""
    l1: float
    """Its L1 term, with its weight."""
    fired: Bool[Tensor, " unit"]
    """Units that fired at least once in the batch."""


class Step:
    """Changes an autoencoder in place, one batch at a time. Owns the gradients, the buffers and Adam."""

    def __init__(self, autoencoder: ReluAutoencoder, recipe: TrainingRecipe) -> None:
        self.autoencoder = autoencoder
        self.recipe = recipe
        self.objective = Objective(recipe.mean_over_elements, recipe.norm_weighted)
        for tensor in autoencoder.parameters():
            tensor.grad = torch.zeros_like(tensor)
        self.optimizer = torch.optim.Adam(
            autoencoder.parameters(), lr=recipe.learning_rate, betas=recipe.betas, fused=True
        )
        like = autoencoder.W_enc
        self.activations = like.new_empty(recipe.batch, autoencoder.n_units)
        """Of the last batch: (token, unit)."""
        self._unit_gradient = torch.empty_like(self.activations)
        self._error = like.new_empty(recipe.batch, autoencoder.d_in)
        self._ones = like.new_ones(recipe.batch)

    @torch.no_grad()
    def __call__(self, scaled: Float[Tensor, "token d_in"], *, l1: float, learning_rate: float) -> StepResult:
        """Train on one batch of inputs, already multiplied by the autoencoder's `input_scale`."""
        with matmul_precision(self.recipe.matmul_precision):
            result = self.backward(scaled, l1)
        if not math.isfinite(result.loss):
            return result
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        w_dec = self.autoencoder.W_dec
        if self.recipe.unit_norm:
            remove_parallel(_gradient(w_dec), w_dec)
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.autoencoder.parameters(), self.recipe.clip)
        self.optimizer.step()
        if self.recipe.unit_norm:
            w_dec.div_(w_dec.norm(dim=1, keepdim=True))
        return result

    @torch.no_grad()
    def backward(self, scaled: Float[Tensor, "token d_in"], l1: float) -> StepResult:
        """Write the gradient of the mean of `sae.losses.input_losses` into every parameter's ``.grad``."""
        w_enc, b_enc, w_dec, b_dec = self.autoencoder.parameters()
        batch, elements = len(scaled), self.objective.elements(w_enc.shape[1])
        f, g, e = self.activations, self._unit_gradient, self._error

        centred = scaled - b_dec if self.autoencoder.pre_encoder_bias else scaled
        torch.addmm(b_enc, centred, w_enc.T, out=f).relu_()
        torch.addmm(b_dec, f, w_dec, out=e).sub_(scaled)
        squared = torch.linalg.vector_norm(e).square() / (elements * batch)
        e.mul_(2 / (elements * batch))

        norms = w_dec.norm(dim=1) if self.objective.norm_weighted else torch.ones_like(b_enc)
        sums = self._ones @ f
        torch.addmm(norms * (l1 / batch), e, w_dec.T, out=g)
        torch.ops.aten.threshold_backward.grad_input(g, f, 0, grad_input=g)

        torch.mm(f.T, e, out=_gradient(w_dec))
        if self.objective.norm_weighted:
            _gradient(w_dec).addcmul_((sums / norms.clamp_min(1e-12))[:, None], w_dec, value=l1 / batch)
        torch.mm(g.T, centred, out=_gradient(w_enc))
        torch.mv(g.T, self._ones, out=_gradient(b_enc))
        torch.sum(e, 0, out=_gradient(b_dec))
        if self.autoencoder.pre_encoder_bias:
            _gradient(b_dec).sub_(_gradient(b_enc) @ w_enc)

        penalty = (sums @ norms) * (l1 / batch)
        mse, weighted = torch.stack([squared, penalty]).tolist()
        return StepResult(mse + weighted, mse, weighted, sums > 0)


def remove_parallel(gradient: Float[Tensor, "unit d_in"], rows: Float[Tensor, "unit d_in"]) -> None:
    """Remove, in place, the component of each gradient row along its unit-norm row."""
    gradient.addcmul_((gradient * rows).sum(1, keepdim=True), rows, value=-1)


def ramp(step: int, steps: int, *, warmup: float, decay: float = 0.0) -> float:
    """Factor at `step`, counted from 0: a linear rise over the first `warmup`, a fall to 0 over the last `decay`."""
    rise = (step + 1) / (warmup * steps) if warmup else 1.0
    fall = (steps - step) / (decay * steps) if decay else 1.0
    return min(1.0, rise, fall)


@contextmanager
def matmul_precision(precision: Precision) -> Generator[None]:
    """Set torch's float32 matmul precision, which is global, and put the former one back."""
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(former)


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad
