"""Several processes that train as one: each has its share of every batch, and all have the same weights.

torchrun starts them and says which is which. A process alone passes through here without a collective.
"""

import dataclasses
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from sae.config import TrainingRecipe
from sae.errors import UserError
from sae.outcome import StepResult


@dataclasses.dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of its run. Its methods are collectives: every rank calls them in the same order.

    They raise `UserError` where another process of the run has ended.
    """

    rank: int = 0
    """Number of this process, from 0; the first one writes what is the same on all."""
    count: int = 1
    """Processes of the run."""
    device: str = "cpu"
    """Where what they exchange lies: ``cpu`` or ``cuda``."""

    @property
    def first(self) -> bool:
        """Whether this process writes metrics, progress and results."""
        return self.rank == 0

    def share(self, recipe: TrainingRecipe) -> TrainingRecipe:
        """`recipe` with this rank's part of its batch. Raises `UserError` where the batch cannot be shared evenly."""
        if recipe.batch % self.count:
            raise UserError(
                f"A batch of {recipe.batch} cannot be shared by {self.count} processes.",
                do="Start a number of processes that divides it.",
            )
        return recipe if self.count == 1 else dataclasses.replace(recipe, batch=recipe.batch // self.count)

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Every tensor becomes, in place, its mean over the ranks: the same bits on all of them."""
        self.sum(tensors)
        if self.count > 1:
            for tensor in tensors:
                tensor.div_(self.count)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Every tensor becomes, in place, its sum over the ranks."""
        if self.count > 1:
            with _with_the_others():
                for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                    work.wait()  # pyright: ignore[reportOptionalMemberAccess]

    def gather(self, rows: Shaped[Tensor, "row *rest"]) -> Shaped[Tensor, "all_rows *rest"]:
        """The rows of all ranks, as many of each, in the order of the ranks."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        with _with_the_others():
            dist.all_gather(parts, rows)
        return torch.cat(parts)

    def average(self, value: float) -> float:
        """Mean of the ranks' values."""
        if self.count == 1:
            return value
        values = torch.tensor([value], dtype=torch.float64, device=self.device)
        self.mean([values])
        return values.item()

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank."""
        return self.average(float(flag)) > 0

    def wait(self) -> None:
        """Return when every rank has come here."""
        self.average(0.0)

    def agree(self, result: StepResult, tensors: Sequence[Tensor]) -> StepResult:
        """What all ranks saw in their parts of a batch; `tensors`, such as gradients, become their means in place.

        Its firings are still those of this rank's part.
        """
        if self.count == 1:
            return result
        seen = torch.cat([torch.stack([result.mse, result.penalty]).float(), result.fired])
        self.mean([*tensors, seen])
        return dataclasses.replace(result, mse=seen[0], penalty=seen[1], fired=seen[2:] > 0)


ALONE = Ranks()
"""The only process of its run."""


@contextmanager
def joined(device: str) -> Generator[Ranks]:
    """This process among those that torchrun started, until the block ends; `ALONE` where there are no others.

    They speak through gloo, or on `device` ``cuda`` through NCCL, each with a GPU of its own, which becomes torch's
    current one. Raises `UserError` where there are fewer GPUs than processes.
    """
    count = int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1
    if count == 1:
        yield ALONE
        return
    if device == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(
                f"Process {local + 1} on this machine has no GPU; there are {torch.cuda.device_count()}.",
                do="Start as many processes as there are GPUs, or give --device cpu.",
            )
        torch.cuda.set_device(local)
    elif device != "cpu":
        raise UserError(f"Several processes cannot train on {device}.", do="Give --device cpu or cuda.", usage=True)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()


@contextmanager
def _with_the_others() -> Generator[None]:
    try:
        yield
    except RuntimeError as error:
        raise UserError("Another process of this run has ended; its own message says why.", str(error)) from error
