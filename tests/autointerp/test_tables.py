"""Results survive the way to disk and back, and are said truthfully."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.compare import Comparison, compare
from autointerp.config import Format
from autointerp.llm.estimate import Estimate as CostEstimate
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.outcome import Outcome
from autointerp.records.trial import Influence, Score
from autointerp.report.ladder import cell
from autointerp.report.render import plain, render, render_estimate, render_values
from autointerp.report.tables import read_explanations, read_outcomes, write_explanations, write_tables
from autointerp.report.verdict import number, verdict
from autointerp.statistics import Estimate
from sae.errors import UserError
from tests.autointerp.synthetic_outcomes import PROTOCOL, arm_info, outcome, realistic


def compared(features: float, neurons: float, n: int = 30, asked: int = 30) -> Comparison:
    """`n` units per arm around the two scores."""
    arms = [("features", features), ("neurons", neurons)]
    rows = [
        outcome(2 * i + place, arm, i, score + 0.002 * (i % 10))
        for i in range(n)
        for place, (arm, score) in enumerate(arms)
    ]
    return compare(rows, [arm_info("features", asked), arm_info("neurons", asked, "neurons")], "features", 0)


@pytest.fixture(scope="module")
def run() -> tuple[list[Outcome], Comparison]:
    """A run with failures, undefined measures and a gap in the admission order."""
    outcomes, arms = realistic(60, 40)
    del outcomes[90]
    return outcomes, compare(outcomes, arms, "features", 7)


def test_the_comparison_can_be_recomputed_from_its_rows(run: tuple[list[Outcome], Comparison], tmp_path: Path) -> None:
    """What is read back compares to the very same numbers, uncounted units included."""
    outcomes, comparison = run
    written = write_tables(tmp_path, outcomes, {PROTOCOL: comparison})
    rows = read_outcomes(tmp_path)
    assert rows.outcomes == tuple(outcomes)
    assert compare(rows.outcomes, rows.arms, rows.reference, rows.seed) == comparison
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)


def test_an_interrupted_session_forgets_no_explanation(run: tuple[list[Outcome], Comparison], tmp_path: Path) -> None:
    """Explanations of units that a later session did not reach stay on disk."""
    outcomes, _ = run
    write_explanations(tmp_path, outcomes)
    whole = read_explanations(tmp_path)
    write_explanations(tmp_path, outcomes[:3])
    assert read_explanations(tmp_path) == whole


def test_writing_twice_gives_the_same_bytes(run: tuple[list[Outcome], Comparison], tmp_path: Path) -> None:
    """Files depend on the outcomes only, not on their order."""
    outcomes, comparison = run
    first = write_tables(tmp_path / "first", outcomes, {PROTOCOL: comparison})
    second = write_tables(tmp_path / "second", outcomes[::-1], {PROTOCOL: comparison})
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_rows_are_long_and_hold_failures(run: tuple[list[Outcome], Comparison], tmp_path: Path) -> None:
    """One row per unit and measure, one with the failure for a unit without a score, never a NaN."""
    outcomes, comparison = run
    write_tables(tmp_path, outcomes, {PROTOCOL: comparison})
    rows = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    failed = [each for each in outcomes if isinstance(each.result, Failure)]
    held = [row for row in rows if row["failure_kind"] is not None]
    assert [row["order"] for row in held] == [each.order for each in failed]
    assert all(row["value"] is None and row["measure"] is None for row in held)
    undefined = [row for row in rows if row["undefined_reason"] is not None]
    assert undefined
    assert all(row["value"] is None for row in undefined)
    assert all(row["value"] == row["value"] for row in rows if row["value"] is not None)


def test_summary_has_every_number_at_full_precision(run: tuple[list[Outcome], Comparison], tmp_path: Path) -> None:
    """The summary is the whole comparison, with null and a reason where a number is undefined."""
    outcomes, comparison = run
    write_tables(tmp_path, outcomes, {PROTOCOL: comparison})
    summary = json.loads((tmp_path / "summary.json").read_text())
    median = comparison.arms[0].measures["spearman"].median
    assert summary["arms"][0]["measures"]["spearman"]["median"] == plain(median)
    assert summary["verdict"] == verdict(comparison)
    few = json.loads(render({PROTOCOL: compared(0.5, 0.3, n=2)}, "json"))[PROTOCOL]
    assert few["contrasts"][0]["differences"]["spearman"]["median"] == {
        "value": None,
        "reason": "2 and 2 units; a comparison needs 6 of each",
    }


def test_explanations_are_read_by_unit(tmp_path: Path) -> None:
    """Explanations and failures come back; a unit that was never explained is absent."""
    refused = Failure("explain", "refusal", "No.")
    said = [outcome(0, "features", 0, 0.5), outcome(1, "features", 1, None, failure=refused)]
    never = Outcome(outcome(2, "features", 2, 0.5).unit, PROTOCOL, 2, said[0].statistics, None, refused)
    write_explanations(tmp_path, [*said, never])
    assert read_explanations(tmp_path) == {
        (said[0].unit, PROTOCOL): Explanation("fires on 0", "lookup"),
        (said[1].unit, PROTOCOL): refused,
    }


def test_missing_and_malformed_files_are_named(tmp_path: Path) -> None:
    """A results directory without scores, with rubbish, or with other columns is a user's mistake."""
    with pytest.raises(UserError, match=r"scores\.parquet is missing"):
        read_outcomes(tmp_path)
    (tmp_path / "scores.parquet").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="malformed"):
        read_outcomes(tmp_path)
    write_explanations(tmp_path, [])
    (tmp_path / "explanations.parquet").rename(tmp_path / "scores.parquet")
    with pytest.raises(UserError, match=r"Missing: .*'measure'"):
        read_outcomes(tmp_path)


