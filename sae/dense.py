"""Gradients of the architectures in which every unit has an activation on every input: L1 and JumpReLU.

Five matrix products: encode, decode, the activations' gradient, and the two weights' gradients. What a tied bias gets
back through the encoder costs a matrix-vector product: the sum over inputs is taken before the product.

Activations have a row per unit, so that no product but the decoding has to transpose them, which takes a processor as
long as to multiply; and that one, in bfloat16, takes the decoder transposed instead.
"""

from typing import assert_never

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sae.architectures.weights import Weights
from sae.config import L1, JumpRelu, TrainingRecipe
from sae.encode import Operands, count_firings, in_integers, rectify
from sae.outcome import StepResult, count_above, gradient, places_above, rounded_up

_UNITS_NEAR = 64
"""Units whose pre-activations stay near the processor while they are compared with the thresholds."""
_UNITS_OF_GRADIENT = 1024
"""Units whose activations' gradient is there at one time."""
_BLOCK = 128
"""Rows that are transposed at one time."""


class DensePass:
    """Forward and backward through all units. Owns the operands of the five products.

    They have the extra columns of `sae.encode.Operands`. Beside the errors these hold ones, and beside the decoder what
    the penalty adds to every activation's gradient, so that the products give the sums of the activations and the
    gradient of the encoder's bias besides.
    """

    def __init__(self, weights: Weights, recipe: TrainingRecipe, sparsity: L1 | JumpRelu) -> None:
        self.weights, self.recipe, self.sparsity = weights, recipe, sparsity
        like = weights.W_enc
        self.dtype = torch.bfloat16 if recipe.precision == "bf16" else like.dtype
        self._activations = like.new_empty(weights.n_units, recipe.batch, dtype=self.dtype)
        units = min(_UNITS_OF_GRADIENT, weights.n_units) if like.device.type == "cpu" else weights.n_units
        self._gradient = self._activations.new_empty(units, recipe.batch)
        self._operands = Operands(weights, recipe.batch, self.dtype)
        self._decoder = torch.zeros_like(self._operands.encoder)
        self._whole = torch.empty_like(self._decoder)
        self._inputs, self._errors = self._operands.inputs, torch.zeros_like(self._operands.inputs)
        self._decoder_transposed: Float[Tensor, "d_in unit"] | None = None
        if in_integers(self._activations):
            # AMX takes twice as long where a large operand is transposed, and likes the small ones column by column.
            self._decoder_transposed = like.new_empty(weights.d_in, weights.n_units, dtype=self.dtype)
            width, batch = self._whole.shape[1], recipe.batch
            self._inputs, self._errors = (self._activations.new_zeros(width, batch).T for _ in range(2))
            for operand in (self._inputs, self._errors):
                operand[:, weights.d_in] = 1

    def __call__(
        self,
        inputs: Float[Tensor, "token d_in"],
        weight: float,
        dead: Int64[Tensor, " dead"] | None = None,
        *,
        count: bool = False,
    ) -> StepResult:
        """Write the gradient of `sae.losses.objective` into every trained tensor's ``.grad``."""
        w_enc, b_enc, w_dec, b_dec = self.weights.four()
        batch, d_in = inputs.shape
        scale, share = 1 / (self.recipe.elements(d_in) * batch), weight / batch
        self._decoder[:, :d_in].copy_(w_dec)
        norms = None
        if isinstance(self.sparsity, L1):
            norms = w_dec.norm(dim=1) if self.sparsity.norm_weighted else torch.ones_like(b_enc)
            self._decoder[:, d_in].copy_(norms * share)

        self._operands.write(self.weights.centred(inputs))
        torch.mm(self._operands.encoder, self._operands.inputs.T, out=self._activations)
        near, above = self._sparsify()
        error = self._decode()
        # Row by row, because one norm in bfloat16 would be a number of three digits.
        squared = torch.linalg.vector_norm(error, dim=1).to(b_enc.dtype).square().sum() * scale
        error.mul_(2 * scale)

        sums = self._product(self._errors, gradient(w_dec))
        penalty = sums @ norms * share if norms is not None else b_enc.new_tensor(above * share)
        if norms is not None and self._norm_weighted:
            gradient(w_dec).addcmul_((sums / norms.clamp_min(1e-12))[:, None], w_dec, value=share)
        firings = count_firings(self._activations) if count else None
        revived = dead if isinstance(self.sparsity, JumpRelu) and dead is not None and len(dead) else None
        below = self._activations[revived] == 0 if revived is not None else None
        self._into_gradient(near, share)
        gradient(b_enc).copy_(self._product(self._inputs, gradient(w_enc)))
        if revived is not None and below is not None:
            penalty = penalty + self._pre_activation_loss(below, revived, sums)
        torch.sum(self._errors[:, :d_in], 0, dtype=b_dec.dtype, out=gradient(b_dec))
        if self.weights.pre_encoder_bias:
            gradient(b_dec).sub_(gradient(b_enc) @ w_enc)
        return StepResult(squared, penalty, sums > 0, firings)

    def _decode(self) -> Float[Tensor, "row column"]:
        """Write the errors; without the extra columns, (token, d_in) or (d_in, token) as they lie in memory."""
        d_in, x, e = self.weights.d_in, self._inputs, self._errors
        if self._decoder_transposed is not None:
            _transpose(self._operands.inputs[:, :d_in], x[:, :d_in].T)
            _transpose(self._decoder[:, :d_in], self._decoder_transposed)
            reconstructed = self._decoder_transposed, self._activations
            error = torch.addmm(x[:, :d_in].T, *reconstructed, beta=-1, out=e[:, :d_in].T)
        else:
            torch.addmm(x, self._activations.T, self._decoder, beta=-1, out=e)
            e[:, d_in] = 1
            error = e[:, :d_in]
        if not self.weights.pre_encoder_bias:
            e[:, :d_in].add_(self.weights.b_dec.to(self.dtype))
        return error

    def _product(self, right: Float[Tensor, "token column"], out: Float[Tensor, "unit d_in"]) -> Float[Tensor, " unit"]:
        """The activations, or their gradient, times `right`: the first columns into `out`; the column after them."""
        d_in = self.weights.d_in
        whole = torch.mm(self._activations, right, out=self._whole)
        out.copy_(whole[:, :d_in])
        return whole[:, d_in].to(out.dtype, copy=True)

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
                units = _UNITS_NEAR if f.device.type == "cpu" else len(f)
                for begin in range(0, len(f), units):
                    part = f[begin : begin + units]
                    over = part - threshold[begin : begin + units, None]
                    torch.ops.aten.threshold_backward.grad_input(part, over, 0, grad_input=part)
                    above += count_above(over)
                    near.append(places_above(over.abs_().neg_(), -bandwidth / 2) + begin * f.shape[1])
                return torch.cat(near), above
            case _:
                assert_never(self.sparsity)

    def _into_gradient(self, near: Int64[Tensor, " near"], share: float) -> None:
        """The activations' gradient takes their place, some units at a time; the thresholds get theirs."""
        f, units = self._activations, len(self._gradient)
        if isinstance(self.sparsity, JumpRelu):
            gradient(self.weights.threshold).zero_()
        for begin in range(0, len(f), units):
            part = f[begin : begin + units]
            g = torch.mm(self._decoder[begin : begin + units], self._errors.T, out=self._gradient[: len(part)])
            if isinstance(self.sparsity, JumpRelu):
                edges = near.new_tensor([begin, begin + len(part)]) * f.shape[1]
                first, last = torch.searchsorted(near, edges).tolist()
                self._add_threshold_gradient(g, near[first:last], begin, share)
            if in_integers(part):
                g, part = g.view(torch.int16), part.view(torch.int16)
            torch.ops.aten.threshold_backward.grad_input(g, part, 0, grad_input=part)

    def _add_threshold_gradient(
        self, g: Float[Tensor, "part token"], near: Int64[Tensor, " near"], begin: int, share: float
    ) -> None:
        """``-(threshold * G + weight / batch) / bandwidth`` summed over the pre-activations near each threshold.

        `near` are their places, `begin` the first unit of `g`.
        """
        assert isinstance(self.sparsity, JumpRelu)
        threshold, tokens = self.weights.threshold, g.shape[1]
        units = near // tokens
        moved = g.view(-1)[near - begin * tokens].to(threshold.dtype).mul_(threshold[units]).add_(share)
        gradient(threshold).index_add_(0, units, moved, alpha=-1 / self.sparsity.bandwidth)

    def _pre_activation_loss(
        self, below: Bool[Tensor, "dead token"], dead: Int64[Tensor, " dead"], sums: Float[Tensor, " unit"]
    ) -> Float[Tensor, ""]:
        """Add the gradient of `sae.losses.pre_activation_loss`; its value. `sums` are those of the activations.

        Where a unit does not fire its pre-activation lies `below` the threshold; what these sum to is what all sum to,
        a matrix-vector product, less the activations.
        """
        assert isinstance(self.sparsity, JumpRelu)
        share = self.sparsity.pre_act_weight / below.shape[1]
        w_enc, b_enc, threshold = self.weights.W_enc, self.weights.b_enc, self.weights.threshold
        centred = self._operands.inputs[:, : w_enc.shape[1]]
        times = below.sum(1, dtype=b_enc.dtype)
        of_all = w_enc[dead] @ centred.sum(0, dtype=w_enc.dtype) + b_enc[dead] * len(centred)
        rows = centred.new_zeros(rounded_up(len(dead)), len(centred))
        rows[: len(dead)] = below
        moved = (rows @ centred)[: len(dead)]
        gradient(w_enc).index_add_(0, dead, moved.to(w_enc.dtype), alpha=-share)
        gradient(b_enc).index_add_(0, dead, times, alpha=-share)
        gradient(threshold).index_add_(0, dead, times, alpha=share)
        return (times @ threshold[dead] - (of_all - sums[dead]).sum()) * share


def _transpose(source: Float[Tensor, "row column"], out: Float[Tensor, "column row"]) -> None:
    """In blocks, because rows of a power of two share places in the cache."""
    for begin in range(0, len(source), _BLOCK):
        out[:, begin : begin + _BLOCK].copy_(source[begin : begin + _BLOCK].T)
