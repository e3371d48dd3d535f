"""Correlations, intervals and tests agree with their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autointerp import statistics
from autointerp.records.trial import Undefined
from autointerp.statistics import Estimate, Interval

SEEDS = st.integers(0, 10_000)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _tied(rng: np.random.Generator, n: int = 60) -> np.ndarray:
    return rng.integers(6, size=n).astype(float)


@given(SEEDS)
def test_correlations_match_scipy(seed: int) -> None:
    """With ties, ranks and both correlations are scipy's."""
    rng = _rng(seed)
    x = _tied(rng)
    y = _tied(rng) + x
    assert np.allclose(statistics.ranks(x), stats.rankdata(x) - 0.5)
    assert statistics.pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0])
    assert statistics.spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0])


@given(SEEDS)
def test_a_whole_weight_is_a_number_of_copies(seed: int) -> None:
    """Weighted correlations are those of a sample in which every value is repeated as its weight says."""
    rng = _rng(seed)
    x = _tied(rng)
    y = _tied(rng) + x
    weights = rng.integers(4, size=len(x))
    x_copied, y_copied = np.repeat(x, weights), np.repeat(y, weights)
    for correlation in (statistics.pearson, statistics.spearman):
        assert correlation(x, y, weights.astype(float)) == pytest.approx(correlation(x_copied, y_copied))


@pytest.mark.parametrize("correlation", [statistics.pearson, statistics.spearman])
def test_constants_are_zero_or_undefined(correlation: type) -> None:
    """A constant prediction scores 0; a constant truth has no score, and neither has one that weighs nothing."""
    x, flat, weights = np.arange(5.0), np.full(5, 0.1), np.array([1.0, 1.0, 0.0, 0.0, 0.0])
    assert correlation(x, flat) == 0
    assert correlation(flat, x) is None
    assert correlation(flat, flat) is None
    assert correlation(np.array([1.0, 1.0, 2.0, 3.0, 4.0]), x, weights) is None
    assert correlation(x, x, np.zeros(5)) is None


@given(SEEDS, st.sampled_from([1e-250, 1.0, 1e150]))
def test_what_equals_the_truth_scores_exactly_one(seed: int, scale: float) -> None:
    """No rounding lowers a perfect score, whatever the scale of the activations."""
    x = _rng(seed).random(50) * scale
    assert statistics.pearson(x, x) == 1
    assert statistics.spearman(x, x) == 1


@given(SEEDS, st.booleans())
def test_influence_is_the_derivative_by_every_weight(seed: int, weighted: bool) -> None:
    """What an element adds is what a little more weight on it changes; it all adds up to nothing."""
    rng = _rng(seed)
    x, y = _tied(rng, 12), _tied(rng, 12)
    weights = rng.random(12) + 0.2 if weighted else np.ones(12)
    for correlation, influence in (
        (statistics.pearson, statistics.pearson_influence),
        (statistics.spearman, statistics.spearman_influence),
    ):
        found = influence(x, y, weights)
        assert found.sum() == pytest.approx(0, abs=1e-12)
        for i in range(12):
            ends = [correlation(x, y, weights * np.where(np.arange(12) == i, 1 + step, 1)) for step in (1e-5, -1e-5)]
            assert ends[0] is not None
            assert ends[1] is not None
            assert found[i] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7)


def test_a_constant_has_no_influence() -> None:
    """Where no correlation is defined, nothing moves it."""
    x, flat = np.arange(5.0), np.full(5, 0.1)
    for influence in (statistics.pearson_influence, statistics.spearman_influence):
        assert not influence(x, flat).any()
        assert not influence(flat, x).any()