def test_the_verdict_says_which_arm_is_higher() -> None:
    """Higher, lower and undecided arms are called so, with the difference, its test and what could have been seen."""
    assert verdict(compared(0.6, 0.3)).startswith(
        "Features beat neurons. The mean spearman of 30 and 30 units differs by +0.300"
    )
    assert verdict(compared(0.3, 0.6)).startswith("Features are beaten by neurons. The mean")
    said = verdict(compared(0.5, 0.5))
    assert said.startswith("Whether features beat neurons cannot be told. The mean spearman of 30 and 30 units differs")
    assert "permutation p = 1; so many units show a difference of 0.004 with 80 % power" in said
    assert verdict(compared(0.5, 0.3, n=3)).startswith("Features and neurons cannot be compared: 3 and 3 units")


def test_nothing_is_claimed_that_the_adjusted_test_does_not_show() -> None:
    """A clear interval and a small p are no claim where the whole family of tests makes them likely by chance."""
    clear = compared(0.6, 0.3)
    among_many = replace(clear, contrasts=(replace(clear.contrasts[0], p=0.02, q=0.2),))
    said = verdict(among_many)
    assert said.startswith("Whether features beat neurons cannot be told.")
    assert "permutation p = 0.02, 0.2 adjusted for all comparisons" in said


def test_a_judge_without_a_view_says_so_in_the_verdict() -> None:
    """Where nothing is scored the judge's own reason stands, and nothing is said of what the scores mean."""
    arms = [arm_info("features", 3), arm_info("neurons", 3, "neurons")]
    rows = [outcome(i, "features" if i < 3 else "neurons", i, None) for i in range(6)]
    said = verdict(compare(rows, arms, "features", 0))
    assert said.startswith("Features and neurons cannot be compared: the truth is constant.")
    assert "lookup" not in said


def test_intervals_over_units_alone_are_marked() -> None:
    """The mark stands where documents are not counted, and only there."""
    known, alone = Estimate(0.5, 0.4, 0.6, documents=True), Estimate(0.5, 0.4, 0.6)
    assert (cell(known), cell(alone)) == ("0.500 [0.400, 0.600]", "0.500 [0.400, 0.600]†")
    comparison = compared(0.6, 0.3)
    assert "+0.300 [0.297, 0.303]†" in render({PROTOCOL: comparison}, "md")
    assert "Intervals marked † are" in verdict(comparison)


def test_the_verdict_names_its_limits() -> None:
    """A lookup explainer and a run that ended early are said."""
    said = verdict(compared(0.6, 0.3, asked=50))
    assert "The explainer was lookup" in said
    assert "60 of 100 units are counted" in said
    whole = [
        Outcome(each.unit, each.protocol, each.order, each.statistics, Explanation("x", "openai/gpt"), each.result)
        for each in [outcome(i, "features", i, 0.5) for i in range(8)]
    ]
    said = verdict(compare(whole, [arm_info("features", 8)], "features", 0))
    assert "lookup" not in said
    assert "counted" not in said


