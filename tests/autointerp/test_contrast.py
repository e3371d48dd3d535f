"""What moves units together: shared documents, a unit's own control, and families of tests."""

from dataclasses import replace

import numpy as np
import pytest

from autointerp.compare import adjusted, compare
from autointerp.contrast import Contrast
from autointerp.counted import ABOVE_FLOOR, BIGRAM_LIFT, FLOOR, LIFT, OF_CEILING
from autointerp.records.outcome import Outcome
from autointerp.records.trial import Influence, Measure, Score
from autointerp.statistics import Estimate
from tests.autointerp.synthetic_outcomes import arm_info, compare_two, measure, outcome, two_arms


def with_documents(outcomes: list[Outcome]) -> list[Outcome]:
    """The same scores, each moved by the one document that all units share."""
    clusters, moved = np.arange(3, dtype=np.int32), np.array([0.2, -0.1, -0.1], dtype=np.float16)
    influence = Influence(clusters, {"spearman": moved, "unigram_spearman": moved / 2})
    scored = ((each, each.result) for each in outcomes)
    return [
        replace(each, result=replace(of, influence=influence)) if isinstance(of, Score) else each for each, of in scored
    ]


def test_documents_that_units_share_widen_what_is_known_of_an_arm() -> None:
    """An arm that one document moves as a whole is uncertain by that; two such arms move together."""
    outcomes = two_arms([0.5 + i / 1000 for i in range(40)], [0.2 + i / 1000 for i in range(40)])
    plain, moved = compare_two(outcomes), compare_two(with_documents(outcomes))
    widths: list[float] = []
    for comparison in (plain, moved):
        mean, gap = (
            each.mean
            for each in (comparison.arms[0].measures["spearman"], comparison.contrasts[0].differences["spearman"])
        )
        assert isinstance(mean, Estimate)
        assert isinstance(gap, Estimate)
        widths += [mean.high - mean.low, gap.high - gap.low]
    assert widths[2] > 10 * widths[0]
    assert widths[3] < 2 * widths[1]
    partly = compare_two([outcomes[0], *with_documents(outcomes)[1:]])
    known = [
        moved.contrasts[0].differences[LIFT].mean,
        moved.contrasts[0].differences["pearson"].mean,
        partly.arms[0].measures["spearman"].mean,
    ]
    assert [isinstance(each, Estimate) and each.documents for each in known] == [True, False, False]


def test_a_reference_that_is_known_exactly_leaves_the_lift_its_documents() -> None:
    """A table known over the whole split has no error of its own, nor has a constant as the floor; others hide it."""
    rows = with_documents(two_arms([0.5] * 8, []))
    levels = {"quantised_oracle_spearman": measure(0.9), "bigram_spearman": Measure(0.3, 0.3, 0.3)}
    scores = [(each, each.result) for each in rows]
    exact = [
        replace(each, result=replace(of, measures={**of.measures, **levels}))
        for each, of in scores
        if isinstance(of, Score)
    ]
    found = compare_two(exact).arms[0].measures
    means = {name: found[name].mean for name in (BIGRAM_LIFT, FLOOR, ABOVE_FLOOR, OF_CEILING)}
    known = {name: isinstance(mean, Estimate) and mean.documents for name, mean in means.items()}
    assert known == {BIGRAM_LIFT: True, FLOOR: True, ABOVE_FLOOR: True, OF_CEILING: False}


def test_a_family_of_tests_is_adjusted_over_all_protocols() -> None:
    """Each q is its p times the number of tests that are no better, over the contrasts of all protocols together."""
    clear = compare_two(two_arms([0.7 + i / 100 for i in range(20)], [0.2 + i / 100 for i in range(20)]))
    none = compare_two(two_arms([i / 20 for i in range(20)], [i / 20 for i in range(20)]))
    family = adjusted({"a": clear, "b": none, "c": none, "d": none})
    p, q = clear.contrasts[0].p, family["a"].contrasts[0].q
    assert isinstance(p, float)
    assert q == pytest.approx(4 * p)
    assert family["b"].contrasts[0].q == none.contrasts[0].p
    assert clear.contrasts[0].q == p


def with_controls(scored: dict[int, float], control: dict[int, float]) -> list[Outcome]:
    """Features, each followed by itself under another explanation, where that was scored."""
    found = [("features", i, value) for i, value in scored.items()]
    found += [("features:empty", i, value) for i, value in control.items()]
    return [
        outcome(order, arm, i, value) for order, (arm, i, value) in enumerate(sorted(found, key=lambda each: each[1]))
    ]


def compare_control(outcomes: list[Outcome]) -> Contrast:
    arms = [arm_info("features", 60), arm_info("features:empty", 60, "control")]
    return compare(outcomes, arms, "features", 0).contrasts[0]


def test_controls_are_compared_unit_by_unit() -> None:
    """A gain far below the scatter of units is seen in pairs; units scored on one side only are left out."""
    values = {i: 0.2 + 0.01 * i for i in range(60)}
    contrast = compare_control(
        with_controls(values, {i: value - 0.01 - 0.001 * (i % 3) for i, value in values.items() if i % 6})
    )
    difference = contrast.differences["spearman"]
    assert contrast.paired
    assert difference.n == (50, 50)
    assert isinstance(difference.mean, Estimate)
    assert difference.mean.value == pytest.approx(0.0112)
    assert difference.mean.error < 0.0005
    assert difference.superior == Estimate(1.0, 1.0, 1.0)
    assert contrast.p == 1 / 2000
    assert isinstance(contrast.detectable, float)
    assert contrast.detectable < 0.001


def test_documents_that_move_a_unit_under_both_explanations_cancel() -> None:
    """What a shared document does to a unit it does to its control, and not to the difference."""
    pairs = with_controls({i: 0.5 + i / 100 for i in range(30)}, {i: 0.4 + i / 90 for i in range(30)})
    gaps = [compare_control(each).differences["spearman"].mean for each in (pairs, with_documents(pairs))]
    assert isinstance(gaps[0], Estimate)
    assert isinstance(gaps[1], Estimate)
    assert gaps[1].documents
    assert gaps[1].error == pytest.approx(gaps[0].error, rel=0.2)


def test_controls_are_a_family_of_their_own() -> None:
    """Differences that are there by construction make no other comparison look better."""
    clear = compare_control(with_controls(dict.fromkeys(range(20), 0.9), dict.fromkeys(range(20), 0.1)))
    none = compare_two(two_arms([i / 20 for i in range(20)], [0.1 + i / 20 for i in range(20)]))
    beside = replace(none, contrasts=(*none.contrasts, clear, clear))
    family = adjusted({"a": beside, "b": none})
    p = none.contrasts[0].p
    assert isinstance(p, float)
    assert p < 1
    assert family["a"].contrasts[0].q == p
    assert family["a"].contrasts[1].q == clear.p
