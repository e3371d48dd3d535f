"""Does it change the score how many items are asked in one call? The same items at 1, 10, 20 and 60 per call.

    python -m benchmarks.packing                                   # scripted simulators on a loopback server: no key
    python -m benchmarks.packing --run results/mine --model openai/gpt-6-luna --units 25 --max-cost 0.50

The first prints what the audit says of simulators whose faults are known (`packing_judges`), on made-up units. The
second asks a real model (`--base-url` for a server of your own) about the first units of a finished run, from the run's
own explanations; its answers are kept in the run's directory, so that the same command again costs nothing.

Every pack is asked in two orders, forwards and backwards, so that each item stands as often early as late. A unit's
score at a size is the mean of both. Differences are paired by unit; intervals are 95 % bootstrap intervals over units.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from autointerp import statistics
from autointerp.activations.source import StoreSource
from autointerp.activations.store import Store
from autointerp.config import load_run
from autointerp.explain.lookup import LookupExplainer
from autointerp.harvesting import HARVEST
from autointerp.llm.catalog import make_providers
from autointerp.llm.client import Client
from autointerp.llm.prices import NANO, Prices, parse_dollars, parse_price
from autointerp.llm.provider import Provider
from autointerp.pipeline import admission_order
from autointerp.prompts import load_prompt
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Prediction, Trial
from autointerp.report import tables
from autointerp.seams import Model
from autointerp.simulate.llm import LlmSimulator
from benchmarks.llm_units import PROTOCOL, RecordSource, synthetic_records
from benchmarks.packing_judges import JUDGES, answer_as
from tests.servers.loopback import serve

SIZES = (1, 10, 20, 60)
MODEL = "openai/gpt-6-luna"
UNITS = 12
_ORDERS = (1, -1)


@dataclass(frozen=True, slots=True)
class Question:
    """A unit's trial, and the explanation that it is predicted from."""

    told: Explanation
    trial: Trial


@dataclass(slots=True)
class Metered:
    """A model that adds up what its answers cost when they were made."""

    model: Model
    cost: int = 0
    """Nano-dollars."""
    calls: int = 0
    read: int = 0
    written: int = 0

    async def answer(self, request: Request) -> Reply | Failure:
        """The model's answer."""
        said = await self.model.answer(request)
        if isinstance(said, Reply):
            self.calls, self.cost = self.calls + 1, self.cost + said.cost
            self.read, self.written = self.read + said.usage.input_tokens, self.written + said.usage.output_tokens
        return said

    def reject(self, request: Request) -> None:
        """The model's ledger."""
        self.model.reject(request)


@dataclass(slots=True)
class Asked:
    """What one size of pack came to, unit by unit."""

    meter: Metered
    """What it cost, both orders together."""
    scores: list[float] = field(default_factory=list[float])
    """Mean of both orders; NaN where one has no score."""
    levels: list[float] = field(default_factory=list[float])
    """Mean level predicted per token."""
    late: list[float] = field(default_factory=list[float])
    """Mean level predicted for items in the later half of their pack less that for the same items in the earlier."""
    missing: int = 0
    """Items without a prediction, of both orders."""


async def audit(client: Model, model: str, questions: Sequence[Question]) -> dict[int, Asked]:
    """Ask all `questions` at every size, in both orders."""
    asked: dict[int, Asked] = {}
    for size in SIZES:
        asked[size] = now = Asked(Metered(client))
        simulator = LlmSimulator(now.meter, model, load_prompt("simulate", "v1"), items_per_call=size)
        units = [_in_both_orders(simulator, question) for question in questions]
        for question, both in zip(questions, await asyncio.gather(*units), strict=True):
            _add(now, question.trial, size, both)
    return asked


async def _in_both_orders(simulator: LlmSimulator, question: Question) -> list[list[Prediction | Failure]]:
    """Results item by item, for each order."""
    items = question.trial.items
    return [list(await simulator.simulate(question.told, items[::order]))[::order] for order in _ORDERS]


def _add(asked: Asked, trial: Trial, size: int, both: Sequence[Sequence[Prediction | Failure]]) -> None:
    levels = np.array([[_levels(result, trial) for result in results] for results in both])
    asked.scores.append(float(np.mean([_score(trial.truth, predicted) for predicted in levels])))
    asked.missing += int(np.isnan(levels).any(axis=2).sum())
    asked.levels.append(float(np.nanmean(levels)))
    level = np.nanmean(levels, axis=2)
    late = np.array([_is_late(len(trial.items), size)[::order] for order in _ORDERS])
    turned = late[0] != late[1]  # the middle of an odd pack is neither
    if size > 1 and turned.any():
        asked.late.append(float(np.nanmean(level[late & turned]) - np.nanmean(level[~late & turned])))


def _score(truth: np.ndarray, levels: np.ndarray) -> float:
    """The protocol's headline, without its interval: Spearman over the items that were predicted."""
    known = ~np.isnan(levels).any(axis=1)
    if known.mean() < PROTOCOL.scorer().answered:
        return np.nan
    score = statistics.spearman(truth[known], levels[known])
    return np.nan if score is None else score


