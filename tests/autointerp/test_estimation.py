"""Estimates from a stratified sample are those of the population: on average, exactly where all is drawn, never NaN."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp import estimation, statistics
from autointerp.records.anchors import AnchorSample, Totals

ESTIMATORS = (estimation.pearson, estimation.auprc, estimation.f1)


def _totals(truth: np.ndarray, fires: np.ndarray) -> Totals:
    fired, silent = truth[fires], truth[~fires]
    sums = fired.sum(), (fired**2).sum(), silent.sum(), (silent**2).sum()
    return Totals(len(truth), len(fired), *map(float, sums))


def _sample(truth: np.ndarray, strata: np.ndarray, drawn: list[np.ndarray], threshold: float = 0.0) -> AnchorSample:
    """The sample `drawn` from each of `strata`; firing strata come first and hold firing anchors only."""
    fires, sizes = truth > threshold, np.bincount(strata, minlength=len(drawn))
    pure = [bool(fires[strata == h].all()) for h in range(len(drawn))]
    kept = [part if pure[h] else part[~fires[part]] for h, part in enumerate(drawn)]
    at = np.concatenate(kept)
    stratum = np.repeat(np.arange(len(kept)), [len(part) for part in kept])
    taken = np.array([len(part) for part in drawn], dtype=float)
    columns = (stratum, at, truth[at], fires[at], sizes.astype(float), taken)
    return AnchorSample(*columns, _totals(truth, fires))


def _every_sample(strata: np.ndarray, n: tuple[int, ...]) -> Iterator[list[np.ndarray]]:
    each = [itertools.combinations(np.flatnonzero(strata == h).tolist(), k) for h, k in enumerate(n)]
    for parts in itertools.product(*each):
        yield [np.array(part, dtype=np.int64) for part in parts]


def _population(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, prediction and strata of 12 anchors: two firing strata and two of anchors that mostly do not."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([rng.uniform(3, 5, 3), rng.uniform(0.5, 3, 3), np.zeros(6)])
    prediction = np.round(rng.uniform(0, 9, 12)) * (rng.random(12) < 0.7)
    return truth, prediction, np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])


def _whole(truth: np.ndarray, strata: np.ndarray) -> AnchorSample:
    return _sample(truth, strata, [np.flatnonzero(strata == h) for h in range(4)])


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_the_mean_over_all_samples_is_the_total(seed: int) -> None:
    """Horvitz-Thompson totals of anything are unbiased, and the weights add up to the anchors on average."""
    truth, prediction, strata = _population(seed)
    totals = []
    for drawn in _every_sample(strata, (3, 2, 2, 1)):
        sample, at = _sample(truth, strata, drawn), np.concatenate(drawn)
        weights = estimation.base_weights(sample)
        totals.append(
            [weights.sum(), weights @ prediction[at], weights @ prediction[at] ** 2, weights @ (prediction * truth)[at]]
        )
    expected = [12, prediction.sum(), (prediction**2).sum(), (prediction * truth).sum()]
    assert np.mean(totals, axis=0) == pytest.approx(expected)


def test_draws_that_fire_are_zeros_of_the_silent_domain() -> None:
    """A stratum of both kinds is drawn from blindly: totals over its silent anchors are unbiased all the same."""
    truth, prediction = np.array([2.0, 1.0, 0, 0, 3.0, 0]), np.array([9.0, 5, 4, 0, 7, 2])
    strata = np.array([0, 0, 1, 1, 1, 1])  # the anchor 4 fires, and lies in a stratum of its own kind too
    totals = []
    for drawn in _every_sample(strata, (2, 2)):
        sample = _sample(truth, strata, drawn)
        silent = ~sample.fires
        assert not silent[sample.stratum == 0].any()
        totals.append(float((estimation.base_weights(sample) * prediction[sample.cluster])[silent].sum()))
    assert np.mean(totals) == pytest.approx(prediction[[2, 3, 5]].sum())


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_a_census_is_exact_and_has_no_variance(seed: int) -> None:
    """With every anchor drawn the measures are those of the population, and the interval has no width."""
    truth, prediction, strata = _population(seed)
    sample = _whole(truth, strata)
    rng = np.random.default_rng(seed)
    weights = estimation.rows(sample, rng, 20)
    found = [estimation.interval(sample, prediction, each, weights, rng, 9) for each in ESTIMATORS]
    assert found[0].value == pytest.approx(statistics.pearson(truth, prediction) or 0.0)
    positive, fires = prediction >= 0.5, truth > 0
    assert found[2].value == pytest.approx(2 * (positive & fires).sum() / (positive.sum() + fires.sum()))
    for each in found:
        assert each.low == pytest.approx(each.value) == each.high


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.1, 20))
def test_an_oracle_scores_one_whatever_was_drawn(seed: int, scale: float) -> None:
    """Predictions proportional to the truth correlate fully and find every firing, since the truth's sums are known."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([rng.uniform(3, 5, 3), rng.uniform(0.5, 3, 20), np.zeros(40)])
    strata = np.repeat([0, 1, 2], [3, 20, 40])
    drawn = [rng.permutation(np.flatnonzero(strata == h))[:n] for h, n in enumerate((3, 5, 4))]
    sample = _sample(truth, strata, drawn)
    base = estimation.base_weights(sample)[None, :]
    for estimator, weights in ((estimation.pearson, estimation.calibrated(sample, base)), (estimation.auprc, base)):
        assert estimator(sample, weights, scale * sample.truth)[0] == pytest.approx(1)


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_the_order_of_draws_does_not_matter(seed: int) -> None:
    """Estimates are functions of a set."""
    truth, prediction, strata = _population(seed)
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(strata == h))[:2] for h in range(4)]
    values = []
    for parts in (drawn, [part[::-1] for part in drawn]):
        sample, at = _sample(truth, strata, parts), np.concatenate(parts)
        weights = estimation.calibrated(sample, estimation.base_weights(sample)[None, :])
        values.append([float(each(sample, weights, prediction[at])[0]) for each in ESTIMATORS])
    assert values[0] == pytest.approx(values[1])


