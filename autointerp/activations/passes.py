"""What the two passes over the activations keep of one arm: state per unit, none per token of the corpus."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Int64

from autointerp.activations.pairs import Cells, PairSums
from autointerp.activations.plan import OUT_OF_CONTEXT, RANDOM, SPLITS, TOP_TOKENS, ArmUnits, Block, HarvestSizes
from autointerp.activations.sampling import EMPTY, Anchors, BottomK, hashed, in_turn, least_of_each, mixed, salt
from autointerp.records.unit import Split

_SUM_BITS = 24
"""Sums count in steps of 2^-24 of the unit's scale, so that they are integers and no order shows in them."""
_UNITS_AT_ONCE = 128


def interval_of(value: np.ndarray, maximum: np.ndarray, n: int) -> np.ndarray:
    """Which of `n` equal intervals of (0, maximum] holds each positive value, from 1; values above are in the last.

    The interval i holds (i-1)/n < value/maximum <= i/n, in float32. Everything is above a maximum of 0.
    """
    with np.errstate(divide="ignore"):
        scale = np.float32(n) / np.asarray(maximum, dtype=np.float32)
    return np.minimum(np.ceil(value * scale), np.float32(n)).astype(np.int64)


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


@dataclass(frozen=True, eq=False)
class Planned:
    """Excerpts chosen without regard to the unit's activation there, which the second pass fills in."""

    row: np.ndarray
    """Row of the arm's units, int64 of shape (excerpt)."""
    rank: np.ndarray
    """Place in the unit's sample."""
    group: np.ndarray
    """Index into `GROUPS`."""
    window: np.ndarray
    """Row of the windows, rising."""
    position: np.ndarray
    """Position of the anchor."""
    values: np.ndarray
    """Activations, float32 of shape (excerpt, token)."""

    @classmethod
    def empty(cls, width: int) -> "Planned":
        """No excerpts of `width` tokens."""
        none = np.empty(0, dtype=np.int64)
        return cls(none, none, none, none, none, np.empty((0, width), dtype=np.float32))


class SplitState:
    """What one split of one arm has come to so far."""

    def __init__(self, units: ArmUnits, anchors: Anchors, sizes: HarvestSizes, split: Split, keys: np.ndarray) -> None:
        self.name: Split = split
        """Which split."""
        n, kept = len(units.units), sizes.splits[split]
        self._anchors, self._sizes, self._keys, self._n = anchors, sizes, keys, n
        self.maximum = np.zeros(n, dtype=np.float32)
        """Highest activation of each unit where it fires."""
        self.top = BottomK(n, kept.top, sizes.excerpt_tokens)
        """The windows with each unit's highest activations."""
        self.intervals = BottomK(n * sizes.n_intervals, kept.per_interval, sizes.excerpt_tokens)
        """Sampled windows of each (unit, interval)."""
        self.counts = np.zeros(n * sizes.n_intervals, dtype=np.int64)
        """Firing positions of each (unit, interval)."""
        self.sums = np.zeros(n, dtype=np.int64)
        """Sum of each unit's activations in its own steps."""
        self.planned = Planned.empty(sizes.excerpt_tokens)
        """The random and out-of-context excerpts, once they are chosen."""

    def admit_top(self, part: Part, fired: Part) -> None:
        """First pass: keep each unit's highest position in each window, if it is among the highest so far."""
        # A key is the complement of the value's bits above the window: least is highest, then earliest.
        floor = (~(self.top.bound >> np.uint64(32)).astype(np.uint32)).view(np.float32)
        high = fired.where(np.flatnonzero(fired.value >= floor.take(fired.row)))
        np.maximum.at(self.maximum, high.row, high.value)
        high = high.where(self._anchors.fits[high.window])
        falling = ~high.value.view(np.uint32)
        key = (falling.astype(np.uint64) << np.uint64(32)) | high.window.astype(np.uint64)
        best = least_of_each(high.row * len(self._anchors.fits) + high.window, falling)
        high = high.where(best)
        self.top.offer(high.row, key[best], high.window, high.position, self._gather(part, high))

    def admit_intervals(self, part: Part, fired: Part, explain_maximum: np.ndarray) -> None:
        """Second pass: count the intervals and keep the windows with the least hashes in each."""
        n = self._sizes.n_intervals
        cell = interval_of(fired.value, explain_maximum.take(fired.row), n) + (fired.row * n - 1)
        self.counts += np.bincount(cell, minlength=len(self.counts))
        key = mixed(self._keys.take(fired.row) ^ fired.window.astype(np.uint64))
        low = np.flatnonzero(key < self.intervals.bound.take(cell))
        low = low[self._anchors.fits[fired.window[low]]]
        within = hashed(key[low], fired.position[low])
        low = low[least_of_each(cell[low] * len(self._anchors.fits) + fired.window[low], within)]
        chosen = fired.where(low)
        self.intervals.offer(cell[low], key[low], chosen.window, chosen.position, self._gather(part, chosen))

    def fill_planned(self, part: Part, batch: range) -> None:
        """Second pass: look up the activations of the planned excerpts in this batch."""
        begin, end = np.searchsorted(self.planned.window, [batch.start, batch.stop])
        row, window, position = (
            column[begin:end] for column in (self.planned.row, self.planned.window, self.planned.position)
        )
        start = self._anchors.start(window, position)
        self.planned.values[begin:end] = part.gather(row, window, start, self._anchors.width)

    def _gather(self, part: Part, chosen: Part) -> Callable[[np.ndarray], np.ndarray]:
        def gather(index: np.ndarray) -> np.ndarray:
            picked = chosen.where(index)
            start = self._anchors.start(picked.window, picked.position)
            return part.gather(picked.row, picked.window, start, self._anchors.width)

        return gather


