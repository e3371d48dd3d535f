"""Differences among units that are alike: of density, of evidence, of length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.inference import Sample
from autointerp.matching import (
    LengthControl,
    Wording,
    density_strata,
    evidence_strata,
    length_control,
    matched_difference,
)
from autointerp.records.trial import Undefined
from autointerp.statistics import Estimate

SEEDS = st.integers(0, 10_000)


def _estimate(value: Estimate | Undefined) -> Estimate:
    assert isinstance(value, Estimate)
    return value


def test_a_difference_that_density_makes_vanishes_at_equal_density() -> None:
    """Scores that follow density alone differ between a sparse and a dense arm, but not within a stratum."""
    rng = np.random.default_rng(0)
    sparse, dense = 10 ** rng.normal(-3, 0.5, 400), 10 ** rng.normal(-2.5, 0.5, 200)
    scores = [0.2 * np.log10(each) + 0.05 * rng.normal(size=len(each)) for each in (sparse, dense)]
    assert scores[0].mean() < scores[1].mean() - 0.08
    matched = matched_difference(*map(Sample.of, scores), *map(density_strata, (sparse, dense)))
    mean = _estimate(matched.mean)
    assert mean.low <= 0 <= mean.high
    assert mean.high - mean.low < 0.05


@given(SEEDS)
def test_units_are_kept_or_lost_never_both(seed: int) -> None:
    """Kept and lost add up, and a stratum of one arm alone is lost."""
    rng = np.random.default_rng(seed)
    strata = rng.integers(5, size=60), rng.integers(3, 8, size=40)
    matched = matched_difference(*(Sample.of(rng.normal(size=len(each))) for each in strata), *strata)
    assert [k + lost for k, lost in zip(matched.kept, matched.lost, strict=True)] == [60, 40]
    assert matched.kept == (int((strata[0] >= 3).sum()), int((strata[1] < 5).sum()))
    assert matched.strata == 2


@given(SEEDS, st.floats(-1, 1))
def test_what_is_added_to_one_arm_is_the_difference(seed: int, gap: float) -> None:
    """Strata shift both arms alike; only what one arm has more is left."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(4, size=80), rng.integers(4, size=60)
    levels = rng.normal(size=4)
    matched = matched_difference(Sample.of(levels[x] + gap), Sample.of(levels[y]), x, y)
    assert _estimate(matched.mean).value == pytest.approx(gap, abs=1e-9)


def test_matched_intervals_cover_where_units_share_documents() -> None:
    """Of 300 intervals about 95 % have the truth, though documents move the two arms apart."""
    rng = np.random.default_rng(1)
    hits = alone = 0
    for _ in range(300):
        documents = rng.normal(size=50)
        samples: list[Sample] = []
        strata = [rng.integers(3, size=40) for _ in range(2)]
        for arm, of_unit in enumerate(strata):
            drawn = rng.integers(50, size=(40, 15))
            items = documents[drawn] * (0.4 - 0.8 * arm) + 0.3 * rng.normal(size=(40, 15))
            items += 0.2 * rng.normal(size=(40, 1)) + 0.3 * of_unit[:, None]
            influence = (items - items.mean(1, keepdims=True)) / 15
            samples.append(Sample(items.mean(1), np.repeat(np.arange(40), 15), drawn.ravel(), influence.ravel()))
        mean = _estimate(matched_difference(*samples, *strata).mean)
        hits += mean.low <= 0 <= mean.high
        bare = _estimate(matched_difference(*(Sample.of(each.values) for each in samples), *strata).mean)
        alone += bare.low <= 0 <= bare.high
    assert 0.9 <= hits / 300 <= 0.99
    assert alone / 300 < 0.8


def test_too_little_in_common_is_no_comparison() -> None:
    """Below 20 units of either arm in common strata there is no difference, and the counts say why."""
    x, y = np.repeat([0, 1], [50, 19]), np.repeat([1, 2], [30, 30])
    matched = matched_difference(Sample.of(x * 1.0), Sample.of(y * 1.0), x, y)
    assert isinstance(matched.mean, Undefined)
    assert matched.kept == (19, 30)


def test_strata_are_narrow() -> None:
    """Densities of one stratum differ by less than a factor of 1.8; evidence by fewer than five excerpts."""
    densities = 10 ** np.linspace(-6, -0.01, 500)
    strata = density_strata(densities)
    assert all(np.ptp(np.log10(densities[strata == each])) < np.log10(1.8) for each in np.unique(strata))
    assert evidence_strata(np.array([20, 24, 25, 49])).tolist() == [4, 4, 5, 9]


def _wordings(rng: np.random.Generator, gap: float, by_length: float) -> tuple[Wording, Wording]:
    """Two arms of 150 units, the first with twice as many words; the score rises with length, and by `gap`."""
    arms: list[Wording] = []
    for longer in (2, 1):
        words = (longer * rng.integers(8, 24, size=150)).astype(np.int64)
        overlaps = rng.random(150)
        scores = by_length * np.log2(words) + 0.1 * overlaps + 0.1 * rng.normal(size=150) + gap * (longer == 2)
        arms.append(Wording(scores, words, overlaps))
    return arms[0], arms[1]


@pytest.mark.parametrize("gap", [0.0, 0.15])
def test_longer_explanations_do_not_win_for_being_longer(gap: float) -> None:
    """The difference at equal length is what is left of it, and its interval covers it about as often as it says."""
    rng, hits = np.random.default_rng(2), 0
    for _ in range(200):
        found = length_control(*_wordings(rng, gap, 0.2))
        assert isinstance(found, LengthControl)
        assert found.words[0] == pytest.approx(2 * found.words[1], rel=0.2)
        assert all(0.1 < slope < 0.3 for slope in found.slopes)
        hits += found.mean.low <= gap <= found.mean.high
    assert 0.9 <= hits / 200 <= 0.99


def test_explanations_of_one_length_control_nothing() -> None:
    """Where arms differ in length and units do not, length and arm cannot be told apart."""
    arms = (Wording(np.arange(30.0), np.full(30, words), None) for words in (10, 20))
    assert isinstance(length_control(*arms), Undefined)
