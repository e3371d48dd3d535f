"""What the terminal shows: one unit with coloured tokens, and progress on standard error."""

import json
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from autointerp.llm.estimate import Estimate
from autointerp.llm.progress import Progress as Calls
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.outcome import Outcome
from autointerp.records.trial import Measure, Score, Undefined
from autointerp.records.unit import Excerpt, LogitEffect, UnitRecord

_TOP = 5
"""Top excerpts that are shown."""
EVERY = 10.0
"""Seconds between two lines of progress where nobody watches a terminal."""
_PALE, _FULL = (255, 243, 224), (245, 124, 0)
"""Backgrounds of the weakest and of the strongest activation."""


class Advance(Protocol):
    """How a stage says how far it is."""

    def __call__(self, done: int, text: str = "") -> None:
        """`done` of the stage's total are done in all; `text` is what else there is to say."""
        ...


def say(text: str) -> None:
    """One line on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def calls(calls: Calls, projected: int) -> str:
    """How the calls of a run go and what they cost; `projected` is what this session's will, in nano-dollars.

    Such as ``$1.11 + $0.20 of $5.00  heading for $3.90  16/32 in flight  380 calls, 1.2M tokens a minute  12% stored
    rate_limited:2  fail:1``: spent, reserved, limit; calls under way and how many may be; retries and failures by kind.
    In batch mode ``2 batches at the provider for 75 min, 1,200/20,000 requests done`` instead of calls.
    """
    limit = "" if calls.cap is None else f" of ${calls.cap / 1e9:.2f}"
    tokens = calls.input_per_minute + calls.output_per_minute
    stored = f"{calls.cached / calls.done:.0%} stored" if calls.cached else ""
    counts = [f"{kind}:{n}" for kind, n in {**calls.retries, "fail": sum(calls.failed.values())}.items() if n]
    under_way = [
        f"{calls.in_flight}/{calls.limit} in flight",
        f"{calls.requests_per_minute} calls, {tokens / 1e6:.2g}M tokens a minute",
    ]
    if sent := calls.at_provider:
        batches = f"{sent.batches} batch{'es' * (sent.batches > 1)} at the provider for {sent.age / 60:.0f} min"
        under_way = [f"{batches}, {sent.done:,}/{sent.total:,} requests done"]
    parts = [
        f"${calls.spent / 1e9:.2f} + ${calls.reserved / 1e9:.2f}{limit}",
        f"heading for ${projected / 1e9:.2f}",
        *under_way,
        stored,
        *counts,
    ]
    return "  ".join(part for part in parts if part)


def foreseen(rows: Sequence[Estimate], *, limited: bool) -> str:
    """One line on what the calls of a run will cost."""
    calls, stored = sum(row.calls for row in rows), sum(row.cached for row in rows)
    low, expected, upper = (sum(getattr(row, name) for row in rows) / 1e9 for name in ("low", "expected", "upper"))
    limit = "" if limited else "; no --max-cost is given, so nothing limits it"
    money = f"about ${expected:.2f} (${low:.2f} with prompt caching, at most ${upper:.2f})"
    return f"{calls:,} calls to language models, {money}; {stored:,} more are stored or repeated, for nothing{limit}"


@contextmanager
def stage(
    name: str,
    total: int,
    unit: str,
    *,
    already: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Advance]:
    """Show on standard error how a stage goes on; `total` is counted in `unit`, of which `already` were done before.

    A bar on a terminal, otherwise one JSON line per 10 seconds and one at the end.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console) as progress:
            task = progress.add_task(name, total=total, completed=already, unit=unit, rate="", text="")
            begun = clock()

            def draw(done: int, text: str = "") -> None:
                rate = _rate(done - already, clock() - begun)
                progress.update(task, completed=done, text=text, rate=f"{rate:,.3g} {unit}/s")

            yield draw
    else:
        lines = _Lines(name, total, unit, already, clock)
        try:
            yield lines.advance
        finally:
            lines.write()


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=console,
        transient=False,
    )


class _Lines:
    """Progress as JSON lines, for logs."""

    def __init__(self, name: str, total: int, unit: str, already: int, clock: Callable[[], float]) -> None:
        self._name, self._total, self._unit, self._already = name, total, unit, already
        self._clock = clock
        self._begun = self._written = clock()
        self._done, self._text = already, ""

    def advance(self, done: int, text: str = "") -> None:
        self._done, self._text = done, text
        if self._clock() - self._written >= EVERY:
            self.write()

    def write(self) -> None:
        self._written = self._clock()
        rate = _rate(self._done - self._already, self._written - self._begun)
        line = {
            "stage": self._name,
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
            "seconds": round(self._written - self._begun, 1),
            "rate": float(f"{rate:.3g}"),
            "left": round((self._total - self._done) / rate, 1) if rate else None,
            "text": self._text,
        }
        sys.stderr.write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stderr.flush()


