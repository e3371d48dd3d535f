"""The tables of the throughput benchmark, from its raw rows."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEFAULT_CONCURRENCY = 32
"""Of our command line."""
_WORK = {
    ("ours", "simulate"): "ours: explain + simulate",
    ("delphi", "classify"): "delphi: explain + detection + fuzzing",
    ("delphi", "simulate"): "delphi: explain + simulation (JSON)",
}

DIFFERENCES = """\
What is the same: the units, 49 excerpts shown and 60 asked per unit (30 fire, 30 do not), 9 tokens each; the model's
name, the server, its latency. What differs:

- The question. Ours asks for a level per token of 60 excerpts, 20 to a call. Detection and fuzzing ask for one bit per
  excerpt, 5 to a call, twice. delphi's simulation asks for a level per token, one excerpt to a call.
- The evidence. Ours carries ten promoted and ten suppressed tokens besides, and the answer's JSON schema: both are
  counted in its prompt characters.
- What is kept. Ours reserves and settles every call durably under a budget, keeps every answer, and puts bootstrap
  intervals on every measure; its CPU includes all of it. delphi writes its files of explanations and scores.
- Calls in flight. Ours holds at most as many as units at once. delphi's two classifiers each hold one per unit, so up
  to twice as many; its simulation holds 30 per unit, in a pool of 100 connections, so that 10 units fill it
  thrice and more units would only wait.
- With delphi's own defaults (100 excerpts of 32 tokens) it sends 41 requests per unit, and 101 for simulation.
- Of delphi's imports vllm, faiss, sentence_transformers, sparsify and blobfile are stubs; nothing measured calls them.
  Its command line itself needs a CUDA device; its classes are put together as it does, with the one unit at once that
  it forces upon API models."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of at least one value."""
        known = sorted(values)
        return cls(statistics.median(known), known[0], known[-1])

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.low)} to {_short(self.high)})"


Figures = Mapping[tuple[str, str, int], Mapping[str, Spread]]
"""By side, work and units at once."""


def summarise(rows: Sequence[Mapping[str, Any]]) -> Figures:
    """Figures per unit, over the rounds of each setting."""
    rounds: defaultdict[tuple[str, str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        rounds[row["side"], row["work"], row["at_once"]].append(row)
    return {
        setting: {
            "rate": Spread.of(row["units"] / row["seconds"] for row in those),
            **{
                name: Spread.of(row[name] / row["units"] for row in those)
                for name in ("cpu", "requests", "characters", "unread")
            },
        }
        for setting, those in rounds.items()
    }


def throughput_table(figures: Figures) -> str:
    """One line per setting."""
    lines = [
        "| work | units at once | units/s | requests/unit | prompt characters/unit | CPU s/unit | items lost |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (side, work, at_once), found in figures.items():
        note = {("ours", DEFAULT_CONCURRENCY): " (default)", ("delphi", 1): " (its command line)"}.get((side, at_once))
        cells = [
            _WORK[side, work],
            f"{at_once}{note or ''}",
            str(found["rate"]),
            _short(found["requests"].median),
            f"{found['characters'].median:,.0f}",
            str(found["cpu"]),
            _short(found["unread"].median),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio_table(figures: Figures) -> str:
    """Ratios of medians, ours over delphi's, with the aims."""
    mine = {at_once: found for (side, _, at_once), found in figures.items() if side == "ours"}
    lines = ["| units per second | ratio | aim |", "|---|---:|---:|"]
    for work, label in (("classify", "detection + fuzzing"), ("simulate", "simulation")):
        theirs = {
            at_once: found for (side, what, at_once), found in figures.items() if (side, what) == ("delphi", work)
        }
        aims = ("20", "5") if work == "classify" else ("", "")
        pairs = [
            (f"ours by default, delphi's command line ({label})", mine[DEFAULT_CONCURRENCY], theirs[1], aims[0]),
            (f"best of ours, best of delphi's ({label})", _best(mine), _best(theirs), aims[1]),
        ]
        pairs += [
            (f"{at_once} unit{'s' * (at_once > 1)} at once, both ({label})", mine[at_once], theirs[at_once], "")
            for at_once in sorted(mine.keys() & theirs.keys())
        ]
        for name, ours, other, aim in pairs:
            ratio = ours["rate"].median / other["rate"].median
            lines.append(f"| {name} | {ratio:.1f} | {'>= ' + aim if aim else ''} |")
    return "\n".join(lines)


def calls_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """CPU per call beside the bare SDK's."""
    rounds: defaultdict[tuple[str, int], defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        rounds[row["sdk"], row["at_once"]][row["side"]].append(row["ms"])
    lines = [
        "| SDK | calls in flight | bare, CPU ms/call | `Client.answer`, CPU ms/call | ratio | aim |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for (sdk, at_once), sides in rounds.items():
        bare, ours = Spread.of(sides["bare"]), Spread.of(sides["ours"])
        lines.append(f"| {sdk} | {at_once} | {bare} | {ours} | {ours.median / bare.median:.2f} | <= 1.15 |")
    return "\n".join(lines)


def throttle_table(row: Mapping[str, Any], per_minute: int) -> str:
    """How the limit was used."""
    cells = [f"{per_minute:,}/min", f"{row['share']:.1%}", f"{row['whole']:.1%}", row["calls"], row["limited"]]
    steady = f"used, seconds {row['start']:.0f} to {row['seconds']:.0f}"
    head = f"| limit | {steady} | used, from the first second | requests received | answered with 429 |"
    return "\n".join(
        [head, "|---:|---:|---:|---:|---:|", f"| {' | '.join(map(str, cells))} |", "| aim | >= 95% | | | 0 |"]
    )


def _best(settings: Mapping[int, Mapping[str, Spread]]) -> Mapping[str, Spread]:
    return max(settings.values(), key=lambda found: found["rate"].median)


def _short(value: float) -> str:
    """Three significant digits, never an exponent."""
    digits = max(0, 3 - len(str(int(abs(value))))) if abs(value) >= 1 else 3
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"