@pytest.mark.parametrize("output", ["table", "md", "json", "csv"])
def test_every_format_holds_the_headline_difference(output: Format) -> None:
    """All formats of the comparison carry the same number."""
    assert "0.300" in render({PROTOCOL: compared(0.6, 0.3)}, "table")
    comparison = compared(0.625, 0.125)
    text = render({PROTOCOL: comparison}, output)
    assert "0.5" in text
    assert "neurons" in text


def test_a_table_keeps_to_its_width() -> None:
    """No line of a table is wider than the terminal, and no cell is cut."""
    text = render({PROTOCOL: compared(0.6, 0.3)}, "table", width=70)
    assert max(map(len, text.splitlines())) <= 70
    assert "…" not in text


def test_csv_has_one_number_per_row() -> None:
    """Estimates, counts, tests and reasons fill the same columns."""
    rows = list(csv.DictReader(io.StringIO(render({PROTOCOL: compared(0.6, 0.3)}, "csv"))))
    wanted = {"table": "differences", "measure": "spearman", "statistic": "median"}
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    assert float(row["value"]) == pytest.approx(0.3)
    assert (row["n"], row["n_baseline"]) == ("30", "30")
    assert all(row["value"] or row["reason"] or (row["table"] == "bounds" and row["low"]) for row in rows)


@given(st.floats(-2, 2))
def test_numbers_have_three_decimals_and_no_negative_zero(value: float) -> None:
    """What is shown is within half a thousandth, and zero has no minus."""
    shown = number(value)
    assert abs(float(shown) - value) <= 0.0005 + 1e-12
    assert shown != "-0.000"


def test_a_cost_estimate_totals_its_rows() -> None:
    """The total is the sum of the stages, in dollars; no stage at all costs nothing."""
    rows = [
        CostEstimate(stage, "openai/gpt", 10, 2, 1000, 4000, 50, 100, 10**9, 2 * 10**9, 5 * 10**9)
        for stage in ("explain", "simulate")
    ]
    assert "Total $4.00 ($2.00 with prompt caching, at most $10.00)." in render_estimate(rows, "table")
    assert [row["upper"] for row in json.loads(render_estimate(rows, "json"))] == [5 * 10**9] * 2
    assert len(render_estimate(rows, "csv").splitlines()) == 3
    assert "no calls, $0" in render_estimate([], "table")


def test_values_are_printed_by_name() -> None:
    """Named values appear in every format."""
    values = {"l0": 12.345678, "dead": 3}
    assert json.loads(render_values(values, "json")) == values
    assert render_values(values, "csv") == "name,value\nl0,12.345678\ndead,3"
    assert "12.35" in render_values(values, "table")
    assert "| dead features | 3 |" in render_values(values, "md")


def test_json_takes_no_nan() -> None:
    """A NaN is a fault of the program and never reaches a file."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        render_values({"l0": float("nan")}, "json")


def test_what_documents_do_comes_back_and_older_tables_are_read(tmp_path: Path) -> None:
    """Two-way intervals are the same from the rows; rows without those columns give intervals over units alone."""
    outcomes, arms = realistic(20, 20)
    influence = Influence(
        np.array([3, 5, 8], dtype=np.int32), {"spearman": np.array([0.1, -0.25, 0.15], dtype=np.float16)}
    )
    moved = [
        replace(each, result=replace(each.result, influence=influence)) if isinstance(each.result, Score) else each
        for each in outcomes
    ]
    comparison = compare(moved, arms, "features", 0)
    mean = comparison.contrasts[0].differences["spearman"].mean
    assert isinstance(mean, Estimate)
    assert mean.documents
    write_tables(tmp_path, moved, {moved[0].protocol: comparison})
    assert compare(read_outcomes(tmp_path).outcomes, arms, "features", 0) == comparison
    table = pq.read_table(tmp_path / "scores.parquet")
    pq.write_table(table.drop_columns(["evidence", "overlap", "clusters", "influence"]), tmp_path / "scores.parquet")
    assert compare(read_outcomes(tmp_path).outcomes, arms, "features", 0) == compare(outcomes, arms, "features", 0)