def _rate(done: int, seconds: float) -> float:
    return done / seconds if seconds > 0 else 0.0


def print_unit(record: UnitRecord, outcomes: Sequence[Outcome]) -> None:
    """Print one unit on standard output, with its outcome under each protocol, if it has ended."""
    Console(highlight=False).print(show_unit(record, outcomes))


def show_unit(record: UnitRecord, outcomes: Sequence[Outcome]) -> RenderableType:
    """One unit: how often it fires, its explanation and scores, its logits, and excerpts of the explain documents.

    A token's background is the stronger orange the higher its activation; the number before an excerpt is the
    highest, so that nothing is said by colour alone.
    """
    explain, score = record.statistics["explain"], record.statistics["score"]
    facts = (
        f"density {explain.density:.3g} (score documents {score.density:.3g})   "
        f"maximum {explain.maximum:.4g}   mean {explain.mean:.3g}"
    )
    parts: list[RenderableType] = [Text(f"{record.unit.arm} {record.unit.name}", style="bold"), Text(facts), Text()]
    for outcome in outcomes:
        parts += [Text(outcome.protocol, style="bold"), *_said(outcome), Text()]
    if record.promoted or record.suppressed:
        parts += [_logits("promotes", record.promoted), _logits("suppresses", record.suppressed), Text()]
    return Group(*parts, Text("excerpts of the explain documents", style="bold"), _excerpts(record))


def _said(outcome: Outcome) -> Iterator[RenderableType]:
    match outcome.explanation:
        case Explanation(text, explainer):
            yield Text.assemble((f"explanation by {explainer}: ", "bold"), text)
        case Failure() | None:
            yield Text("no explanation", style="bold")
    match outcome.result:
        case Failure(stage, kind, message):
            yield Text.assemble((f"no score, {kind} ({stage}): ", "bold"), message)
        case Score() as score:
            yield _scores(score)


def _scores(score: Score) -> RenderableType:
    table = Table("measure", "value", "95 % interval", box=None, pad_edge=False, title_justify="left")
    for name, measure in score.measures.items():
        style = "bold" if name == score.headline else ""
        match measure:
            case Measure(value, low, high):
                table.add_row(name, f"{value:.3f}", f"{low:.3f} to {high:.3f}", style=style)
            case Undefined(reason):
                table.add_row(name, "-", Text(reason), style=style)
    constant = "; all predictions are the same" if score.constant else ""
    return Group(Text(f"{score.items} items, {score.missing} without a prediction{constant}"), table)


def _logits(verb: str, effects: Sequence[LogitEffect]) -> Text:
    line = Text.assemble((f"{verb} ", "bold"))
    for effect in effects:
        line.append(effect.token, style="underline").append(f" {effect.weight:+.2f}  ", style="dim")
    return line


def _excerpts(record: UnitRecord) -> Table:
    """The top excerpts, then the first of each activation interval, strongest interval first."""
    excerpts = record.excerpts["explain"]
    first: dict[int, Excerpt] = {}
    for excerpt in excerpts:
        if excerpt.group == "interval":
            first.setdefault(excerpt.interval, excerpt)
    shown = [("top", each) for each in excerpts if each.group == "top"][:_TOP]
    shown += [(f"interval {interval}", first[interval]) for interval in sorted(first, reverse=True)]
    table = Table("from", "highest", "excerpt", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for label, excerpt in shown:
        table.add_row(label, f"{max(excerpt.activations):.3g}", _tokens(excerpt, record.maximum))
    return table


def _tokens(excerpt: Excerpt, maximum: float) -> Text:
    line = Text()
    for token, activation in zip(excerpt.tokens, excerpt.activations, strict=True):
        share = min(activation / maximum, 1.0) if maximum > 0 else 0.0
        line.append(token, style=_shade(share) if share > 0 else "")
    return line


def _shade(share: float) -> str:
    red, green, blue = (round(pale + share * (full - pale)) for pale, full in zip(_PALE, _FULL, strict=True))
    return f"black on rgb({red},{green},{blue})"