def _is_late(n: int, size: int) -> np.ndarray:
    """Which of `n` items, in the order asked, stand in the later half of their pack."""
    return np.concatenate([2 * np.arange(k) >= k for k in (min(size, n - i) for i in range(0, n, size))])


def _levels(result: Prediction | Failure, trial: Trial) -> Sequence[float]:
    return result.levels if isinstance(result, Prediction) else [np.nan] * trial.truth.shape[1]


def report(name: str, asked: dict[int, Asked]) -> str:
    """A table in Markdown: a row per size."""
    rng = np.random.default_rng(0)
    alone = asked[SIZES[0]]
    heads = ("score", "less that at 1 per call", "level less that at 1", "level late less early", "missing", "calls")
    lines = [
        f"| {name} | {' | '.join(heads)} | input tokens | output tokens | dollars |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size, now in asked.items():
        scores, first = np.array(now.scores), np.array(alone.scores)
        known = ~np.isnan(scores) & ~np.isnan(first)
        change = _interval(scores[known] - first[known], rng) if size > 1 else ""
        tilt = _interval(np.array(now.levels) - np.array(alone.levels), rng) if size > 1 else ""
        meter, n = now.meter, len(_ORDERS) * len(now.scores)
        each = [f"{count / n:,.0f}" for count in (meter.calls, meter.read, meter.written)]
        lines.append(
            f"| {size} per call | {scores[known].mean():.3f} | {change} | {tilt} | {_interval(np.array(now.late), rng)}"
            f" | {now.missing} | {' | '.join(each)} | ${meter.cost / NANO / n:.6f} |"
        )
    return "\n".join(lines)


def _interval(values: np.ndarray, rng: np.random.Generator) -> str:
    if not len(values):
        return ""
    told = statistics.bootstrap_interval(values, "mean", rng)
    if isinstance(told, statistics.Undefined):
        return "too few"
    value, low, high = (round(each, 3) + 0.0 for each in (told.value, told.low, told.high))  # -0.0 + 0.0 is 0.0
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def made_up(n: int) -> Iterator[tuple[Explanation | Failure, Trial | Failure]]:
    """`lookup`'s explanations and trials of made-up units."""
    records = synthetic_records(n)
    source, scorer = RecordSource(records), PROTOCOL.scorer()
    for record in records:
        evidence = PROTOCOL.evidence(record)
        told = evidence if isinstance(evidence, Failure) else asyncio.run(LookupExplainer().explain(evidence))
        yield told, scorer.pose(record, Explanation("", ""), source)


def of_run(directory: Path) -> Iterator[tuple[Explanation | Failure, Trial | Failure]]:
    """Explanations and trials of the units of a run, in the order in which it admitted them."""
    source = StoreSource(Store.open(directory / HARVEST))
    explanations, scorer = tables.read_explanations(directory), PROTOCOL.scorer()
    for unit in admission_order(source.units(), load_run(directory).seed):
        if isinstance(told := explanations.get((unit, PROTOCOL.name)), Explanation):
            yield told, scorer.pose(source.record(unit), told, source)


def first(pairs: Iterator[tuple[Explanation | Failure, Trial | Failure]], n: int) -> list[Question]:
    """The first `n` that were explained and posed."""
    good = (
        Question(told, trial) for told, trial in pairs if isinstance(told, Explanation) and isinstance(trial, Trial)
    )
    return list(islice(good, n))


def rehearse(units: int) -> Iterator[str]:
    """A table per scripted simulator, each on a loopback server and a store of its own."""
    questions = first(made_up(units), units)
    for name in JUDGES:
        with tempfile.TemporaryDirectory() as place, serve(answers=answer_as(name), caching=True) as server:
            providers = make_providers([MODEL], f"{server.url}/v1")
            asked = asyncio.run(_through_client(Path(place) / "answers.sqlite", providers, MODEL, questions))
        yield report(name, asked)


async def _through_client(
    answers: Path, providers: Mapping[str, Provider], model: str, questions: Sequence[Question], **more: Any
) -> dict[int, Asked]:
    settings = {"run": "packing", "cap_nano": None} | more
    async with Client.open(answers, providers=providers, **settings) as client:
        return await audit(client, model, questions)


def main() -> None:
    """Print the audit's tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=UNITS, help="units asked about")
    parser.add_argument("--run", type=Path, help="results directory of a finished run; its units and explanations")
    parser.add_argument("--model", help="provider/model that simulates; without it the scripted ones do")
    parser.add_argument("--base-url", help="any OpenAI-compatible server")
    parser.add_argument("--price", help="IN,OUT dollars per million tokens, where the price table lacks the model")
    parser.add_argument("--max-cost", help="most dollars to spend, all sessions together; required with --model")
    given = parser.parse_args()
    if given.model is None:
        print("\n\n".join(rehearse(given.units)))
        return
    if given.run is None or given.max_cost is None:
        parser.error("--model needs --run and --max-cost")
    asked = asyncio.run(
        _through_client(
            given.run / "packing.sqlite",
            make_providers([given.model], given.base_url),
            given.model,
            first(of_run(given.run), given.units),
            cap_nano=parse_dollars(given.max_cost),
            prices=Prices(parse_price(given.price) if given.price else None),
        )
    )
    print(report(given.model, asked))


if __name__ == "__main__":
    main()
