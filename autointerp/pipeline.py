"""The main path over the seams: units in, outcomes out."""

import asyncio
import math
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, product, starmap
from typing import TypeAlias

import numpy as np

from autointerp.protocols.preset import Preset
from autointerp.records.explanation import Evidence, Explanation, Failure
from autointerp.records.outcome import Outcome, OutcomeStatistics
from autointerp.records.trial import Measure, Question, Score
from autointerp.records.unit import Split, Unit, UnitRecord
from autointerp.seams import Explainer, Interrupted, Simulator, Source, Stop
from autointerp.selectivity import single_token, token_entropy
from autointerp.simulate.packs import together
from autointerp.wording import literal_overlap

DRAIN_SECONDS = 30.0
"""How long calls in flight may still answer after the first Ctrl-C."""

EndOfUnit: TypeAlias = Callable[[int, Unit], Awaitable[Sequence[Outcome]]]
"""Brings a unit, with its place in the admission order, to its end: one outcome per protocol."""


@dataclass(frozen=True, slots=True)
class Judges:
    """Who explains the units of one arm and who answers for the explanations."""

    explainer: Explainer
    """Writes the explanation."""
    simulators: Mapping[Question, Simulator]
    """By what is asked; each reads the explanation's text and nothing else."""


@dataclass(frozen=True, slots=True)
class Run:
    """What an evaluation came to."""

    outcomes: tuple[Outcome, ...]
    """Of every unit that ended, in admission order, the protocols of each together."""
    ended: int
    """Units that ended."""
    asked: int
    """Units that were to be evaluated."""
    stop: Stop | None
    """Why the run ended early, if it did."""


def admission_order(units: Sequence[Unit], seed: int, base: Callable[[str], str] = lambda arm: arm) -> list[Unit]:
    """Each arm shuffled, then one unit of each arm in turn until the smaller arms are used up.

    Any prefix is an unbiased sample of every arm, so a run stopped by its budget still compares them. Arms that `base`
    gives another arm for have that arm's units once more: each is admitted right after its own, so that a stopped run
    has pairs.
    """
    rng = np.random.default_rng(seed)
    arms: dict[str, list[Unit]] = {}
    again: dict[tuple[str, int], list[Unit]] = {}
    for unit in units:
        if (of := base(unit.arm)) == unit.arm:
            arms.setdefault(unit.arm, []).append(unit)
        else:
            again.setdefault((of, unit.index), []).append(unit)
    shuffled = [[arms[arm][i] for i in rng.permutation(len(arms[arm]))] for arm in sorted(arms)]
    longest = max((len(arm) for arm in shuffled), default=0)
    turns = (arm[rank] for rank in range(longest) for arm in shuffled if rank < len(arm))
    return [each for unit in turns for each in (unit, *again.get((unit.arm, unit.index), ()))]


