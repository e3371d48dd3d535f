"""The sample of firing anchors is uniform over anchors, and what is known of all of them is exact."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autointerp.activations.plan import SPLITS
from autointerp.records.anchors import INTERVALS_PER_STRATUM
from autointerp.records.unit import Unit
from tests.autointerp.harvests import SMALL, World, batches_of, world

KEPT = replace(SMALL, score=replace(SMALL.score, anchors=5))


def _stratum(made: World, value: np.ndarray, maximum: float) -> np.ndarray:
    interval = np.minimum(np.ceil(value * np.float32(SMALL.n_intervals) / np.float32(maximum)), SMALL.n_intervals)
    return (interval.astype(int) - 1) // INTERVALS_PER_STRATUM


def test_sums_are_those_of_the_dense_activations(tmp_path: Path) -> None:
    """Counts are exact, sums and squares to rounding, by stratum and for anchors that do not fire."""
    made = replace(world(3), sizes=KEPT)
    store = made.harvest(tmp_path, batches_of(40, 7))
    fits = made.windows.length - made.windows.first >= SMALL.excerpt_tokens
    anchors = made.windows.counted() & ((made.split == SPLITS.index("score")) & fits)[:, None]
    for unit in store.units:
        record, dense = store.record(unit), made.dense[unit.arm][..., unit.index].astype(np.float64)
        firing = record.firing
        assert firing is not None
        assert firing.anchors == anchors.sum()
        fires = made.fires(unit.arm, unit.index) & anchors
        quiet = dense[anchors & ~fires]
        assert firing.silent_sum == pytest.approx(quiet.sum(), abs=1e-4)
        assert firing.silent_square == pytest.approx((quiet**2).sum(), abs=1e-4)
        stratum = _stratum(made, made.dense[unit.arm][..., unit.index][fires], record.maximum) if fires.any() else []
        for h in range(len(firing.counts)):
            mine = dense[fires][np.asarray(stratum) == h]
            assert firing.counts[h] == len(mine)
            assert firing.sums[h] == pytest.approx(mine.sum(), abs=1e-4)
            assert firing.squares[h] == pytest.approx((mine**2).sum(), abs=1e-3)
            drawn = firing.stratum == h
            assert drawn.sum() == min(5, len(mine))
            assert (dense[firing.window[drawn], firing.position[drawn]] == firing.value[drawn]).all()


def test_anchors_of_full_windows_are_as_likely_as_others(tmp_path: Path) -> None:
    """Where one window has many firing anchors of a stratum and others have one each, all are drawn alike."""
    made = world(5, n_windows=24)
    value = np.zeros(made.dense["features"].shape, dtype=np.float32)
    value[:, 2, 0] = 1.0
    value[made.windows.length > 11, 1:11, 0] = 1.0
    value[~made.windows.counted()] = 0
    made = replace(made, dense={"features": value}, arms={"features": made.arms["features"]}, sizes=KEPT)
    anchors = (value[..., 0] > 0) & ((made.split == SPLITS.index("score")) & (made.windows.length >= 6))[:, None]
    times, runs = np.zeros(anchors.shape), 60
    for seed in range(runs):
        firing = made.harvest(tmp_path, seed=seed).record(Unit("features", 0, "0")).firing
        assert firing is not None
        times[firing.window, firing.position] += 1
    crowded = anchors & (anchors.sum(axis=1) > 1)[:, None]
    expected = 5 * runs * crowded.sum() / anchors.sum()
    assert 0 < crowded.sum() < anchors.sum()
    assert times[crowded].sum() == pytest.approx(expected, abs=4 * (5 * runs) ** 0.5 / 2)


def test_nothing_is_kept_where_nothing_asks(tmp_path: Path) -> None:
    """Without a protocol that needs anchors the store has no such files."""
    store = world(1).harvest(tmp_path)
    assert store.record(store.units[0]).firing is None
    assert not (tmp_path / "anchors.parquet").exists()
