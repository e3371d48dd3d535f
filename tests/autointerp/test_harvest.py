"""What a harvest keeps is what a look at the dense activations gives."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.activations.harvest import harvest
from autointerp.activations.passes import interval_of
from autointerp.activations.plan import SPLITS, ArmUnits, HarvestSizes, SplitSizes
from autointerp.activations.store import Store
from autointerp.records.unit import Excerpt, Split, UnitRecord
from sae.corpus.windows import Windows
from tests.autointerp.harvests import SMALL, VOCABULARY, World, batches_of, world

SEEDS = range(4)
CODE: dict[Split, int] = {"explain": SPLITS.index("explain"), "score": SPLITS.index("score")}
N = SMALL.n_intervals


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[World, Store]]:
    worlds = [world(seed, first=seed % 2) for seed in SEEDS]
    return [(made, made.harvest(tmp_path_factory.mktemp("store"), batches_of(40, 9))) for made in worlds]


def _each(harvested: list[tuple[World, Store]]) -> list[tuple[World, UnitRecord, np.ndarray, np.ndarray]]:
    """World, record, dense activations and where they fire, for every unit of every world."""
    return [
        (made, store.record(unit), made.dense[unit.arm][..., unit.index], made.fires(unit.arm, unit.index))
        for made, store in harvested
        for unit in store.units
    ]


def _group(record: UnitRecord, split: Split, group: str) -> list[Excerpt]:
    return [excerpt for excerpt in record.excerpts[split] if excerpt.group == group]


def _fits(made: World) -> np.ndarray:
    return made.windows.length - made.windows.first >= SMALL.excerpt_tokens


@settings(max_examples=8)
@given(st.integers(0, 1000), st.integers(1, 24))
def test_batches_and_their_order_do_not_matter(tmp_path_factory: pytest.TempPathFactory, seed: int, size: int) -> None:
    """The files are the same bytes for any batch size and any order of the batches."""
    made, digests = world(seed, n_windows=24, n_units=4), []
    ordered = batches_of(24, size)
    shuffled = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    for batches in (None, shuffled):
        out = tmp_path_factory.mktemp("store")
        made.harvest(out, batches)
        digests.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()})
    assert digests[0] == digests[1]


def test_statistics_are_those_of_the_dense_activations(harvested: list[tuple[World, Store]]) -> None:
    """Counts are exact; the mean is exact to 2^-24 of the maximum; intervals hold every firing position."""
    for made, record, dense, fires in _each(harvested):
        for split, code in CODE.items():
            counted = made.windows.counted() & (made.split == code)[:, None]
            firing = fires & counted
            found = record.statistics[split]
            assert found.tokens == counted.sum()
            assert found.fired == firing.sum()
            assert found.maximum == dense[firing].max(initial=0)
            assert found.mean == pytest.approx(dense[counted].astype(np.float64).mean(), abs=2**-23 * 10)
            intervals = interval_of(dense[firing], np.array(record.maximum, dtype=np.float32), N)
            assert found.interval_counts == tuple(np.bincount(intervals, minlength=N + 1)[1:])
            assert sum(found.interval_counts) == found.fired


def test_top_excerpts_are_the_highest_of_distinct_windows(harvested: list[tuple[World, Store]]) -> None:
    """Falling activation, ties by window and position, one per window, exactly as brute force finds them."""
    for made, record, dense, fires in _each(harvested):
        for split, code in CODE.items():
            able = fires & ((made.split == code) & _fits(made))[:, None]
            expected: list[tuple[int, int]] = []
            for window, position in sorted(np.argwhere(able).tolist(), key=lambda at: (-dense[at[0], at[1]], *at)):
                if window not in {w for w, _ in expected}:
                    expected.append((window, position))
            top = _group(record, split, "top")
            assert [(e.window, e.start + e.anchor) for e in top] == expected[: getattr(SMALL, split).top]


def test_activations_are_gathered_from_where_the_excerpt_is(harvested: list[tuple[World, Store]]) -> None:
    """Every excerpt has the dense activations, ids and cluster of its place, in its own split, on real tokens."""
    for made, record, dense, fires in _each(harvested):
        windows = made.windows
        for split, code in CODE.items():
            assert record.excerpts[split]
            for excerpt in record.excerpts[split]:
                at = np.arange(excerpt.start, excerpt.start + SMALL.excerpt_tokens)
                assert made.split[excerpt.window] == code
                assert windows.counted()[excerpt.window, at].all()
                assert excerpt.ids == tuple(windows.tokens[excerpt.window, at])
                assert excerpt.tokens == tuple(f"t{i}" for i in excerpt.ids)
                assert excerpt.activations == tuple(dense[excerpt.window, at])
                assert excerpt.cluster == made.cluster[excerpt.window]
                anchor = at[excerpt.anchor]
                assert (excerpt.interval > 0) == fires[excerpt.window, anchor]
                centred = excerpt.anchor == SMALL.excerpt_tokens // 2
                assert centred or at[0] == windows.first or at[-1] == windows.length[excerpt.window] - 1


def test_interval_members_lie_in_their_interval(harvested: list[tuple[World, Store]]) -> None:
    """As many windows as reach the interval, up to the size asked; each anchor's activation lies in it."""
    for made, record, dense, fires in _each(harvested):
        for split, code in CODE.items():
            sampled = _group(record, split, "interval")
            able = fires & ((made.split == code) & _fits(made))[:, None]
            for interval in range(1, N + 1):
                low, high = (record.maximum * i / N for i in (interval - 1, interval))
                high = np.inf if interval == N else high
                mine = [e for e in sampled if e.interval == interval]
                windows = np.flatnonzero((able & (dense > low + 1e-5) & (dense <= high - 1e-5)).any(1))
                assert len(mine) >= min(len(windows), getattr(SMALL, split).per_interval)
                assert len({e.window for e in mine}) == len(mine) <= getattr(SMALL, split).per_interval
                for excerpt in mine:
                    assert low - 1e-5 <= excerpt.activations[excerpt.anchor] <= high + 1e-5
            assert [e.interval for e in sampled] == sorted(e.interval for e in sampled)