async def admit(
    order: Sequence[Unit],
    end: EndOfUnit,
    *,
    at_once: int,
    pilot: int = 0,
    on_end: Callable[[Sequence[Outcome]], None] = lambda _: None,
    on_pilot: Callable[[], None] = lambda: None,
    on_interrupt: Callable[[], None] = lambda: None,
) -> Run:
    """Bring every unit of `order` to its end, `at_once` at a time.

    The first `pilot` units end before others are admitted; then comes `on_pilot`, which may raise `Stop`.
    Stops admitting at the first `Stop` (budget, credit, key, Ctrl-C), which `on_end` may raise too; what is in
    flight is drained. No exception of another kind leaves here but programming errors: failures are outcomes.
    """
    ends: dict[int, Sequence[Outcome]] = {}
    queue = iter(enumerate(order))
    stops: list[Stop] = []
    workers: list[asyncio.Task[None]] = []

    async def work(units: Iterable[tuple[int, Unit]]) -> None:
        for rank, unit in units:
            if stops:
                return
            try:
                ends[rank] = await end(rank, unit)
                on_end(ends[rank])
            except Stop as stop:
                stops.append(stop)
                return
            await asyncio.sleep(0)  # lets signals in where no judge ever waits

    async def end_all(units: Iterable[tuple[int, Unit]], n: int) -> None:
        workers[:] = [asyncio.create_task(work(units)) for _ in range(min(at_once, n))]
        for result in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    with _interrupts(stops, workers, on_interrupt):
        await end_all(islice(queue, pilot), pilot)
        if pilot and not stops:
            try:
                on_pilot()
            except Stop as stop:
                stops.append(stop)
        if not stops:
            await end_all(queue, len(order))
    outcomes = tuple(outcome for rank in sorted(ends) for outcome in ends[rank])
    return Run(outcomes, len(ends), len(order), stops[0] if stops else None)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a unit comes to its end."""

    source: Source
    """Where units and their excerpts come from."""
    presets: Sequence[Preset]
    """The protocols: a unit is brought to its end under all of them at once, so that it counts for all or for none."""
    judges: Mapping[str, Judges]
    """By arm."""
    explained_as: Callable[[Unit], Unit | Explanation] = lambda unit: unit
    """Whose explanation a unit is judged by: its own, or for a control another unit's or a fixed one."""
    explanations: int = 1
    """Explanations drawn for the same evidence."""

    async def explain(self, rank: int, unit: Unit) -> Sequence[Outcome]:
        """The unit's explanations and no score; raises `Stop` only."""
        record = self.source.record(unit)
        unscored = Failure("pose", "not_scored", "The unit is explained, but not yet scored.")
        return [
            _outcome(rank, record, preset, said, said if isinstance(said, Failure) else unscored)
            for preset, said in zip(self.presets, await self._explain(record), strict=True)
        ]

    async def whole(self, rank: int, unit: Unit) -> Sequence[Outcome]:
        """The unit's way from evidence to scores; raises `Stop` only."""
        record = self.source.record(unit)
        return await self._score(rank, record, await self._explain(record))

    async def score(self, rank: int, unit: Unit, explanations: Sequence[Explanation | Failure]) -> Sequence[Outcome]:
        """The unit's scores from explanations at hand, one for each preset; raises `Stop` only."""
        return await self._score(rank, self.source.record(unit), explanations)

    async def _explain(self, record: UnitRecord) -> Sequence[Explanation | Failure]:
        """One explanation per preset; a unit without evidence has none, not even another's."""
        whose = self.explained_as(record.unit)
        if whose == record.unit:
            return await self._explain_itself(record)
        own = [preset.evidence(record) for preset in self.presets]
        given = isinstance(whose, Explanation)
        theirs = [whose] * len(own) if given else await self._explain_itself(self.source.record(whose))
        return [mine if isinstance(mine, Failure) else each for mine, each in zip(own, theirs, strict=True)]

    async def _explain_itself(self, record: UnitRecord) -> Sequence[Explanation | Failure]:
        """One explanation per preset; the same evidence is explained once, or once for every draw."""
        explainer = self.judges[record.unit.arm].explainer
        shown = [preset.evidence(record) for preset in self.presets]
        distinct = list(dict.fromkeys(each for each in shown if isinstance(each, Evidence)))
        asked = list(product(distinct, range(self.explanations)))
        said = dict(zip(asked, await together(starmap(explainer.explain, asked)), strict=True))
        drawn = [
            [each] if isinstance(each, Failure) else [said[each, draw] for draw in range(self.explanations)]
            for each in shown
        ]
        return await together(map(partial(self._best, record), self.presets, drawn))

    async def _best(
        self, record: UnitRecord, preset: Preset, drawn: Sequence[Explanation | Failure]
    ) -> Explanation | Failure:
        """The explanation with the highest score on the select split, which scoring never sees (P14).

        The first of equals; the first of all where the split has too little of the unit to choose by.
        """
        candidates = list(dict.fromkeys(each for each in drawn if isinstance(each, Explanation)))
        if len(candidates) < 2:
            return next(iter(candidates), drawn[0])
        scores = await together(self._result(record, preset, each, "select") for each in candidates)
        values = [_headline(score) for score in scores]
        return candidates[values.index(max(values))]

    async def _score(
        self, rank: int, record: UnitRecord, explanations: Sequence[Explanation | Failure]
    ) -> Sequence[Outcome]:
        results = await together(map(partial(self._result, record), self.presets, explanations))
        ended = zip(self.presets, explanations, results, strict=True)
        return [_outcome(rank, record, preset, said, result) for preset, said, result in ended]

    async def _result(
        self, record: UnitRecord, preset: Preset, explanation: Explanation | Failure, split: Split = "score"
    ) -> Score | Failure:
        if isinstance(explanation, Failure):
            return explanation
        scorer = preset.scorer(split)
        trial = scorer.pose(record, explanation, self.source)
        if isinstance(trial, Failure):
            return trial
        simulator = self.judges[record.unit.arm].simulators[preset.question]
        return scorer.score(trial, await simulator.simulate(explanation, trial.items))


def _headline(score: Score | Failure) -> float:
    """The protocol's own score, below every other where there is none."""
    measure = score.measures[score.headline] if isinstance(score, Score) else None
    return measure.value if isinstance(measure, Measure) else -math.inf


def _outcome(
    rank: int, record: UnitRecord, preset: Preset, explanation: Explanation | Failure, result: Score | Failure
) -> Outcome:
    explain, score = record.statistics["explain"], record.statistics["score"]
    shown, overlap = None, None
    if isinstance(explanation, Explanation) and isinstance(evidence := preset.evidence(record), Evidence):
        shown, overlap = len(evidence.excerpts), literal_overlap(explanation.text, evidence)
    means = explain.density, score.density, explain.maximum, explain.mean
    statistics = OutcomeStatistics(*means, shown, overlap, single_token(record), token_entropy(record))
    return Outcome(record.unit, preset.name, rank, statistics, explanation, result)


@asynccontextmanager
async def repeated(action: Callable[[], None], seconds: float) -> AsyncGenerator[None]:
    """Call `action` every so many `seconds` while the block lasts: units of a batch end hours after they were sent."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            action()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()


@contextmanager
def _interrupts(
    stops: list[Stop], workers: Sequence["asyncio.Task[None]"], on_interrupt: Callable[[], None]
) -> Generator[None]:
    """First SIGINT or SIGTERM: admit nothing more and drain; the second, or the end of the drain: cancel."""
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        for worker in workers:
            worker.cancel()

    def interrupt() -> None:
        if stops and isinstance(stops[0], Interrupted):
            cancel()
            return
        stops.insert(0, Interrupted("Interrupted."))
        on_interrupt()
        loop.call_later(DRAIN_SECONDS, cancel)

    caught = [signal.SIGINT, signal.SIGTERM]
    try:
        for number in caught:
            loop.add_signal_handler(number, interrupt)
    except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread: Python's own handling
        caught = []
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
