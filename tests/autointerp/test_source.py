"""The store as a source."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from autointerp.activations.plan import SPLITS
from autointerp.activations.source import StoreSource
from autointerp.activations.store import Store
from autointerp.records.unit import Unit
from autointerp.seams import Source, Unavailable
from tests.autointerp.harvests import World, world


@pytest.fixture
def made() -> World:
    return world(4)


@pytest.fixture
def store(made: World, tmp_path: Path) -> Store:
    return made.harvest(tmp_path)


def test_source_gives_what_the_store_holds(store: Store) -> None:
    """Units, records and pools are the store's."""
    source: Source = StoreSource(store)
    unit = source.units()[3]
    assert source.record(unit).unit == unit == Unit("features", 3, "3")
    assert source.pool("score").window.tolist() == store.pool("score").window.tolist()


def test_activations_are_recomputed_on_score_windows(store: Store, made: World) -> None:
    """What the subject gives comes back for score windows; other windows are refused."""

    def recompute(unit: Unit, windows: Sequence[int]) -> np.ndarray:
        return made.dense[unit.arm][list(windows), :, unit.index]

    source = StoreSource(store, recompute)
    windows = np.flatnonzero(made.split == SPLITS.index("score"))[:3].tolist()
    found = source.activations(store.units[1], windows)
    assert (found == made.dense["features"][windows, :, 1]).all()
    for code in (0, -1):
        with pytest.raises(ValueError, match="score windows"):
            source.activations(store.units[1], [*windows, int(np.flatnonzero(made.split == code)[0])])


def test_without_a_subject_recomputation_is_unavailable(store: Store, made: World) -> None:
    """The reason is said."""
    with pytest.raises(Unavailable, match="subject"):
        StoreSource(store).activations(store.units[0], [int(np.flatnonzero(made.split == SPLITS.index("score"))[0])])
