"""The terminal shows units truthfully and progress without a flood."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from autointerp.llm.progress import AtProvider
from autointerp.llm.progress import Progress as Calls
from autointerp.records.explanation import Failure
from autointerp.records.outcome import Outcome
from autointerp.records.unit import Excerpt, Group, LogitEffect, SplitStatistics, Unit, UnitRecord
from autointerp.report import terminal
from tests.autointerp.synthetic_outcomes import outcome


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def excerpt(token: str, activation: float, group: Group, interval: int) -> Excerpt:
    """Three tokens, of which the middle one fires."""
    return Excerpt(0, 0, 0, (1, 2, 3), (" the", token, "\\n"), (0.0, activation, 0.0), 1, group, interval)


def record() -> UnitRecord:
    """A unit with six top excerpts, two of interval 12 and one of interval 1."""
    top = [excerpt(f" top{i}", 8.0, "top", 12) for i in range(6)]
    inner = [(" strong", 8.0, 12), (" second", 7.9, 12), (" weak", 0.5, 1)]
    drawn = [excerpt(token, activation, "interval", interval) for token, activation, interval in inner]
    other = excerpt(" elsewhere", 0.0, "random", 0)
    statistics = SplitStatistics(1000, 4, 8.0, 0.01, (1, *[0] * 10, 3))
    return UnitRecord(
        Unit("features", 123, "123"),
        0.0,
        {"explain": statistics, "score": replace(statistics, fired=2)},
        {"explain": (*top, *drawn, other), "score": ()},
        (LogitEffect(" [bold]", 1.5),),
        (LogitEffect(" no", -0.5),),
        {},
    )


def shown(each: Outcome | None, *, colour: bool = False) -> str:
    """What a terminal of 100 characters prints for the unit."""
    out = io.StringIO()
    system = "truecolor" if colour else None
    Console(file=out, width=100, color_system=system, force_terminal=colour).print(
        terminal.show_unit(record(), [each] if each else [])
    )
    return out.getvalue()


def test_a_unit_shows_explanation_scores_and_logits() -> None:
    """Density, explanation, every measure with its interval, and both ends of the logits."""
    text = shown(outcome(0, "features", 123, 0.42))
    assert "density 0.004 (score documents 0.002)" in text
    assert "explanation by lookup: fires on 123" in text
    assert "0.420  0.370 to 0.470" in text
    assert "promotes  [bold] +1.50" in text
    assert "suppresses  no -0.50" in text


def test_five_top_excerpts_and_one_per_interval_are_shown() -> None:
    """The strongest interval comes first; random excerpts are not shown."""
    text = shown(None)
    assert [f"top{i}" in text for i in range(6)] == [True] * 5 + [False]
    assert text.index(" strong") < text.index(" weak")
    assert "second" not in text
    assert "elsewhere" not in text


def test_a_token_is_the_more_orange_the_stronger_it_fires() -> None:
    """The maximum has the full colour, a weak activation a pale one, silence none."""
    text = shown(None, colour=True)
    assert "48;2;245;124;0m top0" in text
    assert "48;2;254;236;210m weak" in text
    assert text.count("48;2;") == 7


def test_colour_is_not_the_only_sign() -> None:
    """Without colour the highest activation of an excerpt stands beside it."""
    assert any("interval 1 " in line and " 0.5 " in line for line in shown(None).splitlines())


def test_a_failed_unit_says_why() -> None:
    """A failure shows its kind and message instead of scores."""
    text = shown(outcome(0, "features", 123, None, failure=Failure("evidence", "dead", "Never fires.")))
    assert "no explanation" in text
    assert "no score, dead (evidence): Never fires." in text


def test_a_log_gets_a_line_per_ten_seconds_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody watches, progress is sparse JSON with rate and time left."""
    clock = Clock()
    with terminal.stage("explain", 100, "units", clock=clock) as advance:
        for done in range(1, 26):
            clock.now = float(done)
            advance(done, "$0.10")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["done"] for line in lines] == [10, 20, 25]
    assert lines[0] == {
        "stage": "explain",
        "done": 10,
        "total": 100,
        "unit": "units",
        "seconds": 10.0,
        "rate": 1.0,
        "left": 90.0,
        "text": "$0.10",
    }


def test_what_was_done_before_does_not_count_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """A stage that goes on where it was stopped tells the rate and the time left of its own part."""
    clock = Clock()
    with terminal.stage("train", 100, "tokens", already=80, clock=clock) as advance:
        clock.now = 10.0
        advance(90)
    line = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (line["done"], line["rate"], line["left"]) == (90, 1.0, 10.0)


def test_the_last_line_is_written_when_a_stage_breaks_off(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception passes through and leaves the state behind; no rate before any time has passed."""

    def interrupted() -> None:
        with terminal.stage("score", 5, "units", clock=Clock()) as advance:
            advance(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    line = json.loads(capsys.readouterr().err)
    assert (line["done"], line["left"]) == (2, None)


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody watches, stage, count, rate and text are drawn and no JSON is."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, clock = Screen(), Clock()
    monkeypatch.setattr("sys.stderr", out)
    with terminal.stage("explain", 7, "units", clock=clock) as advance:
        clock.now = 2.0
        advance(7, "[$1.11]")
    text = out.getvalue()
    assert "explain" in text
    assert "7/7" in text
    assert "3.5 units/s" in text
    assert "[$1.11]" in text
    assert "{" not in text


def test_calls_are_told_with_their_money_and_what_went_wrong() -> None:
    """Spent, reserved and the limit where there is one; what is under way; retries by kind and failures."""
    calls = Calls(0, 10, 0, 1_110_000_000, 0, None, {}, {}, limit=8)
    quiet = "$1.11 + $0.00  heading for $2.00  0/8 in flight  0 calls, 0M tokens a minute"
    assert terminal.calls(calls, 2 * 10**9) == quiet
    worse = replace(
        calls,
        cap=5 * 10**9,
        reserved=2 * 10**8,
        cached=3,
        requests_per_minute=380,
        input_per_minute=1_200_000,
        retries={"429": 3},
        failed={"refusal": 1, "truncated": 1},
    )
    told = terminal.calls(worse, 2 * 10**9)
    assert told.startswith("$1.11 + $0.20 of $5.00  heading for $2.00")
    assert told.endswith("380 calls, 1.2M tokens a minute  30% stored  429:3  fail:2")


def test_batches_are_told_instead_of_calls() -> None:
    """How many, since when, and how many of their requests the provider has dealt with."""
    sent = AtProvider(2, 75 * 60 + 1.0, 1200, 20_000)
    told = terminal.calls(Calls(0, 10, 0, 0, 10**9, None, {}, {}, at_provider=sent), 2 * 10**9)
    assert told.endswith("heading for $2.00  2 batches at the provider for 75 min, 1,200/20,000 requests done")
    assert "in flight" not in told


def test_say_and_print_unit_use_their_own_streams(capsys: pytest.CaptureFixture[str]) -> None:
    """Messages go to standard error, results to standard output, and markup in either is text."""
    terminal.say("[red]corpus")
    terminal.print_unit(record(), [])
    captured = capsys.readouterr()
    assert captured.err == "[red]corpus\n"
    assert captured.out.startswith("features 123\n")
