"""What a run will cost is held against what it does cost."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp import stages
from autointerp.llm.estimate import Estimate
from autointerp.llm.ledger import LedgerRow
from autointerp.seams import Overrun
from autointerp.spending import Forecast
from tests.runs import MODELS, arguments, command


def row(stage: str, calls: int, expected: int) -> Estimate:
    """An estimate of `calls` that cost `expected` nano-dollars together."""
    return Estimate(stage, "openai/gpt-6-luna", calls, 0, 0, 0, 0, 0, expected // 2, expected, 9 * expected)


def paid(stage: str, arm: str, calls: int, cost: int) -> LedgerRow:
    """`calls` answers that cost `cost` nano-dollars together; as much again is held by calls under way."""
    return LedgerRow(stage, "openai/gpt-6-luna", arm, calls=calls, cost=2 * cost, settled=cost)


def test_the_projection_takes_the_measured_mean_of_each_stage() -> None:
    """Arms add up; a stage without an answer keeps its estimate."""
    forecast = Forecast((row("explain", 100, 1000), row("simulate", 300, 600)))
    ledger = [paid("explain", "features", 3, 60), paid("explain", "neurons", 1, 20)]
    assert forecast.projected(ledger) == 100 * 20 + 600


@given(st.integers(1, 1000), st.integers(1, 10**9))
def test_calls_that_cost_as_estimated_are_projected_as_estimated(calls: int, each: int) -> None:
    """Whatever their number, and nothing is said of them."""
    forecast = Forecast((row("explain", calls, calls * each),))
    ledger = [paid("explain", "features", 7, 7 * each)]
    assert forecast.projected(ledger) == forecast.expected
    assert not forecast.check(ledger, may_go_on=False)


def test_a_run_heading_for_much_more_stops_unless_it_may_go_on() -> None:
    """Above 1.25 times the estimate it is said, and without a limit or anybody to ask the run stops."""
    forecast, ledger = Forecast((row("explain", 100, 10**9),)), [paid("explain", "features", 10, 2 * 10**8)]
    assert "heading for $2.00" in forecast.check(ledger, may_go_on=True)
    with pytest.raises(Overrun, match="--max-cost"):
        forecast.check(ledger, may_go_on=False)


@pytest.mark.usefixtures("server", "no_figures")
def test_a_run_above_its_estimate_stops_after_the_first_units_and_can_go_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 4 with the results so far; a limit lets it finish; `cost` tells what was paid."""
    monkeypatch.setattr(stages, "PILOT", 3)
    monkeypatch.setattr("autointerp.llm.prices.WRITTEN_SHARE", 0.0)
    monkeypatch.setattr("autointerp.llm.prices.BYTES_PER_TOKEN", 40)
    run = tmp_path / "run"
    assert command("run", *arguments(place, run, "--features", "0:10", *MODELS, "--concurrency", "1")) == 4
    assert "is heading for" in capsys.readouterr().err
    assert json.loads((run / "manifest.json").read_text())["status"] == "Overrun"
    assert command("resume", run, "--max-cost", "5") == 0
    capsys.readouterr()
    assert command("cost", run, "--format", "json") == 0
    spent = json.loads(capsys.readouterr().out)
    assert spent["budget"]["cap"] == 5 * 10**9
    assert spent["budget"]["committed"] == sum(each["cost"] for each in spent["rows"]) > 0
    assert {each["stage"] for each in spent["rows"]} == {"explain", "simulate"}
    assert command("cost", run) == 0
    assert "committed (limit $5.00)" in capsys.readouterr().out


def test_a_run_without_language_models_cost_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`cost` says so."""
    assert command("harvest", *arguments(place, tmp_path / "run", "--features", "0:4")) == 0
    assert command("cost", tmp_path / "run") == 0
    assert "no calls, $0" in capsys.readouterr().out
