"""What a training step saw, and where it puts its gradients."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Real
from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class StepResult:
    """What a step saw, before it changed the weights. Tensors, because a GPU would be idle while they are read."""

    mse: Float[Tensor, ""]
    """Squared error, mean over the batch; over the elements of an input their mean or sum, as in the objective."""
    penalty: Float[Tensor, ""]
    """The rest of it with its weight: L1, L0, or the dead units' loss."""
    fired: Bool[Tensor, " unit"]
    """Units that fired at least once in the batch."""
    firings: int | None
    """How many activations of the batch are above 0; None where it was not asked for."""

    @property
    def loss(self) -> Float[Tensor, ""]:
        """The objective: squared error plus penalty, mean over the batch."""
        return self.mse + self.penalty


def gradient(tensor: Tensor) -> Tensor:
    """The memory of its gradient."""
    assert tensor.grad is not None
    return tensor.grad


def rounded_up(count: int) -> int:
    """The power of two that is next to `count`, or `count` itself; above 0.

    oneDNN keeps memory for every shape that it has multiplied, and the number of dead units is another at every step.
    """
    return 1 << (count - 1).bit_length()


def places_above(values: Float[Tensor, "..."], limit: float) -> Int64[Tensor, " place"]:
    """Flat places of the entries above `limit`, rising."""
    above = _compared(values, limit)
    if isinstance(above, Tensor):
        return above.flatten().nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(above))


def count_above(values: Real[Tensor, "..."], limit: float = 0.0) -> int:
    """How many entries are above `limit`."""
    above = _compared(values, limit)
    return int(above.sum()) if isinstance(above, Tensor) else int(np.count_nonzero(above))


def _compared(values: Tensor, limit: float) -> np.ndarray | Tensor:
    """On a processor by numpy, whose comparisons and searches are several times faster than torch's."""
    if values.device.type == "cpu" and values.dtype is not torch.bfloat16:
        return values.numpy() > limit
    return values > limit
