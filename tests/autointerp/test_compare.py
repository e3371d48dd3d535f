"""Arms are summarised and compared as they should be."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.compare import compare
from autointerp.contrast import Discoveries, Support
from autointerp.counted import LIFT, counted_prefix, lower_limit
from autointerp.inference import Bounds, MannWhitney, difference_bounds
from autointerp.matching import LengthControl, Matched
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Measure, Score, Undefined
from autointerp.report.verdict import verdict
from autointerp.scorers import logits, population, simulation, top_and_random, yes_no
from autointerp.statistics import Estimate
from sae.errors import UserError
from tests.autointerp.synthetic_outcomes import arm_info, compare_two, measure, outcome, realistic, two_arms

HEADLINES = {scorer.HEADLINE for scorer in (logits, population, simulation, top_and_random, yes_no)}


@given(st.sets(st.integers(0, 30)), st.randoms(use_true_random=False))
def test_only_the_gapless_prefix_is_counted(orders: set[int], shuffle: object) -> None:
    """Whatever ended beyond the first missing unit is left out, whichever way the outcomes are ordered."""
    outcomes = [outcome(order, "features", order, 0.5) for order in orders]
    shuffle.shuffle(outcomes)  # type: ignore[attr-defined]
    counted = [each.order for each in counted_prefix(outcomes)]
    gap = next(i for i in range(32) if i not in orders)
    assert counted == list(range(gap))


def test_an_arm_that_scores_higher_everywhere_wins_every_pair() -> None:
    """Disjoint samples differ by the difference of their medians, with probability 1."""
    comparison = compare_two(two_arms([0.7 + i / 1000 for i in range(40)], [0.2 + i / 1000 for i in range(40)]))
    difference = comparison.contrasts[0].differences["spearman"]
    assert isinstance(difference.median, Estimate)
    assert difference.median.value == pytest.approx(0.5)
    assert difference.median.low > 0.48
    assert difference.superior == Estimate(1.0, 1.0, 1.0)
    assert isinstance(difference.test, MannWhitney)
    assert (difference.test.u, difference.test.effect) == (1600.0, 1.0)
    assert difference.test.p < 1e-10


def test_the_same_scores_in_both_arms_do_not_differ() -> None:
    """Equal samples differ by 0, win half of the pairs and have no effect."""
    scores = [i / 50 for i in range(50)]
    difference = compare_two(two_arms(scores, scores)).contrasts[0].differences["spearman"]
    assert isinstance(difference.median, Estimate)
    assert isinstance(difference.superior, Estimate)
    assert difference.median.value == 0
    assert difference.median.low < 0 < difference.median.high
    assert difference.superior.value == pytest.approx(0.5)


def test_swapping_the_reference_negates_the_difference() -> None:
    """The difference of neurons from features is that of features from neurons with its sign turned."""
    outcomes, arms = realistic(60, 40)
    forth, back = (
        compare(outcomes, arms, label, 0).contrasts[0].differences["spearman"] for label in ("features", "neurons")
    )
    assert isinstance(forth.mean, Estimate)
    assert isinstance(back.mean, Estimate)
    assert forth.mean.value == pytest.approx(-back.mean.value)


def test_every_counted_unit_is_in_the_funnel() -> None:
    """Failures, undefined headlines and scores add up to the counted units, and failures never become zeros."""
    dead = Failure("evidence", "dead", "Never fires.")
    scored = [outcome(i, "features", i, 0.5) for i in range(8)]
    others = [outcome(8, "features", 8, None), outcome(9, "features", 9, 0.0, failure=dead)]
    beyond = [outcome(11, "features", 11, 0.1)]
    arm = compare([*scored, *others, *beyond], [arm_info("features", 20)], "features", 0).arms[0]
    assert (arm.funnel.asked, arm.funnel.counted, arm.funnel.scored, arm.funnel.undefined) == (20, 10, 8, 1)
    assert arm.funnel.failed == {"dead": 1}
    assert arm.measures["spearman"].n == 8
    assert arm.measures["spearman"].mean == Estimate(0.5, 0.5, 0.5)


def test_missing_units_bound_the_difference() -> None:
    """Each unit without the headline, failed or undefined, counts as the worst and as the best score."""
    broken = Failure("simulate", "refusal", "no")
    features = [outcome(i, "features", i, 0.8) for i in range(10)]
    features += [outcome(10, "features", 10, None), outcome(11, "features", 11, 0.0, failure=broken)]
    neurons = [outcome(12 + i, "neurons", i, 0.2) for i in range(11)] + [outcome(23, "neurons", 11, None)]
    bounds = compare_two([*features, *neurons]).contrasts[0].bounds
    assert isinstance(bounds, Bounds)
    assert bounds.missing == (2, 1)
    assert bounds.low == pytest.approx((8 - 2) / 12 - (2.2 + 1) / 12)
    assert bounds.high == pytest.approx((8 + 2) / 12 - (2.2 - 1) / 12)


def test_lift_is_taken_unit_by_unit() -> None:
    """The lift is the headline less unigram's 0.25."""
    arm = compare_two(two_arms([0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [0.1] * 6)).arms[0]
    lift = arm.measures[LIFT].mean
    assert isinstance(lift, Estimate)
    assert lift.value == pytest.approx(0.55 - 0.25)


def test_intervals_are_summarised_strongest_last() -> None:
    """The twelve intervals keep their places, and count only units where they are defined."""
    outcomes, arms = realistic(120, 10)
    intervals = compare(outcomes, arms, "features", 0).arms[0].intervals
    first, last = intervals[0].mean, intervals[11].mean
    assert isinstance(first, Estimate)
    assert isinstance(last, Estimate)
    assert len(intervals) == 12
    assert first.value < last.value
    assert intervals[11].n < intervals[0].n


def test_constant_and_missing_shares_are_reported() -> None:
    """Shares are over scored units and over items asked."""
    outcomes = two_arms([0.5] * 4, [])
    odd = outcomes[0].result
    assert isinstance(odd, Score)
    outcomes[0] = replace(outcomes[0], result=replace(odd, constant=True, missing=12))
    comparison = compare_two(outcomes)
    assert comparison.arms[0].constant_share == 0.25
    assert comparison.arms[0].missing_share == 12 / 240
    assert isinstance(comparison.arms[1].constant_share, Undefined)


def test_too_few_units_give_undefined_with_the_reason() -> None:
    """One unit of an arm is no comparison, and no arm at all is none either."""
    for neurons in ([0.1], []):
        difference = compare_two(two_arms([0.5] * 10, neurons)).contrasts[0].differences["spearman"]
        for part in (difference.median, difference.mean, difference.superior, difference.test):
            assert isinstance(part, Undefined)
            assert f"10 and {len(neurons)} units" in part.reason


def test_matched_neurons_are_compared_at_common_densities_only() -> None:
    """Units outside the overlap of the two density ranges are left out and counted."""
    features = [outcome(i, "features", i, 0.9 if i < 30 else 0.1, density=1e-4 * (i + 1)) for i in range(60)]
    neurons = [outcome(60 + i, "neurons", i, 0.5, density=31e-4 + 1e-4 * i) for i in range(40)]
    contrast = compare_two([*features, *neurons], "neurons-matched").contrasts[0]
    assert isinstance(contrast.support, Support)
    assert contrast.support.kept == (30, 30)
    assert contrast.support.lost == (30, 10)
    assert (contrast.support.low, contrast.support.high) == (pytest.approx(31e-4), pytest.approx(60e-4))
    assert contrast.differences["spearman"].n == (30, 30)
    median = contrast.differences["spearman"].median
    assert isinstance(median, Estimate)
    assert median.value == pytest.approx(-0.4)


def test_fewer_than_twenty_matched_units_are_no_comparison() -> None:
    """Below 20 units per arm of common density everything is Undefined; plain neurons are not affected."""
    features = [outcome(i, "features", i, 0.9, density=1e-4 * (i + 1)) for i in range(60)]
    neurons = [outcome(60 + i, "neurons", i, 0.5, density=30e-4) for i in range(19)]
    contrast = compare_two([*features, *neurons], "neurons-matched").contrasts[0]
    assert isinstance(contrast.support, Undefined)
    assert isinstance(contrast.differences["spearman"].median, Undefined)
    assert all(isinstance(each, Undefined) for each in contrast.intervals)
    plain = compare_two([*features, *neurons]).contrasts[0]
    assert plain.support is None
    assert isinstance(plain.differences["spearman"].median, Estimate)


def test_numbers_do_not_depend_on_other_arms() -> None:
    """Every number has its own generator, so that an arm more changes none of the others."""
    outcomes, arms = realistic(80, 60)
    more = [*outcomes, *(outcome(len(outcomes) + i, "random", i, 0.1) for i in range(10))]
    alone = compare(outcomes, arms, "features", 3)
    beside = compare(more, [arms[0], arm_info("random", 10, "random"), arms[1]], "features", 3)
    assert alone.arms == (beside.arms[0], beside.arms[2])
    assert alone.contrasts[0] == beside.contrasts[1]


def test_no_outcomes_at_all_are_summarised() -> None:
    """A run that was stopped at once has an empty funnel and no numbers."""
    comparison = compare([], [arm_info("features", 5), arm_info("neurons", 5, "neurons-matched")], "features", 0)
    assert comparison.arms[0].funnel.counted == 0
    assert isinstance(comparison.arms[0].measures["spearman"].median, Undefined)


def test_an_unknown_reference_names_the_nearest_arm() -> None:
    """A reference that no arm has is the user's mistake."""
    with pytest.raises(UserError, match="Did you mean features"):
        compare([], [arm_info("features", 5)], "feature", 0)


def test_a_rate_is_bounded_by_zero_below() -> None:
    """Missing accuracies are between 0 and 1, missing correlations between -1 and 1; no other headline is known."""
    assert {name: lower_limit(name) for name in HEADLINES} == {
        "spearman": -1, "pearson": -1, "ev_correlation": -1, "balanced_accuracy": 0, "accuracy": 0,
    }  # fmt: skip
    x, y = np.array([0.5, 0.75]), np.array([0.5])
    assert difference_bounds(x, y, (2, 1), 0.0) == Bounds((2, 1), 1.25 / 4 - 1.5 / 2, 3.25 / 4 - 0.5 / 2)


def test_the_truth_in_levels_is_a_reference_that_units_can_exceed() -> None:
    """Fractional predictions can score above it, and the units that do are counted."""
    rows = two_arms([0.9, 0.95, 0.5], [])
    scores = [(each, each.result) for each in rows]
    with_levels = [
        replace(each, result=replace(of, measures={**of.measures, "quantised_oracle_spearman": measure(0.9)}))
        for each, of in scores
        if isinstance(of, Score)
    ]
    assert compare_two(with_levels).arms[0].above_levels == 1
    assert compare_two(rows).arms[0].above_levels is None


def test_false_predictions_that_none_has_met_bound_an_arm_from_below() -> None:
    """The mean of the units' lower ends is given where these allow for more than the arm's interval does."""
    rows = two_arms([0.5] * 8, [])
    scores = [(each, each.result) for each in rows]
    unseen = [
        replace(
            each,
            result=replace(
                of,
                measures={**of.measures, "spearman": Measure(0.5, 0.1 * (i % 2), 0.6), "spearman_seen": measure(0.5)},
            ),
        )
        for i, (each, of) in enumerate(scores)
        if isinstance(of, Score)
    ]
    comparison = compare_two(unseen)
    assert comparison.arms[0].lower_bound == pytest.approx(0.05)
    assert "a lower bound on the arm's mean, is 0.050 in features" in verdict(comparison)
    assert compare_two(rows).arms[0].lower_bound is None


def test_units_are_found_against_the_scores_of_others_explanations() -> None:
    """Units far above every shuffled score are found, those among them are not; other baselines find nothing."""
    features = [outcome(i, "features", i, 0.9 if i < 30 else 0.1 + i / 1000) for i in range(60)]
    shuffled = [outcome(60 + i, "features:shuffled", i, 0.1 + (i % 60) / 1000) for i in range(60)]
    arms = [arm_info("features", 60), arm_info("features:shuffled", 60, "control"), arm_info("neurons", 0, "neurons")]
    contrasts = compare([*features, *shuffled], arms, "features", 0).contrasts
    assert contrasts[0].found == Discoveries(30, 60, 0.05)
    assert contrasts[1].found is None


def test_evidence_and_wording_are_held_equal_where_they_are_known() -> None:
    """Without counts there is no difference at equal evidence; with them it is that within strata."""
    outcomes = two_arms([0.6] * 30, [0.4] * 30)
    assert isinstance(compare_two(outcomes).contrasts[0].evidence, Undefined)
    known = [
        replace(each, statistics=replace(each.statistics, evidence=49 if i % 3 else 22, overlap=i % 5 / 5))
        for i, each in enumerate(outcomes)
    ]
    worded = [replace(each, explanation=Explanation("word " * (5 + i % 7), "lookup")) for i, each in enumerate(known)]
    contrast = compare_two(worded).contrasts[0]
    assert isinstance(contrast.evidence, Matched)
    assert isinstance(contrast.evidence.mean, Estimate)
    assert contrast.evidence.mean.value == pytest.approx(0.2)
    assert contrast.evidence.strata == 2
    assert isinstance(contrast.length, LengthControl)
    assert contrast.length.mean.value == pytest.approx(0.2)
    assert contrast.length.overlaps is not None
