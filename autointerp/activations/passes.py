"""What the two passes over the activations keep of one arm: state per unit, none per token of the corpus."""

from typing import Any

import numpy as np

from autointerp.activations.excerpts import ArmExcerpts
from autointerp.activations.firing import FiringState
from autointerp.activations.pairs import Cells, PairSums
from autointerp.activations.parts import Part, parts_of
from autointerp.activations.plan import SPLITS, ArmUnits, Block, HarvestSizes
from autointerp.activations.sampling import Anchors, hashed, salt
from autointerp.records.unit import Split
from sae.corpus.windows import Windows

_SUM_BITS = 24
"""Sums count in steps of 2^-24 of the unit's scale, so that they are integers and no order shows in them."""


def interval_of(value: np.ndarray, maximum: np.ndarray, n: int) -> np.ndarray:
    """Which of `n` equal intervals of (0, maximum] holds each positive value, from 1; values above are in the last.

    The interval i holds (i-1)/n < value/maximum <= i/n, in float32. Everything is above a maximum of 0.
    """
    with np.errstate(divide="ignore"):
        scale = np.float32(n) / np.asarray(maximum, dtype=np.float32)
    return np.minimum(np.ceil(value * scale), np.float32(n)).astype(np.int64)


class SplitState:
    """What one split of one arm has come to so far, besides its excerpts."""

    def __init__(self, n_units: int, n_intervals: int) -> None:
        self.maximum = np.zeros(n_units, dtype=np.float32)
        """Highest activation of each unit where it fires."""
        self.counts = np.zeros(n_units * n_intervals, dtype=np.int64)
        """Firing positions of each (unit, interval)."""
        self.sums = np.zeros(n_units, dtype=np.int64)
        """Sum of each unit's activations in its own steps."""


class ArmState:
    """What the harvest of one arm has come to so far: `first` for every batch, `plan`, `second` for every batch."""

    def __init__(
        self,
        label: str,
        units: ArmUnits,
        windows: Windows,
        split: np.ndarray,
        cells: Cells,
        sizes: HarvestSizes,
        seed: int,
    ) -> None:
        self.label, self.units = label, units
        """The arm's name and units."""
        self.n_intervals = sizes.n_intervals
        """Equal intervals of (0, explain maximum]."""
        self._context, self._split = windows.context, split
        self._row_of = np.full(int(units.units.max(initial=-1)) + 2, -1)
        self._row_of[units.units] = np.arange(len(units.units))
        self.splits: dict[Split, SplitState] = {
            name: SplitState(len(units.units), sizes.n_intervals) for name in sizes.held
        }
        """State of each harvested split."""
        self.excerpts = [
            ArmExcerpts(label, units, Anchors(windows, w.excerpt_tokens, centred=w.centred), split, w, seed)
            for w in sizes.widths
        ]
        """What is kept of each width, in the order of `HarvestSizes.widths`."""
        keys = hashed(salt(seed, "anchor", label), np.asarray(units.units))
        self.firing = FiringState(units, self.excerpts[0].anchors, sizes.n_intervals, sizes.score.anchors, keys)
        """Where each unit fires in the score split."""
        self.pairs = PairSums(cells, len(units.units))
        """Sums of each unit's activations over tokens and pairs of tokens."""
        self.squares = np.zeros(len(units.units))
        """Sum of each unit's squared activations over the score split, in whole steps of `steps`."""
        self.steps = np.ones(len(units.units), dtype=np.float32)
        """Steps of the sums per unit of activation."""

    def first(self, batch: range, block: Block) -> None:
        """First pass: maxima and top excerpts."""
        for name, part in self._parts(batch, block):
            fired = self._fired(part)
            high = [each.splits[name].admit_top(part, fired) for each in self.excerpts if name in each.splits]
            np.maximum.at(self.splits[name].maximum, high[0].row, high[0].value)

    def plan(self) -> None:
        """Between the passes: choose the random and the out-of-context excerpts, and the scale of the sums."""
        # Of the splits that every harvest has, so that no sum depends on which others it has.
        maxima = (self.splits[name].maximum for name in ("explain", "score"))
        highest = np.maximum.reduce([self.units.thresholds, *maxima])
        self.steps = np.ldexp(np.float32(1), np.minimum(_SUM_BITS - np.frexp(highest)[1], 126)).astype(np.float32)
        top_tokens = self.excerpts[0].top_tokens()
        for each in self.excerpts:
            each.plan(top_tokens)

    def second(self, batch: range, block: Block) -> None:
        """Second pass: sums, interval counts and samples, and the activations of the planned excerpts."""
        maximum = self.splits["explain"].maximum
        for name, part in self._parts(batch, block):
            state = self.splits[name]
            steps = np.rint(part.value * self.steps.take(part.row))
            state.sums += np.bincount(part.row, weights=steps, minlength=len(self.steps)).astype(np.int64)
            fires = part.value > self.units.thresholds.take(part.row)
            self.pairs.add(name, part.place, part.row, steps, fires)
            fired = self._fired(part)
            interval = interval_of(fired.value, maximum.take(fired.row), self.n_intervals)
            if name == "score":
                squares = np.rint(steps.astype(np.float64) ** 2 / 2**_SUM_BITS)
                self.squares += np.bincount(part.row, weights=squares, minlength=len(self.steps))
                if self.firing.kept.keys.shape[1]:
                    self.firing.admit(part, steps, squares, fires, interval)
            cell = interval + (fired.row * self.n_intervals - 1)
            state.counts += np.bincount(cell, minlength=len(state.counts))
            for kept in (each.splits[name] for each in self.excerpts if name in each.splits):
                kept.admit_intervals(part, fired, cell)
                kept.fill_planned(part, batch)

    def anchors(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Columns of the firing anchors drawn from the score split, and of their strata."""
        steps = self.steps.astype(np.float64)
        return self.firing.tables(self.units.units, 1 / steps, 2.0**_SUM_BITS / steps**2)

    def squared(self) -> np.ndarray:
        """Sum of each unit's squared activations over the score split."""
        return self.squares * 2.0**_SUM_BITS / self.steps.astype(np.float64) ** 2

    def _parts(self, batch: range, block: Block) -> list[tuple[Split, Part]]:
        parts = parts_of(block, batch, self._split, self._row_of, self._context, len(self.units.units))
        return [(name, parts[SPLITS.index(name)]) for name in self.splits]

    def _fired(self, part: Part) -> Part:
        if not self.units.thresholds.any():
            return part
        return part.where(part.value > self.units.thresholds.take(part.row))
