"""Intervals and tests between arms are wrong as often as they say, and no more often."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autointerp import inference
from autointerp.inference import MannWhitney, Sample, average, difference, mann_whitney
from autointerp.permutation import permutation_test, sign_flip_test
from autointerp.records.trial import Undefined
from autointerp.statistics import Estimate

SEEDS = st.integers(0, 10_000)
FLOATS = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=7)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sharing(rng: np.random.Generator, loadings: tuple[float, float], n: int = 30, items: int = 20) -> list[Sample]:
    """Two arms of units with mean 0, whose items lie in the same documents, which move them by the arm's loading."""
    documents = rng.normal(size=60)
    arms: list[Sample] = []
    for loading in loadings:
        own = 0.2 * rng.normal(size=(n, 1))
        drawn = rng.integers(60, size=(n, items))
        values = own + 0.5 * loading * documents[drawn] + 0.3 * rng.normal(size=(n, items))
        influence = (values - values.mean(1, keepdims=True)) / items
        arms.append(Sample(values.mean(1), np.repeat(np.arange(n), items), drawn.ravel(), influence.ravel()))
    return arms


def covered(interval: Estimate | Undefined) -> bool:
    """Whether the interval has the truth, 0."""
    assert isinstance(interval, Estimate)
    return interval.low <= 0 <= interval.high


@pytest.mark.parametrize(("loadings", "units_only"), [((1.0, -1.0), (0.5, 0.8)), ((1.0, 1.0), (0.88, 1.0))])
def test_two_way_intervals_cover_where_units_share_documents(
    loadings: tuple[float, float], units_only: tuple[float, float]
) -> None:
    """About 95 % of the intervals have the truth, whichever way shared documents move the arms."""
    rng, runs = _rng(1), 200
    two_way, alone = 0, 0
    for _ in range(runs):
        x, y = sharing(rng, loadings)
        two_way += covered(difference(x, y, ("mean",), rng, 200)["mean"])
        alone += covered(difference(Sample.of(x.values), Sample.of(y.values), ("mean",), rng, 200)["mean"])
    assert 0.89 <= two_way / runs <= 0.99
    assert units_only[0] <= alone / runs <= units_only[1]


def test_an_arm_alone_is_as_uncertain_as_its_documents() -> None:
    """The mean and the median of one arm cover too; its own noise is not counted twice."""
    rng, runs = _rng(2), 150
    hits = {"mean": 0, "median": 0}
    widths: list[float] = []
    for _ in range(runs):
        x, _ = sharing(rng, (1.0, 1.0))
        found = average(x, ("mean", "median"), rng, 200)
        for name, estimate in found.items():
            hits[name] += covered(estimate)
            if name == "mean" and isinstance(estimate, Estimate):
                widths.append((estimate.high - estimate.low) / 3.92)
    assert all(0.88 <= hit / runs <= 0.99 for hit in hits.values())
    # units: 0.2^2 + (0.5^2 + 0.3^2) / 20 each, of 30; documents: 0.5^2 of 60, met (1 - 1/30) times by pairs of units
    truth = np.sqrt((0.04 + 0.34 / 20) / 30 + 0.25 / 60 * (1 - 1 / 30))
    assert np.mean(widths) == pytest.approx(truth, rel=0.12)


def test_without_influences_units_are_resampled_as_usual() -> None:
    """The interval of the difference of means is that of the usual bootstrap."""
    rng = _rng(9)
    x, y = rng.normal(1, size=100), rng.normal(size=50)
    estimate = difference(Sample.of(x), Sample.of(y), ("mean",), rng)["mean"]
    assert isinstance(estimate, Estimate)
    assert estimate.value == pytest.approx(x.mean() - y.mean())
    assert 0 < estimate.low < estimate.value < estimate.high
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * np.sqrt(x.var() / 100 + y.var() / 50), rel=0.1)