class ArmState:
    """What the harvest of one arm has come to so far: `first` for every batch, `plan`, `second` for every batch."""

    def __init__(
        self,
        label: str,
        units: ArmUnits,
        anchors: Anchors,
        split: np.ndarray,
        cells: Cells,
        sizes: HarvestSizes,
        seed: int,
    ) -> None:
        self.label, self.units = label, units
        """The arm's name and units."""
        self._anchors, self._split, self._sizes, self._seed = anchors, split, sizes, seed
        self._row_of = np.full(int(units.units.max(initial=-1)) + 2, -1)
        self._row_of[units.units] = np.arange(len(units.units))
        keys = hashed(salt(seed, "interval", label), np.asarray(units.units))
        self.splits: dict[Split, SplitState] = {
            name: SplitState(units, anchors, sizes, name, keys) for name in sizes.splits
        }
        """State of each harvested split."""
        self.pairs = PairSums(cells, len(units.units))
        """Sums of each unit's activations over tokens and pairs of tokens."""
        self.squares = np.zeros(len(units.units))
        """Sum of each unit's squared activations over the score split, in whole steps of `steps`."""
        self.steps = np.ones(len(units.units), dtype=np.float32)
        """Steps of the sums per unit of activation."""

    def first(self, batch: range, block: Block) -> None:
        """First pass: maxima and top excerpts."""
        for state, part in self._parts(batch, block):
            state.admit_top(part, self._fired(part))

    def plan(self, pools: dict[Split, tuple[np.ndarray, np.ndarray]]) -> None:
        """Between the passes: choose the random and the out-of-context excerpts, and the scale of the sums."""
        highest = np.maximum.reduce([self.units.thresholds, *(state.maximum for state in self.splits.values())])
        self.steps = np.ldexp(np.float32(1), np.minimum(_SUM_BITS - np.frexp(highest)[1], 126)).astype(np.float32)
        top_tokens = self._top_tokens()
        for name, state in self.splits.items():
            random = self._random(name, pools[name])
            elsewhere = self._out_of_context(name, state.top, top_tokens)
            window, position, group = (np.concatenate(pair, axis=1) for pair in zip(random, elsewhere, strict=True))
            row, column = np.nonzero(window >= 0)
            order = np.argsort(window[row, column], kind="stable")
            row, column = row[order], column[order]
            rank = column - np.where(group[row, column] == OUT_OF_CONTEXT, random[0].shape[1], 0)
            values = np.zeros((len(row), self._anchors.width), dtype=np.float32)
            state.planned = Planned(row, rank, group[row, column], window[row, column], position[row, column], values)

    def second(self, batch: range, block: Block) -> None:
        """Second pass: sums, interval counts and samples, and the activations of the planned excerpts."""
        explain = self.splits["explain"]
        for state, part in self._parts(batch, block):
            steps = np.rint(part.value * self.steps.take(part.row))
            state.sums += np.bincount(part.row, weights=steps, minlength=len(self.steps)).astype(np.int64)
            fires = part.value > self.units.thresholds.take(part.row)
            self.pairs.add(state.name, part.place, part.row, steps, fires)
            if state.name == "score":
                squares = np.rint(steps.astype(np.float64) ** 2 / 2**_SUM_BITS)
                self.squares += np.bincount(part.row, weights=squares, minlength=len(self.steps))
            state.admit_intervals(part, self._fired(part), explain.maximum)
            state.fill_planned(part, batch)

    def squared(self) -> np.ndarray:
        """Sum of each unit's squared activations over the score split."""
        return self.squares * 2.0**_SUM_BITS / self.steps.astype(np.float64) ** 2

    def _parts(self, batch: range, block: Block) -> list[tuple[SplitState, Part]]:
        context = self._anchors.windows.context
        parts = parts_of(block, batch, self._split, self._row_of, context, len(self.units.units))
        return [(state, parts[SPLITS.index(name)]) for name, state in self.splits.items()]

    def _fired(self, part: Part) -> Part:
        if not self.units.thresholds.any():
            return part
        return part.where(part.value > self.units.thresholds.take(part.row))

    def _top_tokens(self) -> np.ndarray:
        """Each unit's first distinct tokens at the anchors of its explain top excerpts, -1 past their end."""
        top = self.splits["explain"].top
        tokens = np.where(top.window >= 0, self._anchors.windows.tokens[top.window, top.position], -1)
        seen = np.tril(tokens[:, :, None] == tokens[:, None, :], -1).any(2)
        fresh = (tokens >= 0) & ~seen
        order = np.argsort(~fresh, axis=1, kind="stable")[:, :TOP_TOKENS]
        return np.where(np.take_along_axis(fresh, order, 1), np.take_along_axis(tokens, order, 1), -1)

    def _random(self, name: Split, pool: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        state = hashed(salt(self._seed, "random", name, self.label), np.asarray(self.units.units))
        keys = hashed(state[:, None], np.arange(len(pool[0]))[None, :])
        picked = np.argsort(keys, axis=1)[:, : self._sizes.splits[name].random]
        return pool[0][picked], pool[1][picked], np.full(picked.shape, RANDOM)

    def _out_of_context(
        self, name: Split, top: BottomK, top_tokens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Window, position and group of each unit's excerpts, of shape (unit, pick); window -1 past their end."""
        n = self._sizes.splits[name].out_of_context
        needed = np.unique(top_tokens[top_tokens >= 0])
        # As many more than are kept as may lie in the unit's top windows.
        k = n + top.keys.shape[1]
        found = self._anchors.occurrences(
            self._split == SPLITS.index(name), needed, k, salt(self._seed, "out of context", name)
        )
        window, position = (np.full((len(top_tokens), n), fill, dtype=np.int32) for fill in (-1, 0))
        for begin in range(0, len(top_tokens) if len(needed) else 0, _UNITS_AT_ONCE):
            units = slice(begin, begin + _UNITS_AT_ONCE)
            at = np.searchsorted(needed, top_tokens[units]).clip(max=len(needed) - 1)
            windows = found.window[at]
            valid = (top_tokens[units] >= 0)[:, :, None] & (found.keys[at] != EMPTY)
            valid &= ~(windows[..., None] == top.window[units][:, None, None, :]).any(-1)
            picks = in_turn(valid, n)
            for out, column in ((window, windows), (position, found.position[at])):
                taken = np.take_along_axis(column.reshape(len(picks), -1), np.maximum(picks, 0), 1)
                out[units] = np.where(picks >= 0, taken, out[units])
        return window, position, np.full(window.shape, OUT_OF_CONTEXT)
