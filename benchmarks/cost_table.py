"""What one unit costs by ways of asking, from rendered prompts and today's prices.

    python benchmarks/cost_table.py results/transcripts/units.jsonl results/demo/scores.parquet

Tokens are bytes / 4 of the text really rendered, of the answer really wanted (the truth, in the form asked for) and of
the shared prefix. The units are those of the transcripts; their 20 items stand for the 60 of a trial, three times over.
The run is the demonstration's: as many explanations and trials as it had.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from autointerp import notation
from autointerp.explain.llm import render_explain
from autointerp.llm.prices import BYTES_PER_TOKEN, NANO, Prices, price_data
from autointerp.prompts import load_prompt
from autointerp.records.call import Request, Usage
from autointerp.records.explanation import Explanation
from autointerp.records.trial import Item
from autointerp.simulate.llm import render_simulate
from benchmarks.transcripts import Posed, read_units

EXPLAINERS = ("anthropic/claude-sonnet-5-5", "anthropic/claude-opus-5-5", "openai/gpt-6.1-sol")
SIMULATORS = ("openai/gpt-6-luna", "anthropic/claude-haiku-5-5", "anthropic/claude-sonnet-5-5")
PACKS = 3
"""Calls of 20 items that make a trial of 60."""
TOLD = Explanation("x" * 180, "lookup")
"""Stands for an explanation: its length is what the transcripts' explanations have, about."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Calls of one unit in one way of asking, in tokens."""

    calls: int
    prefix: int
    """Tokens of the prefix that all calls share, per call."""
    read: int
    """All input tokens, the prefix in every call included."""
    written: int
    """Output tokens."""


def tokens(text: str) -> int:
    """Expected tokens of `text`."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def asked(requests: Sequence[Request], answers: Sequence[str], times: int = 1) -> Asked:
    """What `requests` and `answers` come to, `times` over."""
    read = sum(tokens(request.system + request.user + (request.schema or "")) for request in requests)
    written = sum(map(tokens, answers))
    return Asked(times * len(requests), tokens(requests[0].system), times * read, times * written)


def token_by_token(unit: Posed, model: str) -> Asked:
    """One call per token, which sees the excerpt so far and answers with one digit."""
    prompt = load_prompt("simulate", "v1")
    prefixes = [Item(item.tokens[: end + 1]) for item in unit.trial.items for end in range(len(item.tokens))]
    requests = [render_simulate(TOLD, [prefix], model, prompt) for prefix in prefixes]
    return asked(requests, ["9"] * len(requests), PACKS)


def one_excerpt(unit: Posed, model: str) -> Asked:
    """One call per excerpt, digit strings."""
    prompt = load_prompt("simulate", "v1")
    requests = [render_simulate(TOLD, [item], model, prompt) for item in unit.trial.items]
    return asked(requests, [_digits(unit, [row]) for row in range(len(requests))], PACKS)


def verbose(unit: Posed, model: str) -> Asked:
    """As in the paper: every token on a line of its own, repeated in the answer with its activation."""
    prompt = load_prompt("simulate", "v1")
    request = render_simulate(TOLD, [], model, prompt)
    lines = [f"{token}\t" for item in unit.trial.items for token in item.tokens]
    levels = notation.quantise(unit.trial.truth, unit.trial.maximum, unit.trial.top_level).ravel()
    answer = "\n".join(f"{line}{level}" for line, level in zip(lines, levels, strict=True))
    return asked([replace(request, user=request.user + "unknown\n".join(lines))], [answer], PACKS)


def packed(unit: Posed, model: str) -> Asked:
    """Ours: 20 excerpts per call, digit strings."""
    request = render_simulate(TOLD, unit.trial.items, model, load_prompt("simulate", "v1"))
    return asked([request], [_digits(unit, range(len(unit.trial.items)))], PACKS)


def explained(unit: Posed, model: str) -> Asked:
    """One explanation."""
    request = render_explain(unit.evidence, model, load_prompt("explain", "v1"))
    return asked([request], [json.dumps({"explanation": TOLD.text})])


def dollars(each: Sequence[Asked], model: str, *, cached: bool, batch: bool) -> float:
    """Mean dollars per unit; `cached` reads the prefix from the provider's prompt cache in every call."""
    return float(np.mean([_cost(one, model, cached=cached, batch=batch) for one in each])) / NANO