def test_calibrated_weights_give_the_known_sums() -> None:
    """Sum and square of firing anchors come out, and of silent ones that have a value."""
    rng = np.random.default_rng(1)
    truth = np.concatenate([rng.gamma(2, 1, 60) + 1, rng.uniform(0, 0.5, 200)])
    strata = np.repeat([0, 1], [60, 200])
    sample = _sample(truth, strata, [rng.choice(60, 12, replace=False), 60 + rng.choice(200, 20, replace=False)], 0.9)
    weights = estimation.calibrated(sample, estimation.base_weights(sample)[None, :])[0]
    fires, totals = sample.fires, sample.totals
    for power, fired, silent in (
        (1, totals.fired_sum, totals.silent_sum),
        (2, totals.fired_square, totals.silent_square),
    ):
        assert weights[fires] @ sample.truth[fires] ** power == pytest.approx(fired)
        assert weights[~fires] @ sample.truth[~fires] ** power == pytest.approx(silent)


def test_a_stratum_taken_whole_keeps_its_weights() -> None:
    """Its draws weigh 1 in every replicate; other strata's weights scatter about theirs."""
    truth, _, strata = _population(0)
    drawn = [np.array([0, 1, 2]), np.array([3, 4]), np.array([6, 7]), np.array([9, 10])]
    sample = _sample(truth, strata, drawn)
    resampled = estimation.replicates(sample, np.random.default_rng(0), 4000)
    assert (resampled[:, :3] == 1).all()
    assert resampled[:, 3:].std(axis=0).min() > 0.1
    assert resampled.mean(axis=0) == pytest.approx(estimation.base_weights(sample), abs=0.05)


def test_the_bootstrap_has_the_variance_of_a_stratified_total() -> None:
    """N^2 (1 - n/N) s^2 / n per stratum (Särndal et al. 1992, equation 3.7.8)."""
    rng = np.random.default_rng(2)
    truth = np.concatenate([rng.gamma(2, 1, 40) + 0.1, np.zeros(60)])
    strata = np.repeat([0, 1], [40, 60])
    sample = _sample(truth, strata, [np.arange(10), 40 + np.arange(30)])
    values = rng.normal(size=40)
    totals = estimation.replicates(sample, rng, 20_000) @ values
    expected = sum(
        n**2 * (1 - m / n) * values[sample.stratum == h].var(ddof=1) / m
        for h, (n, m) in enumerate(((40, 10), (60, 30)))
    )
    assert totals.var() == pytest.approx(expected, rel=0.05)


def test_draws_of_one_document_are_resampled_together() -> None:
    """Two draws of a cluster in a stratum always have the same weight."""
    truth, _, strata = _population(0)
    drawn = [np.array([0, 1]), np.array([3, 4]), np.array([6, 7]), np.array([9, 10, 11])]
    sample = _sample(truth, strata[:], drawn)
    sample.cluster[:3] = 5
    resampled = estimation.replicates(sample, np.random.default_rng(0), 50)
    assert (resampled[:, 0] == resampled[:, 1]).all()


@pytest.mark.parametrize("n", [12, 30])
def test_no_false_positive_seen_is_bounded_as_by_clopper_and_pearson(n: int) -> None:
    """The lower end is the correlation with a share of 1 - 0.05^(1/n) of the silent anchors predicted falsely: as the
    upper end is where none is, that is the end of a one-sided interval."""
    anchors, fired = 100_000, 5
    truth = np.concatenate([np.arange(1.0, fired + 1), np.zeros(anchors - fired)])
    strata = np.repeat([0, 1], [fired, anchors - fired])
    sample = _sample(truth, strata, [np.arange(fired), fired + np.arange(n)])
    prediction = np.concatenate([np.full(fired, 5.0), np.zeros(n)])
    rng = np.random.default_rng(0)
    found = estimation.interval(sample, prediction, estimation.pearson, estimation.rows(sample, rng, 4000), rng, 9)
    false = round((1 - 0.05 ** (1 / n)) * (anchors - fired))
    worst = np.where(np.arange(anchors) < fired + false, 5.0, 0.0)
    assert found.low == pytest.approx(statistics.pearson(truth, worst), rel=0.05)
    assert found.low < found.low_seen <= found.value
    assert found.high == pytest.approx(found.value)