def test_random_excerpts_come_from_the_shared_pool(harvested: list[tuple[World, Store]]) -> None:
    """Distinct members of the split's pool, as many as asked, and not the same for every unit."""
    for made, store in harvested:
        for split, code in CODE.items():
            pool = store.pool(split)
            assert len(pool.window) == SMALL.pool
            assert (made.split[pool.window] == code).all()
            assert (pool.cluster == made.cluster[pool.window]).all()
            at = pool.start[:, None] + np.arange(SMALL.excerpt_tokens)
            assert (pool.ids == made.windows.tokens[pool.window[:, None], at]).all()
            members = set(zip(pool.window.tolist(), pool.start.tolist(), strict=True))
            chosen = {
                unit: tuple((e.window, e.start) for e in _group(store.record(unit), split, "random"))
                for unit in store.units
            }
            assert all(len(each) == getattr(SMALL, split).random and set(each) <= members for each in chosen.values())
            assert len(set(chosen.values())) > len(chosen) // 2


def test_out_of_context_excerpts_are_the_top_tokens_elsewhere(harvested: list[tuple[World, Store]]) -> None:
    """Their anchors are the explain split's top tokens in turn, in windows that are not among the split's tops."""
    for made, record, _, _ in _each(harvested):
        top_tokens = list(dict.fromkeys(e.ids[e.anchor] for e in _group(record, "explain", "top")))
        for split, code in CODE.items():
            top_windows = {e.window for e in _group(record, split, "top")}
            able = made.windows.counted() & ((made.split == code) & _fits(made))[:, None]
            able[list(top_windows)] = False
            tokens = made.windows.tokens[able]
            elsewhere = {token: int((tokens == token).sum()) for token in top_tokens}
            found = _group(record, split, "out_of_context")
            anchors = [e.ids[e.anchor] for e in found]
            assert len({(e.window, e.start + e.anchor) for e in found}) == len(found)
            assert not top_windows & {e.window for e in found}
            expected = [token for turn in range(99) for token in top_tokens if elsewhere[token] > turn]
            assert anchors == expected[: getattr(SMALL, split).out_of_context]