def test_the_probability_of_superiority_counts_pairs() -> None:
    """Ties count half; the interval is that of resampling both samples and counting the pairs anew."""
    rng = _rng(10)
    x, y = rng.integers(6, size=30) + 1.0, rng.integers(6, size=20).astype(float)

    def share(x: np.ndarray, y: np.ndarray) -> float:
        return float((x[:, None] > y).mean() + (x[:, None] == y).mean() / 2)

    estimate = difference(Sample.of(x), Sample.of(y), ("superior",), rng)["superior"]
    assert isinstance(estimate, Estimate)
    assert estimate.value == pytest.approx(share(x, y))
    resampled = np.sort([share(rng.choice(x, 30), rng.choice(y, 20)) for _ in range(2000)])
    assert (estimate.low, estimate.high) == pytest.approx((resampled[50], resampled[-51]), abs=0.02)
    back = difference(Sample.of(y), Sample.of(x), ("superior",), rng)["superior"]
    assert isinstance(back, Estimate)
    assert back.value == pytest.approx(1 - estimate.value)


def test_separated_samples_are_always_superior() -> None:
    """Without overlap the probability is 1 and so is every resample's."""
    far, near = Sample.of(np.arange(10.0) + 100), Sample.of(np.arange(8.0))
    assert difference(far, near, ("superior",), _rng())["superior"] == Estimate(1.0, 1.0, 1.0)


