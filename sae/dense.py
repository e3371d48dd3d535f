"""Gradients of the architectures in which every unit has an activation on every input: L1 and JumpReLU.

Five matrix products: encode, decode, the activations' gradient, and the two weights' gradients. What a tied bias gets
back through the encoder costs a matrix-vector product: the sum over inputs is taken before the product.
"""

from typing import assert_never

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae.architectures.weights import Weights
from sae.config import L1, JumpRelu, TrainingRecipe
from sae.outcome import StepResult, count_above, gradient, places_above

_ROWS_NEAR = 64
"""Rows whose pre-activations stay near the processor while they are compared with the thresholds."""


class DensePass:
    """Forward and backward through all units. Owns the buffers of (token, unit)."""

    def __init__(self, weights: Weights, recipe: TrainingRecipe, sparsity: L1 | JumpRelu) -> None:
        self.weights, self.recipe, self.sparsity = weights, recipe, sparsity
        like = weights.W_enc
        self.dtype = torch.bfloat16 if recipe.precision == "bf16" else like.dtype
        self._activations = like.new_empty(recipe.batch, weights.n_units, dtype=self.dtype)
        self._gradient = torch.empty_like(self._activations)
        self._error = like.new_empty(recipe.batch, weights.d_in)
        self._ones = like.new_ones(recipe.batch, dtype=self.dtype)

    def __call__(
        self, inputs: Float[Tensor, "token d_in"], weight: float, dead: Int64[Tensor, " dead"] | None
    ) -> StepResult:
        """Write the gradient of `sae.losses.objective` into every trained tensor's ``.grad``."""
        w_enc, b_enc, w_dec, b_dec = self.weights.four()
        low_enc, low_dec = w_enc.to(self.dtype), w_dec.to(self.dtype)
        batch, elements = len(inputs), self.recipe.elements(self.weights.d_in)
        f, g = self._activations, self._gradient

        centred = self.weights.centred(inputs).to(self.dtype)
        torch.addmm(b_enc.to(self.dtype), centred, low_enc.T, out=f)
        near, above = self._sparsify()
        error = self._error
        if self.dtype == error.dtype:
            torch.addmm(b_dec, f, w_dec, out=error)
        else:
            error.copy_(f @ low_dec).add_(b_dec)
        error.sub_(inputs)
        squared = torch.linalg.vector_norm(error).square() / (elements * batch)
        error.mul_(2 / (elements * batch))
        low_error = error.to(self.dtype)
        sums = (self._ones @ f).to(b_enc.dtype)
        share = weight / batch

        match self.sparsity:
            case L1(norm_weighted=norm_weighted):
                norms = w_dec.norm(dim=1) if norm_weighted else torch.ones_like(b_enc)
                torch.addmm((norms * share).to(self.dtype), low_error, low_dec.T, out=g)
                penalty = (sums @ norms) * share
            case JumpRelu(bandwidth=bandwidth):
                norm_weighted, norms = False, b_enc
                torch.mm(low_error, low_dec.T, out=g)
                self._threshold_gradient(near, bandwidth, share)
                penalty = b_enc.new_tensor(above * share)
            case _:
                assert_never(self.sparsity)
        torch.ops.aten.threshold_backward.grad_input(g, f, 0, grad_input=g)

        _product(f.T, low_error, gradient(w_dec))
        if norm_weighted:
            gradient(w_dec).addcmul_((sums / norms.clamp_min(1e-12))[:, None], w_dec, value=share)
        _product(g.T, centred, gradient(w_enc))
        gradient(b_enc).copy_(g.T @ self._ones)
        if isinstance(self.sparsity, JumpRelu) and dead is not None and len(dead):
            penalty = penalty + self._pre_activation_loss(self.sparsity.pre_act_weight / batch, centred, sums, dead)
        torch.sum(error, 0, out=gradient(b_dec))
        if self.weights.pre_encoder_bias:
            gradient(b_dec).sub_(gradient(b_enc) @ w_enc)
        return StepResult.of(squared, penalty, sums > 0, f)

    def _sparsify(self) -> tuple[Int64[Tensor, " near"], int]:
        """Pre-activations become activations, in place.

        For JumpReLU also the flat places of those near their threshold, and the number that are above it.
        """
        f = self._activations
        match self.sparsity:
            case L1():
                f.relu_()
                return torch.empty(0, dtype=torch.int64, device=f.device), 0
            case JumpRelu(bandwidth=bandwidth):
                threshold, near, above = self.weights.threshold.to(f.dtype), list[Tensor](), 0
                rows = _ROWS_NEAR if f.device.type == "cpu" else len(f)
                for begin in range(0, len(f), rows):
                    part = f[begin : begin + rows]
                    over = part - threshold
                    torch.ops.aten.threshold_backward.grad_input(part, over, 0, grad_input=part)
                    above += count_above(over)
                    near.append(places_above(over.abs_().neg_(), -bandwidth / 2) + begin * f.shape[1])
                return torch.cat(near), above

    def _threshold_gradient(self, near: Int64[Tensor, " near"], bandwidth: float, share: float) -> None:
        """``-(threshold * G + weight / batch) / bandwidth`` summed over the pre-activations near each threshold."""
        threshold = self.weights.threshold
        units = near % len(threshold)
        moved = self._gradient.view(-1)[near].to(threshold.dtype).mul_(threshold[units]).add_(share)
        gradient(threshold).zero_().index_add_(0, units, moved, alpha=-1 / bandwidth)

    def _pre_activation_loss(
        self, share: float, centred: Float[Tensor, "token d_in"], sums: Float[Tensor, " unit"], dead: Tensor
    ) -> Float[Tensor, ""]:
        """Add the gradient of `sae.losses.pre_activation_loss`; its value. `sums` are those of the activations.

        Where a unit does not fire its pre-activation lies below the threshold; what these sum to is what all sum to,
        a matrix-vector product, less the activations.
        """
        w_enc, b_enc, threshold = self.weights.W_enc, self.weights.b_enc, self.weights.threshold
        below = (self._activations.index_select(1, dead) == 0).to(self.dtype)
        times = (self._ones @ below).to(b_enc.dtype)
        of_all = w_enc[dead] @ (self._ones @ centred).to(w_enc.dtype) + b_enc[dead] * len(centred)
        gradient(w_enc).index_add_(0, dead, (below.T @ centred).to(w_enc.dtype), alpha=-share)
        gradient(b_enc).index_add_(0, dead, times, alpha=-share)
        gradient(threshold).index_add_(0, dead, times, alpha=share)
        return (times @ threshold[dead] - (of_all - sums[dead]).sum()) * share


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)
