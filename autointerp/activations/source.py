"""Our store as a `Source`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from autointerp.activations.plan import SPLITS
from autointerp.activations.store import Store
from autointerp.records.anchors import Activations, Pool, Text
from autointerp.records.unit import Split, Unit, UnitRecord
from autointerp.seams import Unavailable

Recompute: TypeAlias = Callable[[Unit, Sequence[int]], np.ndarray]
"""A unit's activations on whole windows (rows of the store's), of shape (window, position)."""


@dataclass(frozen=True)
class StoreSource:
    """Units from a store; activations recomputed by its subject, where that is at hand."""

    store: Store
    """What the harvest kept."""
    recompute: Recompute | None = None
    """Runs subject and dictionary; None without them."""

    def units(self) -> Sequence[Unit]:
        """Every harvested unit, arm by arm, by index."""
        return self.store.units

    def record(self, unit: Unit) -> UnitRecord:
        """What the harvest knows of `unit`."""
        return self.store.record(unit)

    def activations(self, unit: Unit, windows: Sequence[int]) -> Activations:
        """Recompute `unit` on whole score windows: shape (window, position).

        Raises `Unavailable` without a subject, and `ValueError` for windows outside the score split.
        """
        if self.recompute is None:
            raise Unavailable("The subject is not loaded, so activations cannot be recomputed.")
        if (self.store.split[list(windows)] != SPLITS.index("score")).any():
            raise ValueError("Activations are recomputed on score windows only.")
        return self.recompute(unit, windows)

    def text(self, split: Split) -> Text:
        """The windows of the split, as token ids; the same object at every call."""
        return self.store.text(split)

    def pool(self, split: Split) -> Pool:
        """The split's uniformly random excerpts, the same for every unit."""
        return self.store.pool(split)
