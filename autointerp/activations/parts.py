"""One batch of a stream of activations, sorted into splits and rows."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Int64

from autointerp.activations.plan import SPLITS, Block


@dataclass(frozen=True, eq=False)
class Part:
    """The entries of one batch that lie in one split and belong to harvested units, in the order of the block."""

    window: np.ndarray
    """Row of the windows, int32 of shape (entry)."""
    position: np.ndarray
    """Position in the window, int32 of shape (entry)."""
    row: Int64[np.ndarray, " entry"]
    """Row of the arm's units."""
    value: np.ndarray
    """Activation, float32 of shape (entry)."""
    context: int
    """Positions per window."""
    n_units: int
    """Rows of the arm's units."""

    @cached_property
    def place(self) -> Int64[np.ndarray, " entry"]:
        """Position counted through all windows."""
        return self.window.astype(np.int64) * self.context + self.position

    @cached_property
    def _keys(self) -> Int64[np.ndarray, " entry"]:
        return self.place * self.n_units + self.row

    def where(self, index: np.ndarray) -> "Part":
        """The entries at `index` (integers or booleans)."""
        window, position, row, value = (column[index] for column in (self.window, self.position, self.row, self.value))
        return Part(window, position, row, value, self.context, self.n_units)

    def gather(
        self, row: np.ndarray, window: np.ndarray, start: np.ndarray, width: int
    ) -> Float32[np.ndarray, "excerpt token"]:
        """Activation of the units `row` at `width` positions from `start`; 0 where a unit has no entry."""
        out = np.zeros((len(row), width), dtype=np.float32)
        if not len(self._keys):
            return out
        begin = (window.astype(np.int64) * self.context + start) * self.n_units + row
        for i in range(width):
            wanted = begin + i * self.n_units
            at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
            out[:, i] = np.where(self._keys[at] == wanted, self.value[at], 0)
        return out


def parts_of(
    block: Block, batch: range, split: np.ndarray, row_of: np.ndarray, context: int, n_units: int
) -> list[Part]:
    """The block's entries by split, in the order of `SPLITS`; dropped windows and units without a row are left out.

    `split` holds the code of every window, `row_of` the row of every index of the dictionary, -1 for none.
    """
    codes = split[batch.start : batch.stop]
    borders = np.searchsorted(block.window, np.arange(batch.start, batch.stop + 1))
    # Neighbouring windows mostly share a document and so a split: runs of them are copied, not picked one by one.
    changes = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    parts: list[Part] = []
    for code in range(len(SPLITS)):
        runs = [slice(borders[a], borders[b]) for a, b in pairwise(changes) if codes[a : a + 1] == code] or [slice(0)]
        columns = (block.window, block.position, block.unit, block.value)
        window, position, unit, value = (np.concatenate([column[run] for run in runs]) for column in columns)
        row = row_of.take(unit, mode="clip")
        part = Part(window, position, row, value, context, n_units)
        parts.append(part.where(row >= 0) if row.min(initial=0) < 0 else part)
    return parts
