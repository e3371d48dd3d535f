"""A sample of the anchors at which each unit fires, uniform over anchors, and what is known of all of them."""

from typing import Any

import numpy as np

from autointerp.activations.parts import Part
from autointerp.activations.plan import ArmUnits
from autointerp.activations.sampling import Anchors, BottomK, mixed
from autointerp.records.anchors import INTERVALS_PER_STRATUM


def strata_of(n_intervals: int) -> int:
    """Strata of a unit's firing anchors."""
    return -(-n_intervals // INTERVALS_PER_STRATUM)


class FiringState:
    """What one split of one arm has come to so far.

    A window is no unit here: an excerpt sample keeps one anchor of a window, which favours anchors that stand alone.
    """

    def __init__(self, units: ArmUnits, anchors: Anchors, n_intervals: int, kept: int, keys: np.ndarray) -> None:
        n, self.strata = len(units.units), strata_of(n_intervals)
        self._anchors, self._keys, self._n = anchors, keys, n
        self.kept = BottomK(n * self.strata, kept, 1)
        """Anchors with the least hashes of each (unit, stratum), with their activation."""
        self.counts = np.zeros(n * self.strata, dtype=np.int64)
        """Firing anchors of each (unit, stratum)."""
        self.sums = np.zeros(n * self.strata)
        """Sum of their activations, in whole steps."""
        self.squares = np.zeros(n * self.strata)
        """Sum of their squares, in whole steps."""
        self.silent = np.zeros((2, n))
        """Sum and sum of squares at anchors that do not fire, in whole steps."""

    def admit(
        self, part: Part, steps: np.ndarray, squares: np.ndarray, fires: np.ndarray, interval: np.ndarray
    ) -> None:
        """Second pass: `steps` and `squares` of every entry of `part`, `interval` of those that fire."""
        fits = self._anchors.fits[part.window]
        quiet = np.flatnonzero(fits & ~fires)
        rows = part.row[quiet]
        self.silent += [np.bincount(rows, weights=each[quiet], minlength=self._n) for each in (steps, squares)]
        at = np.flatnonzero(fits & fires)
        cell = part.row[at] * self.strata + (interval[fits[fires]] - 1) // INTERVALS_PER_STRATUM
        self.counts += np.bincount(cell, minlength=len(self.counts))
        self.sums += np.bincount(cell, weights=steps[at], minlength=len(self.counts))
        self.squares += np.bincount(cell, weights=squares[at], minlength=len(self.counts))
        place = part.place[at].astype(np.uint64)
        key = mixed(self._keys.take(part.row[at]) ^ place)
        self.kept.offer(cell, key, part.window[at], part.position[at], lambda index: part.value[at[index], None])

    def tables(
        self, units: np.ndarray, scale: np.ndarray, square_scale: np.ndarray
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Columns of the drawn anchors and of the strata; `scale` and `square_scale` are activation per step."""
        cell, rank = np.nonzero(self.kept.window >= 0)
        row = cell // self.strata
        drawn = {
            "index": units[row],
            "stratum": cell % self.strata,
            "rank": rank,
            "window": self.kept.window[cell, rank],
            "position": self.kept.position[cell, rank],
            "value": self.kept.values[cell, rank, 0],
        }
        shape = (len(units), self.strata)
        strata = {
            "index": units,
            "counts": self.counts.reshape(shape),
            "sums": self.sums.reshape(shape) * scale[:, None],
            "squares": self.squares.reshape(shape) * square_scale[:, None],
            "silent_sum": self.silent[0] * scale,
            "silent_square": self.silent[1] * square_scale,
        }
        return drawn, strata