def test_wider_excerpts_are_kept_beside_the_others(tmp_path: Path) -> None:
    """They have the dense activations of their place; nothing else moves, whatever is kept beside it.

    (Which tokens are sought out of context is known from the narrowest excerpts.)
    """
    made = world(2)
    code = made.split.copy()
    code[6:12] = SPLITS.index("calibrate")
    only = dataclasses.replace(made, split=code)
    few = SplitSizes(top=2, per_interval=1, random=2, out_of_context=3)
    wide = HarvestSizes(excerpt_tokens=8, n_intervals=4, pool=30, explain=few, score=few, calibrate=few)
    both = dataclasses.replace(only, sizes=HarvestSizes.union([SMALL, wide]))
    alone, beside = only.harvest(tmp_path / "alone"), both.harvest(tmp_path / "beside")
    wide_alone = dataclasses.replace(only, sizes=wide).harvest(tmp_path / "wide")
    assert beside.sizes == HarvestSizes.union([wide, SMALL])
    seen = {"explain": 0, "calibrate": 0, "score": 0}
    for unit in beside.units:
        record = beside.record(unit)
        assert record.excerpts == alone.record(unit).excerpts
        assert record.excerpts_of(5, "score") == record.excerpts["score"]
        for split in seen:
            excerpts = record.excerpts_of(8, split)
            drawn = [each for each in excerpts if each.group != "out_of_context"]
            assert drawn == [e for e in wide_alone.record(unit).excerpts[split] if e.group != "out_of_context"]
            seen[split] += len(excerpts)
            for each in excerpts:
                dense = made.dense[unit.arm][each.window, each.start : each.start + 8, unit.index]
                assert each.activations == tuple(dense.tolist())
                assert code[each.window] == SPLITS.index(split)
        assert record.statistics["calibrate"].fired == beside_fired(both, unit.arm, unit.index)
    assert min(seen.values()) > 0


def beside_fired(made: World, arm: str, index: int) -> int:
    """Firing positions in the calibrate split."""
    return int(made.fires(arm, index)[made.split == SPLITS.index("calibrate")].sum())


def test_token_means_are_those_of_the_whole_explain_split(harvested: list[tuple[World, Store]]) -> None:
    """The mean over all occurrences of a token, firing or not; tokens without activation are absent."""
    for made, record, dense, _ in _each(harvested):
        explain = made.windows.counted() & (made.split == 0)[:, None]
        for token in range(VOCABULARY):
            values = dense[explain & (made.windows.tokens == token)]
            mean = values.astype(np.float64).mean() if len(values) else 0.0
            assert (token in record.token_means) == bool(values.any())
            assert record.token_means.get(token, 0.0) == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize(("once_per_window", "share"), [(True, 0.1), (False, 10 / 19)])
def test_an_interval_is_sampled_over_its_windows_or_over_its_anchors(
    tmp_path: Path, *, once_per_window: bool, share: float
) -> None:
    """Of 10 windows one has 10 anchors and each other one: by windows it is drawn one time in 10, by anchors in 2."""
    n, (explain, score) = 400, (SPLITS.index(name) for name in ("explain", "score"))
    tokens, none = np.arange(11 * 12, dtype=np.int32).reshape(11, 12) % VOCABULARY, np.arange(11, dtype=np.int32)
    windows = Windows(tokens, np.full(11, 12, dtype=np.int32), none, 0 * none, 0)
    dense = np.zeros((11, 12, n), dtype=np.float32)
    dense[:, 6] = dense[1, 1:11] = 1.0
    one = SplitSizes(top=1, per_interval=1, random=0, out_of_context=0)
    sizes = HarvestSizes(
        excerpt_tokens=5, n_intervals=4, pool=5, explain=one, score=one, once_per_window=once_per_window
    )
    units = ArmUnits(np.arange(n), tuple(map(str, range(n))), np.zeros(n))
    made = World(
        windows, np.array([explain] + [score] * 10, dtype=np.int8), none, {"features": dense}, {"features": units}
    )
    store = dataclasses.replace(made, sizes=sizes).harvest(tmp_path)
    drawn = [e for unit in store.units for e in _group(store.record(unit), "score", "interval")]
    assert len(drawn) == n
    assert abs(np.mean([each.window == 1 for each in drawn]) - share) < 4 * np.sqrt(share * (1 - share) / n)