def _cost(one: Asked, model: str, *, cached: bool, batch: bool) -> int:
    """Nano-dollars of a unit's calls, priced as `calls` equal ones."""
    usage = Usage(one.read // one.calls, one.prefix if cached else 0, 0, -(-one.written // one.calls))
    cost = Prices().cost(model, usage, batch=batch)
    assert cost is not None
    return cost * one.calls


def _digits(unit: Posed, rows: Sequence[int]) -> str:
    levels = notation.quantise(unit.trial.truth, unit.trial.maximum, unit.trial.top_level)
    shown = [{"item": i, "levels": notation.write_levels(levels[row])} for i, row in enumerate(rows, start=1)]
    return json.dumps({"predictions": shown})


def main() -> None:
    """Print the table in Markdown."""
    units, scores = read_units(Path(sys.argv[1]).parent), pq.read_table(sys.argv[2]).to_pandas()
    first = scores.drop_duplicates(["arm", "index"])
    n_explained = int((first.failure_stage.isna() | (first.failure_stage != "evidence")).sum())
    n_trials = int(first.failure_stage.isna().sum())
    ways: dict[str, tuple[Callable[[Posed, str], Asked], bool, bool]] = {
        "token by token": (token_by_token, False, False),
        "one excerpt per call": (one_excerpt, False, False),
        "token per line, in and out": (verbose, False, False),
        "ours": (packed, False, False),
        "ours, prefix cached": (packed, True, False),
        "ours, batch": (packed, False, True),
        "ours, prefix cached and batch": (packed, True, True),
    }
    print(f"Prices: {price_data()}. {n_explained:,} explanations and {n_trials:,} trials of 60 items.\n")
    print("| simulation | calls | input tokens | output tokens |" + "".join(f" {m} | run |" for m in SIMULATORS))
    print("|---|---:|---:|---:|" + "---:|---:|" * len(SIMULATORS))
    for name, (way, cached, batch) in ways.items():
        each = [way(unit, SIMULATORS[0]) for unit in units]
        costs = [dollars(each, model, cached=cached, batch=batch) for model in SIMULATORS]
        print(_line(name, each, costs, n_trials))
    print("\n| explanation | calls | input tokens | output tokens |" + "".join(f" {m} | run |" for m in EXPLAINERS))
    print("|---|---:|---:|---:|" + "---:|---:|" * len(EXPLAINERS))
    each = [explained(unit, EXPLAINERS[0]) for unit in units]
    for name, cached, batch in (
        ("ours", False, False),
        ("ours, prefix cached", True, False),
        ("ours, batch", False, True),
        ("ours, prefix cached and batch", True, True),
    ):
        costs = [dollars(each, model, cached=cached, batch=batch) for model in EXPLAINERS]
        print(_line(name, each, costs, n_explained))
    sizes = [f"{name} {tokens(request.system):,}" for name, request in _prefixes(units[0])]
    print(f"\nShared prefix with eight demonstrations, tokens: {', '.join(sizes)}.")


def _line(name: str, each: Sequence[Asked], costs: Sequence[float], n: int) -> str:
    means = [np.mean([getattr(one, field) for one in each]) for field in ("calls", "read", "written")]
    money = "".join(f" ${cost:.5f} | ${cost * n:,.2f} |" for cost in costs)
    return f"| {name} |" + "".join(f" {mean:,.0f} |" for mean in means) + money


def _prefixes(unit: Posed) -> list[tuple[str, Request]]:
    explain = render_explain(unit.evidence, EXPLAINERS[0], load_prompt("explain", "v1"))
    return [("explain", explain), ("simulate", render_simulate(TOLD, [], SIMULATORS[0], load_prompt("simulate", "v1")))]


if __name__ == "__main__":
    main()