def _clustered(seed: int, items: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = _rng(seed)
    x = rng.random((items, 4))
    return x, x + rng.normal(size=x.shape), rng.integers(12, size=items)


def cluster_interval(
    truth: np.ndarray, prediction: np.ndarray, draws: statistics.ClusterDraws, weights: np.ndarray | None = None
) -> Interval:
    """Of a truth that is not constant."""
    found = statistics.pearson_with_interval(truth, prediction, draws, weights)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("weighted", [False, True])
def test_cluster_interval_is_that_of_repeated_items(weighted: bool) -> None:
    """The moments give the same percentiles as correlating every resample's items anew."""
    x, y, clusters = _clustered(1)
    weights = _rng(2).random(x.shape) if weighted else None
    draws = statistics.draw_clusters(clusters, _rng(3))
    resampled = []
    for times in draws.times.astype(int):
        copies = [None if values is None else np.repeat(values, times, axis=0) for values in (x, y, weights)]
        assert copies[0] is not None
        assert copies[1] is not None
        resampled.append(statistics.pearson(copies[0], copies[1], copies[2]))
    ordered = np.sort(np.array(resampled, dtype=float))
    interval = cluster_interval(x, y, draws, weights)
    assert (interval.low, interval.high) == pytest.approx((ordered[5], ordered[-6]))


def test_a_copy_in_the_same_cluster_is_no_new_information() -> None:
    """Doubling the items of every cluster leaves the interval; as clusters of their own they would narrow it."""
    x, y, clusters = _clustered(4)
    twice_x, twice_y = np.concatenate([x, x]), np.concatenate([y, y])

    def width(x: np.ndarray, y: np.ndarray, clusters: np.ndarray) -> float:
        interval = cluster_interval(x, y, statistics.draw_clusters(clusters, _rng(5)))
        return interval.high - interval.low

    alone = width(x, y, clusters)
    assert width(twice_x, twice_y, np.concatenate([clusters, clusters])) == pytest.approx(alone)
    assert width(twice_x, twice_y, np.concatenate([clusters, clusters + 100])) < 0.9 * alone


def test_draws_take_whole_clusters() -> None:
    """Items of one cluster are drawn equally often, and each resample draws as many clusters as there are."""
    clusters = np.array([7, 7, 3, 9, 3, 7])
    draws = statistics.draw_clusters(clusters, _rng(), resamples=50)
    assert (draws.times[:, 0] == draws.times[:, 5]).all()
    assert (draws.times[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert (draws.at(clusters == 3).times == draws.times[:, [2, 4]]).all()


def test_too_few_clusters_tell_nothing() -> None:
    """Five clusters give the interval of all correlations, six a real one."""
    x, y, _ = _clustered(6)
    five = statistics.draw_clusters(np.arange(30) % 5, _rng())
    six = statistics.draw_clusters(np.arange(30) % 6, _rng())
    assert cluster_interval(x, y, five) == Interval(-1.0, 1.0)
    assert cluster_interval(x, y, six).low > -1


def test_a_constant_prediction_has_the_interval_zero() -> None:
    """Every resample of a constant prediction scores 0; a constant truth tells nothing."""
    x, _, clusters = _clustered(7)
    draws = statistics.draw_clusters(clusters, _rng())
    flat = np.full(x.shape, 0.1)
    assert cluster_interval(x, flat, draws) == Interval(0.0, 0.0)
    assert statistics.pearson_with_interval(flat, x, draws) is None


def test_resamples_without_any_firing_are_left_out() -> None:
    """One firing item among many: resamples without it have no correlation and move no percentile."""
    truth, prediction = np.zeros((10, 3)), np.zeros((10, 3))
    truth[0, 1] = prediction[0, 1] = 5.0
    draws = statistics.draw_clusters(np.arange(10), _rng())
    assert (draws.times[:, 0] == 0).any()
    interval = cluster_interval(truth, prediction, draws)
    assert (interval.low, interval.high) == pytest.approx((1, 1))


@pytest.mark.parametrize("average", ["mean", "median"])
def test_bootstrap_intervals_cover_as_often_as_they_say(average: statistics.Average) -> None:
    """Over 200 samples of 40 about 95 % of the intervals contain the population's value."""
    rng = _rng(8)
    covered = 0
    for _ in range(200):
        estimate = statistics.bootstrap_interval(rng.normal(size=40), average, rng, resamples=300)
        assert isinstance(estimate, Estimate)
        covered += estimate.low <= 0 <= estimate.high
    assert 178 <= covered <= 198


def test_difference_is_first_less_second() -> None:
    """The difference has the sign of first less second, and its interval lies around it."""
    rng = _rng(9)
    x, y = rng.normal(1, size=100), rng.normal(size=50)
    estimate = statistics.bootstrap_difference(x, y, "mean", rng)
    assert isinstance(estimate, Estimate)
    assert estimate.value == pytest.approx(x.mean() - y.mean())
    assert 0 < estimate.low < estimate.value < estimate.high
    error = np.sqrt(x.var() / 100 + y.var() / 50)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_blocks_do_not_change_what_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded memory gives as many resamples as one large block."""
    x, y = _rng(11).normal(1, size=50), _rng(12).normal(size=40)
    whole = statistics.bootstrap_difference(x, y, "median", _rng(13))
    monkeypatch.setattr(statistics, "_CELLS", 700)
    blocks = statistics.bootstrap_difference(x, y, "median", _rng(13))
    assert blocks == whole


def test_tiny_samples_have_no_interval() -> None:
    """Five units have no interval; an empty sample has no test."""
    five, six, rng = np.arange(5.0), np.arange(6.0), _rng()
    assert isinstance(statistics.bootstrap_interval(five, "median", rng), Undefined)
    assert isinstance(statistics.bootstrap_interval(six, "median", rng), Estimate)
    assert isinstance(statistics.bootstrap_difference(six, five, "mean", rng), Undefined)
