"""Gradients of the TopK family, in which few units have an activation on an input: indices and values end to end.

Besides the encoder there is no product with all units. What is decoded is gathered, the activations' gradient is
sampled at the chosen units, and the weights' gradients are gathered too, from the transposed list of choices.
"""

from dataclasses import dataclass
from typing import assert_never

import torch
from jaxtyping import Float, Int64, Real
from torch import Tensor
from torch.nn.functional import embedding_bag

from sae.architectures.weights import Weights
from sae.config import BatchTopK, TopK, TrainingRecipe
from sae.encode import Operands, in_integers, rectify
from sae.losses import auxiliary_ratio
from sae.outcome import StepResult, count_above, gradient, places_above, rounded_up

_BLOCK = 8
"""Entries of a block, which lie apart by the number of blocks."""
_AUXILIARY_ROWS = 1024
"""Rows whose dead units' activations are there at one time."""
_GUESS = 0.8
"""Share of the running threshold above which the chosen units of a batch are searched first."""


@dataclass(frozen=True, eq=False, slots=True)
class Chosen:
    """The activations of a batch, input by input."""

    units: Int64[Tensor, " entry"]
    """Unit of each entry."""
    values: Float[Tensor, " entry"]
    """Its activation, >= 0."""
    rows: Int64[Tensor, " entry"]
    """Its input, rising."""
    starts: Int64[Tensor, " token"]
    """First entry of every input."""


