"""Where scores stand between floor and ceiling, and what the report says of controls."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.compare import compare
from autointerp.counted import ABOVE_FLOOR, BIGRAM_LIFT, FLOOR, LIFT, OF_CEILING, Counted
from autointerp.records.explanation import Explanation
from autointerp.records.outcome import ArmInfo, Outcome, OutcomeStatistics
from autointerp.records.trial import Measure, Score
from autointerp.records.unit import Unit
from autointerp.report.ladder import ladder_grid, token_grids
from autointerp.report.verdict import verdict

ARMS = [
    ArmInfo("features", "features", 40, "f"),
    ArmInfo("shuffled-subject", "shuffled-subject", 40, "s"),
    ArmInfo("features:shuffled", "control", 40, "c"),
]


def outcome(arm: str, order: int, *, single: bool = False, **values: float) -> Outcome:
    """A unit with the headline Spearman and what else is named."""
    measures = {name: Measure(value, value, value) for name, value in values.items()}
    statistics = OutcomeStatistics(0.01, 0.01, 1.0, 0.1, 40, 0.1, single, 2.0)
    score = Score(measures, "spearman", 60, 0, constant=False)
    return Outcome(Unit(arm, order // 3, str(order // 3)), "p", order, statistics, Explanation("text", "lookup"), score)


def value(measure: str, **values: float) -> float | None:
    made = outcome("features", 0, **values)
    return Counted([made], "spearman", 0).value(made, measure)


def test_the_floor_is_the_better_of_a_constant_and_of_the_anchor() -> None:
    """A protocol that says what a constant scores is believed, else it is 0."""
    assert value(FLOOR, spearman=0.5, anchor_spearman=0.2) == 0.2
    assert value(FLOOR, spearman=0.5, anchor_spearman=-0.2) == 0
    assert value(FLOOR, spearman=0.5) == 0
    assert value(FLOOR, spearman=0.8, constant_spearman=0.5) == 0.5
    assert value(ABOVE_FLOOR, spearman=0.5, anchor_spearman=0.2) == pytest.approx(0.3)


@given(st.floats(-1, 1), st.floats(-1, 0.9), st.floats(0.01, 1.0))
def test_the_way_to_the_ceiling(score: float, anchor: float, ceiling: float) -> None:
    """0 at the floor, 1 at the ceiling, undefined where the ceiling is no higher than the floor."""
    known = {"anchor_spearman": anchor, "quantised_oracle_spearman": ceiling}
    share = value(OF_CEILING, spearman=score, **known)
    if ceiling <= max(0.0, anchor):
        assert share is None
    else:
        assert share is not None
        assert value(OF_CEILING, spearman=ceiling, **known) == pytest.approx(1)
        assert value(OF_CEILING, spearman=max(0.0, anchor), **known) == 0
        assert share * (ceiling - max(0.0, anchor)) == pytest.approx(score - max(0.0, anchor), abs=1e-9)


def test_lifts_are_over_their_table_and_undefined_without_it() -> None:
    """Above unigram and above bigram are two numbers."""
    assert value(LIFT, spearman=0.5, unigram_spearman=0.2) == pytest.approx(0.3)
    assert value(BIGRAM_LIFT, spearman=0.5, bigram_spearman=0.6) == pytest.approx(-0.1)
    assert value(BIGRAM_LIFT, spearman=0.5, unigram_spearman=0.2) is None


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """The shuffled subject's units score higher, are mostly single-token, and add nothing to their token table."""
    rng = np.random.default_rng(0)
    found: list[Outcome] = []
    for i in range(40):
        noise = rng.normal(0, 0.02, 3)
        common = {"anchor_spearman": 0.1, "quantised_oracle_spearman": 0.95}
        own = {"spearman": 0.6 + noise[0], "unigram_spearman": 0.4, "bigram_spearman": 0.5, **common}
        shuffled = {
            "spearman": (0.5 if i % 4 == 0 else 0.8) + noise[1],
            "unigram_spearman": 0.8,
            "bigram_spearman": 0.85,
        }
        found.append(outcome("features", 3 * i, single=i % 4 == 0, **own))
        found.append(outcome("shuffled-subject", 3 * i + 1, single=i % 4 != 0, **shuffled, **common))
        found.append(outcome("features:shuffled", 3 * i + 2, **{**own, "spearman": 0.05 + noise[2]}))
    return found


def test_the_report_shows_the_ladder_and_says_what_the_paradox_is(outcomes: list[Outcome]) -> None:
    """It appears in the raw score, and both lifts and multi-token units see through it."""
    comparison = compare(outcomes, ARMS, "features", 0)
    said = verdict(comparison)
    assert (
        "The paradox of the randomised transformer (Bricken et al. 2023: it scores higher than the trained one) appears"
        in said
    )
    assert said.count("in favour of the trained one") == 3
    assert "By their own explanations the same features gain a mean spearman of +0.5" in said
    assert "over shuffled ones (40 pairs)" in said
    ladder = ladder_grid(comparison)
    assert ladder.columns[2:] == (
        "spearman", "floor", "unigram", "bigram", "truth in levels", "above floor", "floor to truth", "above unigram",
        "above bigram", "units above the truth in levels",
    )  # fmt: skip
    assert [row[0] for row in ladder.rows] == [arm.label for arm in ARMS]
    split, among = token_grids(comparison)
    assert [row[1] for row in split.rows] == ["10 (25%)", "30 (75%)", "0 (0%)"]
    assert among.rows[0][1] == "30, 10"


def test_controls_are_told_in_one_line_and_one_row(outcomes: list[Outcome]) -> None:
    """They have no difference tables of their own; without them nothing is said."""
    comparison = compare(outcomes, ARMS, "features", 0)
    assert "features:shuffled can" not in verdict(comparison)
    alone = compare([replace(each, order=i) for i, each in enumerate(outcomes[0::3])], ARMS[:1], "features", 0)
    assert "By their own" not in verdict(alone)
    assert "paradox" not in verdict(alone)