def test_blocks_do_not_change_what_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded memory gives the same interval, but for the order of the draws."""
    x, y = sharing(_rng(3), (1.0, 0.5))
    whole = difference(x, y, ("mean", "superior"), _rng(4), 2000)
    monkeypatch.setattr(inference, "_CELLS", 5000)
    blocks = difference(x, y, ("mean", "superior"), _rng(4), 2000)
    for name, estimate in whole.items():
        other = blocks[name]
        assert isinstance(estimate, Estimate)
        assert isinstance(other, Estimate)
        assert (other.low, other.high) == pytest.approx((estimate.low, estimate.high), abs=0.02)


def test_too_few_units_have_no_interval() -> None:
    """Five units of an arm are too few; an empty sample has no test."""
    five, six = Sample.of(np.arange(5.0)), Sample.of(np.arange(6.0))
    assert isinstance(average(five, ("median",), _rng())["median"], Undefined)
    assert isinstance(average(six, ("median",), _rng())["median"], Estimate)
    assert isinstance(difference(six, five, ("mean",), _rng())["mean"], Undefined)
    assert isinstance(mann_whitney(six.values, five.values[:0]), Undefined)
    assert isinstance(permutation_test(six.values, five.values[:1], _rng()), Undefined)


@given(FLOATS, FLOATS, st.floats(-5, 5), st.floats(0.1, 10))
def test_the_permutation_test_knows_neither_order_nor_scale(
    x: list[float], y: list[float], shift: float, scale: float
) -> None:
    """The same values in another order, in the other role, moved or scaled give the same p-value."""
    first, second = np.array(x), np.array(y)
    p = permutation_test(first, second, _rng())
    assert isinstance(p, float)
    assert 0 < p <= 1
    assert permutation_test(first[::-1], second, _rng()) == p
    assert permutation_test(second, first, _rng()) == p
    assert permutation_test(first * scale + shift, second * scale + shift, _rng()) == p


def test_the_exact_test_counts_every_labelling() -> None:
    """Of the 20 labellings of three and three separated units two are as extreme."""
    assert permutation_test(np.array([7.0, 8.0, 9.5]), np.array([1.0, 2.0, 2.5]), _rng()) == pytest.approx(2 / 20)
    assert permutation_test(np.ones(4), np.ones(5), _rng()) == 1
    assert permutation_test(np.ones(6), np.zeros(6), _rng()) == pytest.approx(2 / 924)


def test_signs_of_pairs_are_counted_as_labellings_are() -> None:
    """Of the 32 signs of five gains two are as extreme; many pairs are drawn; no gain at all is no evidence."""
    assert sign_flip_test(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), _rng()) == pytest.approx(2 / 32)
    assert sign_flip_test(np.zeros(6), _rng()) == 1
    assert sign_flip_test(np.full(30, 0.1), _rng()) == 1 / 2000
    assert isinstance(sign_flip_test(np.ones(1), _rng()), Undefined)
    rejected = [float(sign_flip_test(each, _rng(1), 199) or 1) <= 0.05 for each in _rng(2).normal(size=(400, 16))]  # type: ignore[arg-type]
    assert 0.02 <= np.mean(rejected) <= 0.085


def test_a_test_takes_the_difference_in_the_error_that_it_is_given() -> None:
    """Welch's own error changes nothing; documents that make it half or twice as large do, as does a pair's."""
    x, y = _rng(7).normal(0.4, size=40), _rng(8).normal(size=50)
    own = float(np.sqrt(x.var(ddof=1) / 40 + y.var(ddof=1) / 50))
    p = [permutation_test(x, y, _rng(), error=own * times) for times in (0.5, 1, 2)]
    assert p[1] == permutation_test(x, y, _rng())
    assert p[0] < p[1] < p[2]  # type: ignore[operator]
    assert sign_flip_test(x, _rng(), error=1.0) > sign_flip_test(x, _rng())  # type: ignore[operator]


@pytest.mark.parametrize(("n", "m", "sd"), [(20, 60, 3.0), (40, 40, 1.0), (6, 7, 2.0)])
def test_the_permutation_test_rejects_true_hypotheses_as_often_as_it_says(n: int, m: int, sd: float) -> None:
    """Of 600 pairs of arms with one mean, spreads and sizes unequal, about 5 % are called different."""
    rng = _rng(5)
    rejected = 0
    for _ in range(600):
        p = permutation_test(sd * rng.normal(size=n), rng.normal(size=m), rng, 199)
        assert isinstance(p, float)
        rejected += p <= 0.05
    assert 0.02 <= rejected / 600 <= 0.085


def test_mann_whitney_agrees_with_the_probability() -> None:
    """The effect is twice the probability of superiority, less one."""
    x, y = _rng(14).normal(0.5, size=40), _rng(15).normal(size=30)
    result, share = mann_whitney(x, y), difference(Sample.of(x), Sample.of(y), ("superior",), _rng())["superior"]
    assert isinstance(result, MannWhitney)
    assert isinstance(share, Estimate)
    assert result.effect == pytest.approx(2 * share.value - 1)
    assert result.u == pytest.approx(share.value * 40 * 30)
    assert result.p == stats.mannwhitneyu(x, y, alternative="two-sided").pvalue


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_benjamini_hochberg_matches_scipy(p: list[float]) -> None:
    """Adjusted p-values are scipy's, and none is smaller than its p-value."""
    adjusted = inference.benjamini_hochberg(np.array(p))
    assert np.allclose(adjusted, stats.false_discovery_control(p))
    assert (adjusted >= np.array(p) - 1e-12).all()


def test_false_discoveries_are_as_rare_as_they_say() -> None:
    """Of the units found among 70 with and 130 without an effect, about 0.65 of 10 % are false, on average."""
    rng = _rng(6)
    shares: list[float] = []
    for _ in range(300):
        scores = np.concatenate([rng.normal(3, size=70), rng.normal(size=130)])
        found = inference.benjamini_hochberg(inference.against_null(scores, rng.normal(size=400))) <= 0.1
        shares.append(float(found[70:].sum() / max(found.sum(), 1)))
        assert found[:70].any()
    assert 0.04 <= np.mean(shares) <= 0.1


@given(SEEDS)
def test_a_score_is_never_surprising_among_its_like(seed: int) -> None:
    """The p-value of the highest of n + 1 is 1 / (n + 1); that of one below all is 1; ties count as as high."""
    null = _rng(seed).normal(size=19)
    highest, lowest, tied = inference.against_null(np.array([null.max() + 1, null.min() - 1, null.max()]), null)
    assert (highest, lowest, tied) == (1 / 20, 1.0, 2 / 20)
