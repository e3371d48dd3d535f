"""One training step: gradients written out by hand, then Adam.

No graph is recorded, and what has a row per token and a column per unit is allocated once.
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae.architectures.weights import Weights
from sae.config import L1, BatchTopK, JumpRelu, Precision, TopK, TrainingRecipe
from sae.dense import DensePass
from sae.outcome import StepResult, gradient
from sae.ranks import ALONE, Ranks
from sae.sparse import SparsePass


class Step:
    """Changes weights in place, one batch at a time. Owns the gradients, the buffers and Adam."""

    def __init__(self, weights: Weights, recipe: TrainingRecipe, ranks: Ranks = ALONE) -> None:
        self.weights, self.ranks = weights, ranks
        self.recipe = recipe = ranks.share(recipe)
        self.trained = weights.trained(recipe.sparsity)
        for tensor in self.trained:
            tensor.grad = torch.zeros_like(tensor)
        self.failed = weights.W_enc.new_zeros((), dtype=torch.float32)
        """1 once a loss was not finite, else 0."""
        self.optimizer = torch.optim.Adam(self.trained, lr=recipe.learning_rate, betas=recipe.betas, fused=True)
        self._pass: DensePass | SparsePass
        match recipe.sparsity:
            case L1() | JumpRelu() as sparsity:
                self._pass = DensePass(weights, recipe, sparsity)
            case TopK() | BatchTopK() as sparsity:
                self._pass = SparsePass(weights, recipe, sparsity)

    @torch.no_grad()
    def __call__(
        self,
        inputs: Float[Tensor, "token d_in"],
        *,
        weight: float,
        learning_rate: float,
        dead: Int64[Tensor, " dead"] | None = None,
        count: bool = False,
    ) -> StepResult:
        """Train on one batch of `inputs`, or this rank's part of it, centred and scaled already.

        `weight` is that of the sparsity penalty, `dead` the units that a loss of their own trains; with `count` the
        activations above 0 are counted. Once a loss is not finite, no weight changes any more.
        """
        with matmul_precision(self.recipe.precision):
            result = self.backward(inputs, weight, dead, count=count)
        result = self.ranks.agree(result, self._different())
        self.failed.masked_fill_(~result.loss.isfinite(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        w_dec = self.weights.W_dec
        if self.recipe.unit_norm:
            remove_parallel(gradient(w_dec), w_dec)
        if self.recipe.clip is not None:
            # Adam divides by this as it reads the gradients, so that clipping is no pass of its own.
            self.optimizer.grad_scale = (self._gradient_norm() / self.recipe.clip).clamp_min(1.0)  # type: ignore[attr-defined]
        self.optimizer.found_inf = self.failed  # type: ignore[attr-defined]
        self.optimizer.step()
        if self.recipe.unit_norm:
            w_dec.div_(w_dec.norm(dim=1, keepdim=True).masked_fill_(self.failed > 0, 1.0))
        if isinstance(self.recipe.sparsity, JumpRelu):
            self.weights.threshold.clamp_(min=0)
        return result

    @torch.no_grad()
    def backward(
        self,
        inputs: Float[Tensor, "token d_in"],
        weight: float,
        dead: Int64[Tensor, " dead"] | None = None,
        *,
        count: bool = False,
    ) -> StepResult:
        """Write the gradient of `sae.losses.objective` into the ``.grad`` of every trained tensor."""
        match self._pass:
            case DensePass() as dense:
                return dense(inputs, weight, dead, count=count)
            case SparsePass() as sparse:
                return sparse(inputs, dead, count=count)

    def _different(self) -> list[Tensor]:
        """What ranks make of their parts of a batch: the gradients and, for BatchTopK, the running threshold."""
        running = [self.weights.threshold] if isinstance(self.recipe.sparsity, BatchTopK) else []
        return [*map(gradient, self.trained), *running]

    def _gradient_norm(self) -> Tensor:
        # Row by row on all processors; one norm of a whole matrix takes twice as long.
        norms = [torch.linalg.vector_norm(gradient(tensor), dim=-1).flatten() for tensor in self.trained]
        return torch.linalg.vector_norm(torch.cat(norms)).float()


def remove_parallel(gradient: Float[Tensor, "unit d_in"], rows: Float[Tensor, "unit d_in"]) -> None:
    """Remove, in place, the component of each gradient row along its unit-norm row."""
    gradient.addcmul_((gradient * rows).sum(1, keepdim=True), rows, value=-1)


def ramp(step: int, steps: int, *, warmup: float, decay: float = 0.0) -> float:
    """Factor at `step`, counted from 0: a linear rise over the first `warmup`, a fall to 0 over the last `decay`."""
    rise = (step + 1) / (warmup * steps) if warmup else 1.0
    fall = (steps - step) / (decay * steps) if decay else 1.0
    return min(1.0, rise, fall)


def fastest_precision(device: str) -> Precision:
    """``bf16`` on a processor with AMX, where both were found no worse than ``fp32``; else ``medium``.

    See ``results/benchmarks/sae_precision.md``. On a GPU, and on processors without AMX, ``bf16`` was not measured.
    """
    has_amx = getattr(torch.cpu, "get_capabilities", dict[str, bool])().get("amx_bf16", False)
    return "bf16" if device == "cpu" and has_amx else "medium"


@contextmanager
def matmul_precision(precision: Precision) -> Generator[None]:
    """Set torch's float32 matmul precision, which is global, and put the former one back."""
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(former)