def test_no_firing_seen_to_be_predicted_leaves_room_for_recall() -> None:
    """The upper end of average precision is that of 1 - 0.05^(1/n) of the stratum being found, all others known."""
    anchors, fired, n = 600, 200, 12
    truth = np.concatenate([np.ones(fired), np.zeros(anchors - fired)])
    strata = np.repeat([0, 1], [fired, anchors - fired])
    sample = _sample(truth, strata, [np.arange(n), fired + np.arange(anchors - fired)])
    rng = np.random.default_rng(0)
    weights = estimation.rows(sample, rng, 4000)
    found = estimation.interval(sample, np.zeros(len(sample.truth)), estimation.auprc, weights, rng, 9)
    share, density = 1 - 0.05 ** (1 / n), fired / anchors
    assert found.value == pytest.approx(density)
    assert found.high == pytest.approx(share + (1 - share) * density, rel=0.05)


@pytest.mark.parametrize("estimator", [estimation.pearson, estimation.auprc])
def test_intervals_hold_the_truth(estimator: estimation.Estimator) -> None:
    """Of 60 intervals of 95 % from samples of one population most hold its value, and not all do."""
    rng = np.random.default_rng(3)
    truth = np.concatenate([rng.gamma(2, 1, 400) + 0.1, np.zeros(3600)])
    prediction = np.round(truth) * (rng.random(4000) < 0.7) + 2.0 * ((truth == 0) & (rng.random(4000) < 0.1))
    strata = np.repeat([0, 1, 2], [400, 600, 3000])
    whole = _sample(truth, strata, [np.flatnonzero(strata == h) for h in range(3)])
    known = float(estimator(whole, estimation.base_weights(whole)[None, :], prediction)[0])
    inside = 0
    for _ in range(60):
        drawn = [rng.choice(np.flatnonzero(strata == h), n, replace=False) for h, n in enumerate((30, 20, 20))]
        sample = _sample(truth, strata, drawn)
        weights = estimation.rows(sample, rng, 80)
        weights = estimation.calibrated(sample, weights) if estimator is estimation.pearson else weights
        found = estimation.interval(sample, prediction[np.concatenate(drawn)], estimator, weights, rng, 9)
        inside += found.low <= known <= found.high
    assert 52 <= inside <= 59


def test_missing_draws_are_stood_for_by_their_stratum() -> None:
    """Weights of the others grow so that every stratum still has its size; a stratum without any is named."""
    truth, _, strata = _population(0)
    sample = _sample(truth, strata, [np.array([0, 1, 2]), np.array([3, 4]), np.array([6, 7]), np.array([9, 10])])
    kept = np.array([True, True, False, True, False, True, True, True, False])
    left = estimation.answered(sample, kept)
    assert np.bincount(left.stratum, estimation.base_weights(left)) == pytest.approx([3, 3, 3, 3])
    assert not len(estimation.unanswered(left))
    assert estimation.unanswered(estimation.answered(sample, sample.stratum != 1)).tolist() == [1]


def test_allocation_gives_every_stratum_a_few_and_the_rest_in_proportion() -> None:
    """At least four of each stratum that has as many, never more than it has, and the budget is used."""
    drawn = estimation.allocate(np.array([2, 1000, 1000, 0, 10]), np.array([9.0, 1.0, 5.0, 0.0, 100.0]), 60)
    assert drawn.sum() == 60
    assert drawn[[0, 3, 4]].tolist() == [2, 0, 10]
    assert drawn[1] >= 4
    assert drawn[2] / drawn[1] == pytest.approx(5, rel=0.25)


def test_leaving_out_a_cluster_zeroes_its_draws_only() -> None:
    """One row of weights per cluster."""
    truth, _, strata = _population(0)
    sample = _sample(truth, strata, [np.array([0, 1, 2]), np.array([3, 4]), np.array([6, 7]), np.array([9, 10])])
    clusters, weights = estimation.without_each(sample)
    assert (weights == np.where(sample.cluster == clusters[:, None], 0, estimation.base_weights(sample))).all()


def test_nothing_is_nan() -> None:
    """Constant predictions score 0 under correlation; the density is what they find."""
    truth, _, strata = _population(3)
    sample = _whole(truth, strata)
    weights = estimation.base_weights(sample)[None, :]
    for level in (0.0, 4.0):
        flat = np.full(12, level)
        assert estimation.pearson(sample, weights, flat)[0] == 0
        assert estimation.auprc(sample, weights, flat)[0] == pytest.approx(0.5)
