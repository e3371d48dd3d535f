"""Samples do not depend on the order of arrival, and are uniform."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autointerp.activations.plan import SPLITS, ArmUnits
from autointerp.activations.sampling import EMPTY, Anchors, BottomK, hashed, in_turn, least_of_each, mixed, salt
from sae.corpus.windows import Windows
from tests.autointerp.harvests import world


def test_hash_is_splitmix64() -> None:
    """The first outputs of splitmix64 from state 1234567, as published with its reference implementation."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * golden) % 2**64 for i in range(3)], dtype=np.uint64)
    assert mixed(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_hash_does_not_depend_on_how_many_are_hashed() -> None:
    """Hashing in one go or number by number is the same, and leaves its input as it was."""
    numbers = np.arange(70_000)
    whole = hashed(salt(1, "a"), numbers)
    assert numbers[-1] == 69_999
    assert hashed(salt(1, "a"), numbers[69_000:69_003]).tolist() == whole[69_000:69_003].tolist()
    assert len(np.unique(whole)) == len(whole)


def test_salts_of_purposes_differ() -> None:
    """Seed and words each change the salt, and words do not run into each other."""
    assert len({salt(0, "a", "b"), salt(1, "a", "b"), salt(0, "ab"), salt(0, "a"), salt(0, "b", "a")}) == 5


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9))))
def test_least_of_each_group(entries: list[tuple[int, int]]) -> None:
    """The first of the entries with the group's least key, in the order of the entries."""
    group, key = (np.array([entry[i] for entry in entries], dtype=np.int64) for i in (0, 1))
    least = {g: min((k, i) for i, (h, k) in enumerate(entries) if h == g)[1] for g, _ in entries}
    assert least_of_each(group, key).tolist() == sorted(least.values())


@given(
    st.lists(st.integers(0, 4), max_size=60),
    st.integers(0, 5),
    st.integers(0, 2**32),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_bottom_k_is_the_least_k_in_any_order(rows: list[int], k: int, seed: int, cuts: list[int]) -> None:
    """Offered in any order and any portions, a row ends with its k least keys and what belongs to them."""
    rng = np.random.default_rng(seed)
    row = np.array(rows, dtype=np.int64)
    key = rng.permutation(len(rows)).astype(np.uint64)
    window = (key * 3).astype(np.int32)
    table = BottomK(5, k, width=2)
    for part in np.split(rng.permutation(len(rows)), sorted(cuts)):
        values = np.stack([window[part], -window[part]], 1).astype(np.float32)
        table.offer(row[part], key[part], window[part], window[part] + 1, lambda index, values=values: values[index])
    for each in range(5):
        best = np.sort(key[row == each])[:k]
        assert table.keys[each, : len(best)].tolist() == best.tolist()
        assert (table.keys[each, len(best) :] == EMPTY).all()
        assert (table.window[each, len(best) :] == -1).all()
        held = table.window[each, : len(best)]
        assert held.tolist() == (best * 3).tolist()
        assert table.position[each, : len(best)].tolist() == (best * 3 + 1).tolist()
        assert table.values[each, : len(best)].tolist() == [[w, -w] for w in held.tolist()]


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 1))
def test_excerpts_are_real_tokens_around_their_anchor(seed: int, width: int, first: int) -> None:
    """Wherever an excerpt fits, it holds its anchor and neither BOS nor padding, centred unless at an edge."""
    windows = world(seed, first=first).windows
    anchors = Anchors(windows, width)
    window, position = (c.astype(np.int32) for c in np.nonzero(windows.counted() & anchors.fits[:, None]))
    start = anchors.start(window, position)
    last = start + width
    assert (windows.first <= start).all()
    assert (last <= windows.length[window]).all()
    assert ((start <= position) & (position < last)).all()
    shifted = position - start != width // 2
    assert ((start == windows.first) | (last == windows.length[window]))[shifted].all()
    short = windows.length - windows.first < width
    assert (anchors.fits == ~short).all()