def test_unit_that_fires_only_in_score_has_its_firings_in_the_last_interval(tmp_path: Path) -> None:
    """With an explain maximum of 0 everything is above it, and there are no top tokens to seek."""
    made = world(1)
    value = made.dense["features"]
    dead = int((~value[made.split == 0].any((0, 1))).sum())
    value[made.split == 0, :, 2] = 0
    store = made.harvest(tmp_path)
    record = store.record(store.units[2])
    fired = int((value[made.split == SPLITS.index("score"), :, 2] > 0).sum())
    assert record.statistics["explain"].fired == record.maximum == 0
    assert record.statistics["score"].interval_counts == (0, 0, 0, fired)
    assert record.statistics["score"].mean > 0
    assert {e.group for e in record.excerpts["explain"]} == {"random"}
    assert {e.group for e in record.excerpts["score"]} == {"top", "interval", "random"}
    records = [store.record(unit) for unit in store.units if unit.arm == "features"]
    assert sum(not each.statistics["explain"].fired for each in records) == dead + 1


@given(st.floats(1e-6, 1e6), st.floats(0.01, 1.5), st.integers(1, 20))
def test_intervals_are_closed_above(maximum: float, share: float, n: int) -> None:
    """The interval i holds the values above (i-1)/n and up to i/n of the maximum, the last one all above."""
    value = np.float32(maximum * share)
    interval = int(interval_of(np.array([value]), np.array([maximum], dtype=np.float32), n)[0])
    assert 1 <= interval <= n
    assert value >= maximum * (interval - 1) / n * (1 - 1e-6)
    assert interval == n or value <= maximum * interval / n * (1 + 1e-6)


def test_progress_names_both_stages(tmp_path: Path) -> None:
    """After each batch the stage, the windows done and all windows are told."""
    made, told = world(0), []
    sizes = {"sizes": SMALL, "seed": 0, "key": "", "progress": lambda *each: told.append(each)}
    vocabulary = ["t"] * VOCABULARY
    fixed = (made.arms, made.windows, made.split, made.cluster, vocabulary)
    harvest(*fixed, lambda: made.stream(batches_of(40, 30)), tmp_path, **sizes)
    assert told == [("statistics", 30, 40), ("statistics", 40, 40), ("excerpts", 30, 40), ("excerpts", 40, 40)]


def test_arguments_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Lengths that differ, a token without text, units out of order, a sample without tops."""
    made, rest = world(0), {"sizes": SMALL, "seed": 0, "key": ""}
    stream = lambda: made.stream([range(40)])  # noqa: E731
    with pytest.raises(ValueError, match="clusters"):
        harvest(made.arms, made.windows, made.split, made.cluster[1:], ["t"] * 99, stream, tmp_path, **rest)
    with pytest.raises(ValueError, match="vocabulary"):
        harvest(made.arms, made.windows, made.split, made.cluster, ["t"] * 9, stream, tmp_path, **rest)
    with pytest.raises(ValueError, match="no arm"):
        harvest({}, made.windows, made.split, made.cluster, ["t"] * 99, stream, tmp_path, **rest)
    with pytest.raises(ValueError, match="rise"):
        ArmUnits(np.array([2, 1]), ("2", "1"), np.zeros(2))
    with pytest.raises(ValueError, match="names"):
        ArmUnits(np.array([1, 2]), ("1",), np.zeros(2))
    with pytest.raises(ValueError, match="top"):
        SplitSizes(top=0, per_interval=1, random=1, out_of_context=1)
    assert not list(tmp_path.iterdir())
