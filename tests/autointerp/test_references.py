"""`unigram` and `bigram`: the harvest's tables against sums written out position by position."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.activations.pairs import PairSums, cells_of
from autointerp.activations.plan import SPLITS
from autointerp.activations.references import REFERENCES
from autointerp.activations.store import Store
from tests.autointerp.harvests import World, world

Place: TypeAlias = tuple[int, int]
Predictor: TypeAlias = Callable[[Place], float]


def places(made: World, split: str) -> Iterator[Place]:
    inside = made.split == SPLITS.index(split)
    yield from zip(*(column.tolist() for column in np.nonzero(made.windows.counted() & inside[:, None])), strict=True)


def brute_force(made: World, arm: str, unit: int) -> tuple[Predictor, Predictor]:
    """The two predictors, straight from their definition."""
    tokens, truth = made.windows.tokens, made.dense[arm][..., unit]
    alone, paired = defaultdict(list), defaultdict(list)
    for window, position in places(made, "explain"):
        alone[tokens[window, position]].append(truth[window, position])
        if position:
            paired[tokens[window, position - 1], tokens[window, position]].append(truth[window, position])

    def unigram(place: Place) -> float:
        return float(np.mean(alone.get(tokens[place], [0.0])))

    def bigram(place: Place) -> float:
        window, position = place
        seen = paired.get((tokens[window, position - 1], tokens[place])) if position else None
        return float(np.mean(seen)) if seen else unigram(place)

    return unigram, bigram


def average_precision(positive: np.ndarray, predicted: np.ndarray) -> float:
    """Sum of (recall gained) times precision over falling thresholds."""
    area, before = 0.0, 0.0
    for threshold in sorted(set(predicted.tolist()), reverse=True):
        chosen = predicted >= threshold
        recall = positive[chosen].sum() / positive.sum()
        area += (recall - before) * positive[chosen].mean()
        before = recall
    return area


@pytest.fixture(scope="module", params=[0, 1], ids=["without BOS", "with BOS"])
def harvested(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Store]:
    made = world(seed=4, n_windows=60, first=request.param)
    return made, made.harvest(tmp_path_factory.mktemp("store"))


def test_bigram_is_the_mean_on_the_pair_and_backs_off_to_the_token(harvested: tuple[World, Store]) -> None:
    """Every score excerpt holds the brute-force prediction; explain excerpts hold none."""
    made, store = harvested
    backed_off = 0
    for unit in store.units:
        record = store.record(unit)
        unigram, bigram = brute_force(made, unit.arm, unit.index)
        for excerpt in record.excerpts["score"]:
            at = [(excerpt.window, excerpt.start + i) for i in range(len(excerpt.ids))]
            assert excerpt.bigram == pytest.approx([bigram(place) for place in at], abs=1e-5)
            backed_off += sum(bigram(place) == unigram(place) > 0 for place in at)
        assert all(excerpt.bigram == () for excerpt in record.excerpts["explain"])
    assert backed_off


def test_both_are_exact_over_the_whole_score_split(harvested: tuple[World, Store]) -> None:
    """Pearson and average precision equal those of a prediction written out at every score position.

    The harvest counts in steps of 2^-24, which can part two cells whose means are equal: hence the wider tolerance of
    average precision, which takes ties together.
    """
    made, store = harvested
    at = list(places(made, "score"))
    rows, columns = (np.array(each) for each in zip(*at, strict=True))
    compared = 0
    for unit in store.units:
        known = store.record(unit).references
        truth = made.dense[unit.arm][rows, columns, unit.index].astype(np.float64)
        fires = made.fires(unit.arm, unit.index)[rows, columns]
        assert set(known) == (set(REFERENCES) if fires.any() else set())
        for name, predictor in zip(("unigram", "bigram"), brute_force(made, unit.arm, unit.index), strict=True):
            predicted = np.array([predictor(place) for place in at])
            if fires.any() and predicted.any():
                assert known[f"{name}_pearson"] == pytest.approx(np.corrcoef(truth, predicted)[0, 1], abs=1e-5)
                assert known[f"{name}_auprc"] == pytest.approx(average_precision(fires, predicted), abs=1e-3)
                compared += 1
    assert compared > 10


@settings(max_examples=10)
@given(st.integers(0, 2**16), st.integers(1, 200))
def test_rare_pairs_are_given_up_where_memory_ends(seed: int, most: int) -> None:
    """The sums keep to their limit, lose no activation, and do not depend on the order of what is added."""
    rng = np.random.default_rng(seed)
    made = world(seed=seed % 7, n_windows=30)
    cells = cells_of(made.windows, made.split)
    dense = made.dense["features"]
    window, position, row = np.nonzero(dense)
    steps, place = np.rint(dense[window, position, row] * 1000), window * made.windows.context + position
    results = []
    for order in (np.arange(len(row)), rng.permutation(len(row))):
        sums = PairSums(cells, dense.shape[2], most)
        for chosen in np.array_split(order, 5):
            for split in ("explain", "score"):
                mine = chosen[made.split[window[chosen]] == SPLITS.index(split)]
                sums.add(split, place[mine], row[mine], steps[mine], np.ones(len(mine), dtype=np.bool_))
                if rng.random() < 0.3:
                    sums.counts("explain")
        alone = sums.by_token(sums.sums("explain"))
        assert sums.sums("explain").nnz <= max(most, alone.nnz)
        explain = made.split[window] == SPLITS.index("explain")
        assert sums.sums("explain").sum() == alone.sum() == steps[explain].sum()
        assert sums.counts("explain").sum() == cells.counts["explain"].sum()
        results.append((sums.rare, sums.sums("explain").toarray(), sums.fired().toarray()))
    assert results[0][0] == results[1][0]
    for first, second in zip(results[0][1:], results[1][1:], strict=True):
        np.testing.assert_array_equal(first, second)
