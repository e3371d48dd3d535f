"""The excerpts that two passes over the activations keep of one arm, of one width."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autointerp.activations.parts import Part
from autointerp.activations.plan import OUT_OF_CONTEXT, RANDOM, SPLITS, TOP_TOKENS, ArmUnits, HarvestSizes
from autointerp.activations.sampling import EMPTY, Anchors, BottomK, hashed, in_turn, least_of_each, mixed, salt
from autointerp.records.unit import Split

_UNITS_AT_ONCE = 128


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


class Kept:
    """What one split has come to so far."""

    def __init__(self, units: ArmUnits, anchors: Anchors, sizes: HarvestSizes, split: Split, keys: np.ndarray) -> None:
        n, kept = len(units.units), sizes.splits[split]
        self._anchors, self._keys, self._once_per_window = anchors, keys, sizes.once_per_window
        self.top = BottomK(n, kept.top, anchors.width)
        """The windows with each unit's highest activations."""
        self.intervals = BottomK(n * sizes.n_intervals, kept.per_interval, anchors.width)
        """Sampled windows, or anchors, of each (unit, interval)."""
        self.planned = Planned.empty(anchors.width)
        """The random and out-of-context excerpts, once they are chosen."""

    def admit_top(self, part: Part, fired: Part) -> Part:
        """First pass: keep each unit's highest position in each window, if it is among the highest so far.

        Gives the entries that may have been, wherever an excerpt fits: a unit's highest is always among them.
        """
        # A key is the complement of the value's bits above the window: least is highest, then earliest.
        floor = (~(self.top.bound >> np.uint64(32)).astype(np.uint32)).view(np.float32)
        high = fired.where(np.flatnonzero(fired.value >= floor.take(fired.row)))
        fits = high.where(self._anchors.fits[high.window])
        falling = ~fits.value.view(np.uint32)
        key = (falling.astype(np.uint64) << np.uint64(32)) | fits.window.astype(np.uint64)
        best = least_of_each(fits.row * len(self._anchors.fits) + fits.window, falling)
        fits = fits.where(best)
        self.top.offer(fits.row, key[best], fits.window, fits.position, self._gather(part, fits))
        return high

    def admit_intervals(self, part: Part, fired: Part, cell: np.ndarray) -> None:
        """Second pass: keep the windows, or anchors, with the least hashes in each (unit, interval), the `cell` of each
        entry."""
        if not self.intervals.keys.shape[1]:
            return
        drawn = fired.window if self._once_per_window else fired.place
        key = mixed(self._keys.take(fired.row) ^ drawn.astype(np.uint64))
        low = np.flatnonzero(key < self.intervals.bound.take(cell))
        low = low[self._anchors.fits[fired.window[low]]]
        if self._once_per_window:
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


class ArmExcerpts:
    """The excerpts of one width of one arm, and the plan between the passes."""

    def __init__(
        self, label: str, units: ArmUnits, anchors: Anchors, split: np.ndarray, sizes: HarvestSizes, seed: int
    ) -> None:
        self.anchors = anchors
        """Where they may lie."""
        self._label, self._units, self._split, self._sizes, self._seed = label, units, split, sizes, seed
        keys = hashed(salt(seed, "interval", label), np.asarray(units.units))
        self.splits: dict[Split, Kept] = {name: Kept(units, anchors, sizes, name, keys) for name in sizes.splits}
        """By split."""

    def top_tokens(self) -> np.ndarray:
        """Each unit's first distinct tokens at the anchors of its explain top excerpts, -1 past their end."""
        top = self.splits["explain"].top
        tokens = np.where(top.window >= 0, self.anchors.windows.tokens[top.window, top.position], -1)
        seen = np.tril(tokens[:, :, None] == tokens[:, None, :], -1).any(2)
        fresh = (tokens >= 0) & ~seen
        order = np.argsort(~fresh, axis=1, kind="stable")[:, :TOP_TOKENS]
        return np.where(np.take_along_axis(fresh, order, 1), np.take_along_axis(tokens, order, 1), -1)

    def pool(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Window and position of uniformly random anchors, the same for every arm."""
        code = SPLITS.index(split)
        return self.anchors.draw(self._split == code, self._sizes.pool, np.random.default_rng([self._seed, code]))

    def plan(self, top_tokens: np.ndarray) -> None:
        """Between the passes: choose the random excerpts, and those of each unit's `top_tokens` out of context."""
        for name, kept in self.splits.items():
            random = self._random(name)
            elsewhere = self._out_of_context(name, kept.top, top_tokens)
            window, position, group = (np.concatenate(pair, axis=1) for pair in zip(random, elsewhere, strict=True))
            row, column = np.nonzero(window >= 0)
            order = np.argsort(window[row, column], kind="stable")
            row, column = row[order], column[order]
            rank = column - np.where(group[row, column] == OUT_OF_CONTEXT, random[0].shape[1], 0)
            values = np.zeros((len(row), self.anchors.width), dtype=np.float32)
            kept.planned = Planned(row, rank, group[row, column], window[row, column], position[row, column], values)

    def _random(self, name: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        window, position = self.pool(name)
        state = hashed(salt(self._seed, "random", name, self._label), np.asarray(self._units.units))
        keys = hashed(state[:, None], np.arange(len(window))[None, :])
        picked = np.argsort(keys, axis=1)[:, : self._sizes.splits[name].random]
        return window[picked], position[picked], np.full(picked.shape, RANDOM)

    def _out_of_context(
        self, name: Split, top: BottomK, top_tokens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Window, position and group of each unit's excerpts, of shape (unit, pick); window -1 past their end."""
        n = self._sizes.splits[name].out_of_context
        needed = np.unique(top_tokens[top_tokens >= 0])
        # As many more than are kept as may lie in the unit's top windows.
        k = n + top.keys.shape[1]
        found = self.anchors.occurrences(
            self._split == SPLITS.index(name), needed, k, salt(self._seed, "out of context", name)
        )
        window, position = (np.full((len(top_tokens), n), fill, dtype=np.int32) for fill in (-1, 0))
        for begin in range(0, len(top_tokens) if n and len(needed) else 0, _UNITS_AT_ONCE):
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