def test_p12_the_place_of_an_anchor_tells_nothing_where_excerpts_are_not_centred() -> None:
    """It is anywhere in the excerpt, as often here as there, and the same whenever it is asked for."""
    none = np.zeros(40, dtype=np.int32)
    windows = Windows(np.zeros((40, 60), dtype=np.int32), none + 60, none, none, 0)
    anchors = Anchors(windows, 8, centred=False)
    window, position = (c.ravel().astype(np.int32) for c in np.mgrid[0:40, 7:53])
    place = position - anchors.start(window, position)
    assert stats.chisquare(np.bincount(place, minlength=8)).pvalue > 0.001
    np.testing.assert_array_equal(place[::-1], (position[::-1] - anchors.start(window[::-1], position[::-1])))


def test_drawn_anchors_are_uniform_over_positions() -> None:
    """Every position of windows that hold an excerpt is drawn as often; without replacement."""
    made = world(3)
    anchors, chosen = Anchors(made.windows, 5), made.split == SPLITS.index("score")
    seen = np.zeros(made.windows.tokens.shape, dtype=np.int64)
    for seed in range(1000):
        window, position = anchors.draw(chosen, 10, np.random.default_rng(seed))
        assert len(set(zip(window.tolist(), position.tolist(), strict=True))) == 10
        seen[window, position] += 1
    able = made.windows.counted() & (chosen & anchors.fits)[:, None]
    assert not seen[~able].any()
    # Drawn without replacement, counts vary less than the multinomial: the test can only be too lenient upwards.
    assert stats.chisquare(seen[able]).pvalue > 0.001
    window, _ = anchors.draw(chosen, 10**6, np.random.default_rng(0))
    assert len(window) == able.sum()
    assert not len(anchors.draw(chosen & False, 5, np.random.default_rng(0))[0])


def test_occurrences_of_a_token_are_uniform() -> None:
    """Each occurrence of a token in the split's windows is kept as often, and every one while there are few."""
    made = world(5, n_windows=60)
    anchors, chosen, tokens = Anchors(made.windows, 5), made.split == 0, np.array([4, 9])
    able = made.windows.counted() & (chosen & anchors.fits)[:, None] & (made.windows.tokens == 9)
    seen = np.zeros(able.shape, dtype=np.int64)
    for seed in range(600):
        found = anchors.occurrences(chosen, tokens, 3, salt(seed))
        seen[found.window[1], found.position[1]] += 1
    assert able.sum() > 6
    assert not seen[~able].any()
    assert stats.chisquare(seen[able]).pvalue > 0.001
    every = anchors.occurrences(chosen, tokens, 1000, salt(0))
    assert (every.window[1] >= 0).sum() == able.sum()


def test_round_robin_takes_one_of_every_token_in_turn() -> None:
    """Candidates that are not valid are passed over, and a token that runs out is too."""
    valid = np.array([[[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]]], dtype=np.bool_)
    assert in_turn(valid, 8).tolist() == [[0, 4, 9, 1, 11, 2, -1, -1]]
    assert in_turn(valid, 3).tolist() == [[0, 4, 9]]
    assert in_turn(valid, 0).shape == (1, 0)


def test_interval_samples_are_uniform_over_windows(tmp_path: Path) -> None:
    """Among units that fire alike, every window in which they reach an interval is sampled as often."""
    made, n_units = world(11, n_windows=30), 600
    value = (made.dense["neurons"][..., 0] > 0).astype(np.float32)
    alike = replace(
        made,
        dense={"alike": np.repeat(value[..., None], n_units, axis=2)},
        arms={"alike": ArmUnits(np.arange(n_units), tuple(map(str, range(n_units))), np.zeros(n_units))},
    )
    store, seen = alike.harvest(tmp_path), np.zeros(30, dtype=np.int64)
    for unit in store.units:
        record = store.record(unit)
        strata = [e for e in record.excerpts["explain"] if e.group == "interval"]
        assert len(strata) == 2
        seen[[e.window for e in strata]] += 1
    reached = value.any(1) & (made.split == 0)
    reached &= made.windows.length - made.windows.first >= 5
    assert reached.sum() > 4
    assert not seen[~reached].any()
    assert stats.chisquare(seen[reached]).pvalue > 0.001
