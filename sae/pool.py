"""A shuffle pool: batches drawn at random from many windows, at a cost that does not grow with the pool."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae.errors import UserError


class Pool:
    """Holds `size` rows. Each draw takes `batch` random rows and puts fresh ones from the stream in their slots.

    Every row is drawn exactly once; it waits for `size` further rows on average, and for twice as many at most.
    """

    def __init__(self, stream: Iterator[Float[Tensor, "token d_in"]], *, size: int, batch: int, seed: int) -> None:
        """Fill the pool. `stream` yields rows in pieces of any length; `size` is a multiple of `batch`."""
        if size % batch:
            raise ValueError("the pool must hold whole batches")
        self._pieces = stream
        self._rest: Tensor | None = None
        self._batch = batch
        self._rng = np.random.default_rng(seed)
        self._order = np.empty(0, dtype=np.int64)
        first = self._fresh(batch)
        self.rows: Float[Tensor, "token d_in"] = first.new_empty(size, first.shape[1])
        """The rows that wait to be drawn."""
        self.rows[:batch] = first
        for begin in range(batch, size, batch):
            self.rows[begin : begin + batch] = self._fresh(batch)

    def draw(self) -> Float[Tensor, "token d_in"]:
        """The next batch. Raises `UserError` when the stream has ended."""
        if not len(self._order):
            self._order = self._rng.permutation(len(self.rows))
        taken, self._order = self._order[: self._batch], self._order[self._batch :]
        slots = torch.from_numpy(taken).to(self.rows.device)
        drawn = self.rows.index_select(0, slots)
        self.rows.index_copy_(0, slots, self._fresh(self._batch))
        return drawn

    def _fresh(self, count: int) -> Tensor:
        parts: list[Tensor] = []
        while count:
            piece = self._rest if self._rest is not None and len(self._rest) else next(self._pieces, None)
            if piece is None:
                raise UserError(
                    "The activations ran out before the training did.",
                    "A run takes its tokens and, besides, one pool.",
                    "Give a stream that repeats itself, or ask for fewer tokens.",
                )
            parts.append(piece[:count])
            self._rest = piece[count:]
            count -= len(parts[-1])
        return torch.cat(parts)
