"""A shuffle pool: batches drawn at random from many windows, at a cost that does not grow with the pool."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae.errors import UserError

Rows: TypeAlias = Callable[[int], Iterator[Float[Tensor, "token d_in"]]]
"""A stream of vectors in pieces of any length: called with a number, it yields the pieces from that one on, always the
same ones. So a run that was cut off goes on where it was."""


@dataclass(frozen=True, eq=False, slots=True)
class PoolState:
    """All that a pool is at one moment, between two draws."""

    rows: Float[Tensor, "token d_in"]
    """The rows that wait to be drawn."""
    rest: Float[Tensor, "left d_in"]
    """What is left of the piece taken last."""
    order: Int64[Tensor, " slot"]
    """Slots to be drawn next."""
    taken: int
    """Pieces taken from the stream."""
    rng: dict[str, Any]
    """State of the generator of orders."""


class Pool:
    """Holds `size` rows. Each draw takes `batch` random rows and puts fresh ones from the stream in their slots.

    Every row is drawn exactly once; it waits for `size` further rows on average, and for twice as many at most.
    """

    def __init__(self, rows: Rows, *, size: int, batch: int, seed: int, state: PoolState | None = None) -> None:
        """Fill the pool, or go on from `state`. `size` is a multiple of `batch`."""
        if size % batch:
            raise ValueError("the pool must hold whole batches")
        self._batch = batch
        self._rng = np.random.default_rng(seed)
        self._rest: Tensor | None = None
        if state is not None:
            self._rng.bit_generator.state = state.rng
            self._pieces, self._taken, self._rest = rows(state.taken), state.taken, state.rest
            self._order = state.order
            self.rows = state.rows
            return
        self._pieces, self._taken = rows(0), 0
        first = self._rest = self._next()
        self._order = torch.empty(0, dtype=torch.int64, device=first.device)
        self.rows: Float[Tensor, "token d_in"] = first.new_empty(size, first.shape[1])
        """The rows that wait to be drawn."""
        self._fill(torch.arange(size, device=first.device))

    def draw(self) -> Float[Tensor, "token d_in"]:
        """The next batch. Raises `UserError` when the stream has ended."""
        if not len(self._order):
            self._order = torch.from_numpy(self._rng.permutation(len(self.rows))).to(self.rows.device)
        slots, self._order = self._order[: self._batch], self._order[self._batch :]
        drawn = self.rows.index_select(0, slots)
        self._fill(slots)
        return drawn

    def state(self) -> PoolState:
        """What another pool can go on from; its rows are this pool's own, not a copy."""
        rest = self.rows[:0] if self._rest is None else self._rest
        state = self._rng.bit_generator.state
        return PoolState(self.rows, rest, self._order.clone(), self._taken, dict(state))

    def _fill(self, slots: Int64[Tensor, " slot"]) -> None:
        while len(slots):
            if self._rest is None or not len(self._rest):
                self._rest = self._next()
            part, self._rest = self._rest[: len(slots)], self._rest[len(slots) :]
            self.rows.index_copy_(0, slots[: len(part)], part)
            slots = slots[len(part) :]

    def _next(self) -> Tensor:
        piece = next(self._pieces, None)
        if piece is None:
            raise UserError(
                "The activations ran out before the training did.",
                "A run takes its tokens and, besides, one pool.",
                "Give a stream that repeats itself, or ask for fewer tokens.",
            )
        self._taken += 1
        return piece
