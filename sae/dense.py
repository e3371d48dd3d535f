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
from sae.encode import Encode, in_integers, rectify
from sae.outcome import StepResult, count_above, gradient, places_above

_ROWS_NEAR = 64
"""Rows whose pre-activations stay near the processor while they are compared with the thresholds."""


class DensePass:
    """Forward and backward through all units. Owns the operands of the five products.

    They have the extra columns of `sae.encode.Encode`. Beside the errors these hold ones, and beside the decoder what
    the penalty adds to every activation's gradient, so that the products give the penalties, the sums of the
    activations and the gradient of the encoder's bias besides.
    """

    def __init__(self, weights: Weights, recipe: TrainingRecipe, sparsity: L1 | JumpRelu) -> None:
        self.weights, self.recipe, self.sparsity = weights, recipe, sparsity
        like = weights.W_enc
        self.dtype = torch.bfloat16 if recipe.precision == "bf16" else like.dtype
        self._activations = like.new_empty(recipe.batch, weights.n_units, dtype=self.dtype)
        self._gradient = torch.empty_like(self._activations)
        self._encode = Encode(weights, recipe.batch, self.dtype)
        self._decoder = torch.zeros_like(self._encode.encoder)
        self._errors = torch.zeros_like(self._encode.inputs)
        self._error = like.new_empty(recipe.batch, weights.d_in)
        self._product = _Transposed(self._decoder, self._errors)

    def __call__(self, inputs: Float[Tensor, "token d_in"], weight: float) -> StepResult:
        """Write the gradient of the mean of `sae.losses.input_losses` into every trained tensor's ``.grad``."""
        w_enc, b_enc, w_dec, b_dec = self.weights.four()
        batch, d_in = inputs.shape
        scale, share = 1 / (self.recipe.elements(d_in) * batch), weight / batch
        f, g, x, e = self._activations, self._gradient, self._encode.inputs, self._errors
        self._decoder[:, :d_in].copy_(w_dec)
        norms = None
        if isinstance(self.sparsity, L1):
            norms = w_dec.norm(dim=1) if self.sparsity.norm_weighted else torch.ones_like(b_enc)
            self._decoder[:, d_in].copy_(norms * share)

        self._encode(self.weights.centred(inputs), f)
        near, above = self._sparsify()
        torch.mm(f, self._decoder, out=e)
        penalty = e[:, d_in].sum(dtype=b_enc.dtype) if norms is not None else b_enc.new_tensor(above * share)
        error = torch.sub(e[:, :d_in], inputs, out=self._error).add_(b_dec)
        squared = torch.linalg.vector_norm(error).square() * scale
        torch.mul(error, 2 * scale, out=e[:, :d_in])
        e[:, d_in] = 1

        torch.mm(e, self._decoder.T, out=g)
        if isinstance(self.sparsity, JumpRelu):
            self._threshold_gradient(near, self.sparsity.bandwidth, share)
        sums = self._product(f, e, gradient(w_dec))
        fired = sums > 0
        if norms is not None and self._norm_weighted:
            gradient(w_dec).addcmul_((sums / norms.clamp_min(1e-12))[:, None], w_dec, value=share)
        active = _keep_where_active(g, f)
        gradient(b_enc).copy_(self._product(g, x, gradient(w_enc)))
        torch.sum(error, 0, out=gradient(b_dec)).mul_(2 * scale)
        if self.weights.pre_encoder_bias:
            gradient(b_dec).sub_(gradient(b_enc) @ w_enc)
        return StepResult.of(squared, penalty, fired, active)

    @property
    def _norm_weighted(self) -> bool:
        return isinstance(self.sparsity, L1) and self.sparsity.norm_weighted

    def _sparsify(self) -> tuple[Int64[Tensor, " near"], int]:
        """Pre-activations become activations, in place.

        For JumpReLU also the flat places of those near their threshold, and the number that are above it.
        """
        f = self._activations
        match self.sparsity:
            case L1():
                rectify(f)
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
            case _:
                assert_never(self.sparsity)

    def _threshold_gradient(self, near: Int64[Tensor, " near"], bandwidth: float, share: float) -> None:
        """``-(threshold * G + weight / batch) / bandwidth`` summed over the pre-activations near each threshold."""
        threshold = self.weights.threshold
        units = near % len(threshold)
        moved = self._gradient.view(-1)[near].to(threshold.dtype).mul_(threshold[units]).add_(share)
        gradient(threshold).zero_().index_add_(0, units, moved, alpha=-1 / bandwidth)


class _Transposed:
    """The product of a transposed (token, unit) tensor and a (token, column) one, which sums over tokens."""

    def __init__(self, weights: Float[Tensor, "unit column"], inputs: Float[Tensor, "token column"]) -> None:
        self._whole = torch.empty_like(weights)
        self._turned = in_integers(weights)
        if self._turned:
            self._whole, self._right = weights.new_empty(weights.shape[::-1]), inputs.new_empty(inputs.shape[::-1])

    def __call__(
        self,
        left: Float[Tensor, "token unit"],
        right: Float[Tensor, "token column"],
        out: Float[Tensor, "unit d_in"],
    ) -> Float[Tensor, " unit"]:
        """Write the first columns into `out`; the column after them."""
        if self._turned:
            # AMX takes twice as long where the large operand is the transposed one.
            whole = torch.mm(self._right.copy_(right.T), left, out=self._whole).T
        else:
            whole = torch.mm(left.T, right, out=self._whole)
        d_in = out.shape[1]
        out.copy_(whole[:, :d_in])
        return whole[:, d_in].to(out.dtype)


def _keep_where_active(gradient: Tensor, activations: Tensor) -> Tensor:
    """Set `gradient` to 0 where `activations` (>= 0) are 0; something above 0 in the places where they are not.

    Both in place: activations in bfloat16 are lost.
    """
    if not in_integers(gradient):
        torch.ops.aten.threshold_backward.grad_input(gradient, activations, 0, grad_input=gradient)
        return activations
    active = activations.view(torch.int16).sign_()
    gradient.view(torch.int16).mul_(active)
    return active