class SparsePass:
    """Forward and backward through the chosen units. Owns the buffer of pre-activations."""

    def __init__(self, weights: Weights, recipe: TrainingRecipe, sparsity: TopK | BatchTopK) -> None:
        self.weights, self.recipe, self.sparsity = weights, recipe, sparsity
        self.dtype = torch.bfloat16 if recipe.precision == "bf16" else weights.W_enc.dtype
        self._operands = Operands(weights, recipe.batch, self.dtype)
        self._z = weights.W_enc.new_empty(recipe.batch, weights.n_units, dtype=self.dtype)

    def __call__(
        self, inputs: Float[Tensor, "token d_in"], dead: Int64[Tensor, " dead"] | None, *, count: bool = False
    ) -> StepResult:
        """Write the gradient of `sae.losses.objective` into every trained tensor's ``.grad``."""
        w_enc, b_enc, w_dec, b_dec = self.weights.four()
        batch, elements = len(inputs), self.recipe.elements(self.weights.d_in)
        centred = self.weights.centred(inputs)
        self._operands.write(centred)
        torch.mm(self._operands.inputs, self._operands.encoder.T, out=self._z)
        chosen = self._choose()
        error = embedding_bag(chosen.units, w_dec, chosen.starts, mode="sum", per_sample_weights=chosen.values)
        error.add_(b_dec).sub_(inputs)
        squared = torch.linalg.vector_norm(error).square() / (elements * batch)
        left = -error if dead is not None and len(dead) else None
        error.mul_(2 / (elements * batch))

        sampled = torch.ops.aten._embedding_bag_per_sample_weights_backward(  # noqa: SLF001
            error, w_dec, chosen.units, chosen.starts, chosen.rows, 0, -1
        )
        sampled *= chosen.values > 0
        counts = tally(chosen.units, self.weights.n_units)
        order = chosen.units.int().argsort(stable=True)
        rows, starts = chosen.rows[order], counts.cumsum(0) - counts
        values = chosen.values[order]
        w_dec.grad = embedding_bag(rows, error, starts, mode="sum", per_sample_weights=values)
        sampled = sampled[order]
        w_enc.grad = embedding_bag(rows, centred, starts, mode="sum", per_sample_weights=sampled)
        b_enc.grad = torch.segment_reduce(sampled, "sum", lengths=counts, unsafe=True, initial=0)
        auxiliary = squared.new_zeros(())
        if dead is not None and left is not None:
            auxiliary = self._auxiliary(inputs, centred, left, dead)
        torch.sum(error, 0, out=gradient(b_dec))
        if self.weights.pre_encoder_bias:
            gradient(b_dec).sub_(gradient(b_enc) @ w_enc)
        fired = torch.zeros_like(b_enc).index_add_(0, chosen.units, chosen.values) > 0
        firings = count_above(chosen.values) if count else None
        return StepResult(squared, auxiliary, fired, firings)

    def _choose(self) -> Chosen:
        z, k = self._z, self.sparsity.k
        batch, units = z.shape
        match self.sparsity:
            case TopK():
                values, at = largest(ordered(z), k)
                starts = torch.arange(0, batch * k, k, device=z.device)
                rows = torch.arange(batch, device=z.device).repeat_interleave(k)
                return Chosen(at.flatten(), self._float(values.view(z.dtype).flatten()).relu_(), rows, starts)
            case BatchTopK():
                places = self._largest(batch * k)
                values, rows = self._float(z.view(-1)[places]), places // units
                counts = tally(rows, batch)
                self._move_threshold(values)
                return Chosen(places % units, values, rows, counts.cumsum(0) - counts)
            case _:
                assert_never(self.sparsity)

    def _largest(self, count: int) -> Int64[Tensor, " entry"]:
        """Flat places of the `count` largest positive pre-activations, rising; of all positive ones where fewer."""
        flat = self._z.view(-1)
        places = places_above(flat, _GUESS * float(self.weights.threshold))
        if len(places) < count:
            places = places_above(flat, 0.0)
        if len(places) <= count:
            return places
        kept = flat[places].topk(count, sorted=False).indices
        return places[kept.sort().values]

    def _move_threshold(self, values: Float[Tensor, " entry"]) -> None:
        """Towards the smallest activation of the batch; the first batch sets it."""
        threshold = self.weights.threshold
        if isinstance(self.sparsity, BatchTopK) and len(values):
            rate = self.sparsity.threshold_rate if float(threshold) > 0 else 1.0
            threshold.lerp_(values.min().expand(1), rate)

    def _auxiliary(
        self,
        inputs: Float[Tensor, "token d_in"],
        centred: Float[Tensor, "token d_in"],
        left: Float[Tensor, "token d_in"],
        dead: Int64[Tensor, " dead"],
    ) -> Float[Tensor, ""]:
        """Add the gradient of `sae.losses.auxiliary_loss`; its value. Dense, because few units are dead."""
        w_enc, b_enc, w_dec, _ = self.weights.four()
        scale = self.sparsity.aux_weight * auxiliary_ratio(inputs, left)
        scale /= self.recipe.elements(self.weights.d_in) * len(inputs)
        count, most = len(dead), self.sparsity.aux_k or self.weights.d_in // 2
        dead = torch.cat([dead, dead[:1].expand(rounded_up(count) - count)])
        rows, loss = w_dec[dead], b_enc.new_zeros(())
        at_once = _AUXILIARY_ROWS if left.device.type == "cpu" else len(left)
        for begin in range(0, len(left), at_once):
            part = slice(begin, begin + at_once)
            activations = self._float(self._z[part].index_select(1, dead)).relu_()
            activations[:, count:] = 0
            if count > most:
                values, units = activations.topk(most, sorted=False)
                activations.zero_().scatter_(1, units, values)
            missed = activations @ rows - left[part]
            loss += torch.linalg.vector_norm(missed).square() * scale
            missed.mul_(2 * scale)
            of_activations = missed @ rows.T
            torch.ops.aten.threshold_backward.grad_input(of_activations, activations, 0, grad_input=of_activations)
            gradient(w_dec).index_add_(0, dead, activations.T @ missed)
            gradient(w_enc).index_add_(0, dead, of_activations.T @ centred[part])
            gradient(b_enc).index_add_(0, dead, of_activations.sum(0))
        return loss

    def _float(self, values: Tensor) -> Tensor:
        return values.to(self.weights.W_enc.dtype)


def tally(indices: Int64[Tensor, " entry"], size: int) -> Int64[Tensor, " size"]:
    """How often each index is there. On a GPU, bincount would wait to know the largest one."""
    return indices.new_zeros(size).index_add_(0, indices, torch.ones_like(indices))


def largest(values: Real[Tensor, "token unit"], k: int) -> tuple[Real[Tensor, "token k"], Int64[Tensor, "token k"]]:
    """The `k` largest of every row and their places, in no order.

    They lie in the `k` blocks with the largest maxima, so that on a processor only those blocks are searched.
    """
    tokens, units = values.shape
    blocks = units // _BLOCK
    if units % _BLOCK or blocks < 4 * k or values.device.type != "cpu":
        return values.topk(k, sorted=False)
    best = largest(values.view(tokens, _BLOCK, blocks).amax(1), k)[1]
    places = (best[:, None] + torch.arange(0, units, blocks)[:, None]).flatten(1)
    found, at = values.gather(1, places).topk(k, sorted=False)
    return found, places.gather(1, at)


def ordered(values: Float[Tensor, "token unit"]) -> Real[Tensor, "token unit"]:
    """`values`, or integers in the same order where these are faster: those below 0 become 0 then, in place."""
    if not in_integers(values):
        return values
    rectify(values)
    return values.view(torch.int16)
