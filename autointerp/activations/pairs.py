"""Token pairs of a corpus, and sums of every unit's activations over them, in memory that tokens do not fill."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32, Int64
from scipy import sparse

from autointerp.activations.plan import SPLITS
from autointerp.records.unit import Split
from sae.corpus.windows import Windows

MOST_SUMS = 20_000_000
"""Numbers that one arm may keep per split; rare pairs are given up where there would be more."""
_ENTRIES_AT_ONCE = 1 << 21
_SIDES: tuple[Split, Split] = ("explain", "score")


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The positions of a corpus sorted into cells: one per pair of a token and the token before it, where the explain
    and the score split both have that pair, and one per token for its other positions."""

    of: Int32[np.ndarray, " place"]
    """Cell of every position, counted through all windows; -1 at BOS and padding."""
    tokens: Int64[np.ndarray, " token"]
    """Distinct token ids, rising. The cell of such a token without a known pair comes after all pairs,
    in this order."""
    column: Int64[np.ndarray, " cell"]
    """Place in `tokens` of each cell's token."""
    counts: Mapping[Split, Int64[np.ndarray, " cell"]]
    """Positions of each cell, in the explain and in the score split."""

    @property
    def n_pairs(self) -> int:
        """Cells that are pairs."""
        return len(self.column) - len(self.tokens)

    def folded(self, rare: int) -> Int64[np.ndarray, " cell"]:
        """Where each cell lies when pairs that the explain split has at most `rare` times are given up."""
        alone = self.n_pairs + self.column
        is_rare = (self.counts["explain"] <= rare) & (np.arange(len(self.column)) < self.n_pairs)
        return np.where(is_rare, alone, np.arange(len(self.column)))


def cells_of(windows: Windows, split: np.ndarray) -> Cells:
    """The cells of a corpus. The first position of a window without BOS has no token before it, and so no pair."""
    counted, ids = windows.counted(), windows.tokens.astype(np.int64)
    before = np.pad(ids, ((0, 0), (1, 0)))[:, :-1]
    paired = counted & (np.arange(windows.context) > 0)
    code = before * (int(ids.max(initial=0)) + 1) + ids
    within = {name: (split == SPLITS.index(name))[:, None] for name in _SIDES}
    known = np.intersect1d(code[paired & within["explain"]], code[paired & within["score"]])
    tokens = np.unique(ids[counted])
    cell = np.full(ids.shape, -1, dtype=np.int32)
    cell[counted] = len(known) + np.searchsorted(tokens, ids[counted])
    if len(known):
        at = np.searchsorted(known, code[paired]).clip(max=len(known) - 1)
        cell[paired] = np.where(known[at] == code[paired], at, cell[paired])
    column = np.concatenate([np.searchsorted(tokens, known % (int(ids.max(initial=0)) + 1)), np.arange(len(tokens))])
    counts: dict[Split, np.ndarray] = {
        name: np.bincount(cell[counted & within[name]], minlength=len(column)) for name in _SIDES
    }
    return Cells(cell.reshape(-1), tokens, column, counts)


@dataclass(slots=True, eq=False)
class _Side:
    """What one split has come to."""

    sums: sparse.csr_array
    """Of activations, in steps, of shape (cell, unit)."""
    fired: sparse.csr_array
    """Firing positions, of the same shape; empty for the explain split."""
    held: list[tuple[np.ndarray, ...]] = field(default_factory=list[tuple[np.ndarray, ...]])
    """Cell, unit, steps and whether it fires, of entries that are not added yet."""
    n_held: int = 0
    """How many these are."""


class PairSums:
    """Sums of one arm's activations over cells, the same whatever the order in which they are added."""

    def __init__(self, cells: Cells, n_units: int, most: int = MOST_SUMS) -> None:
        self.cells = cells
        """The cells."""
        self.rare = 0
        """Pairs that the explain split has at most this often are given up."""
        self._most, self._shape = most, (len(cells.column), n_units)
        self._place = np.arange(len(cells.column))
        self._sides = {name: _Side(self._nothing(), self._nothing()) for name in _SIDES}

    def add(self, split: Split, place: np.ndarray, row: np.ndarray, steps: np.ndarray, fires: np.ndarray) -> None:
        """Add the activations `steps` (whole numbers) of the units `row` at the positions `place` of `split`."""
        if split not in self._sides:
            return
        side = self._sides[split]
        side.held.append((self.cells.of[place], row.astype(np.int32), steps, fires))
        side.n_held += len(place)
        if side.n_held >= _ENTRIES_AT_ONCE:
            self._settle(split)

    def place_of(self, place: np.ndarray) -> np.ndarray:
        """Cell of each position that counts, given counted through all windows."""
        self._settled("score")
        return self._place[self.cells.of[place]]

    def sums(self, split: Split) -> sparse.csr_array:
        """Sums of activations in steps, of shape (cell, unit)."""
        return self._settled(split).sums

    def fired(self) -> sparse.csr_array:
        """Firing positions in the score split, of shape (cell, unit)."""
        return self._settled("score").fired

    def counts(self, split: Split) -> Int64[np.ndarray, " cell"]:
        """Positions of each cell that is not given up."""
        self._settled(split)
        counts = np.bincount(self._place, weights=self.cells.counts[split], minlength=len(self._place))
        return counts.astype(np.int64)

    def by_token(self, cells: sparse.csr_array) -> sparse.csr_array:
        """The cells of each token added up, of shape (token, unit)."""
        return self._moved(cells, self.cells.column, len(self.cells.tokens))

    def _settled(self, split: Split) -> _Side:
        for name in _SIDES:  # both, because either may give up pairs
            self._settle(name)
        return self._sides[split]

    def _settle(self, split: Split) -> None:
        side = self._sides[split]
        if side.held:
            cell, row, steps, fires = (np.concatenate(column) for column in zip(*side.held, strict=True))
            side.held, side.n_held = [], 0
            at = (self._place[cell], row)
            side.sums = side.sums + sparse.csr_array((steps.astype(np.float64), at), shape=self._shape)
            if split == "score":
                fired = (fires.astype(np.float64), at)
                side.fired = side.fired + sparse.csr_array(fired, shape=self._shape)
        while side.sums.nnz > self._most and self.rare < int(self.cells.counts["explain"].max(initial=0)):
            self.rare += 1
            self._place = self.cells.folded(self.rare)
            for each in self._sides.values():
                each.sums, each.fired = (self._moved(m, self._place, self._shape[0]) for m in (each.sums, each.fired))

    def _moved(self, cells: sparse.csr_array, to: np.ndarray, n: int) -> sparse.csr_array:
        ones = np.ones(len(to))
        return sparse.csr_array(sparse.csr_array((ones, (to, np.arange(len(to)))), shape=(n, len(to))) @ cells)

    def _nothing(self) -> sparse.csr_array:
        return sparse.csr_array(self._shape, dtype=np.float64)
