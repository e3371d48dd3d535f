"""The main path over the seams: units in, outcomes out."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from autointerp.records.explanation import Evidence, Explanation, Failure
from autointerp.records.outcome import Outcome, OutcomeStatistics
from autointerp.records.trial import Score
from autointerp.records.unit import Unit, UnitRecord
from autointerp.seams import Explainer, Interrupted, Scorer, Simulator, Source, Stop
from autointerp.wording import literal_overlap

DRAIN_SECONDS = 30.0
"""How long calls in flight may still answer after the first Ctrl-C."""

EndOfUnit: TypeAlias = Callable[[int, Unit], Awaitable[Outcome]]
"""Brings a unit, with its place in the admission order, to its end."""


@dataclass(frozen=True, slots=True)
class Judges:
    """Who explains and who simulates the units of one arm."""

    explainer: Explainer
    """Writes the explanation."""
    simulator: Simulator
    """Predicts from its text."""


@dataclass(frozen=True, slots=True)
class Method:
    """A protocol, as far as the path needs it."""

    evidence: Callable[[UnitRecord], Evidence | Failure]
    """What the explainer is shown."""
    scorer: Scorer
    """How a trial is posed and scored."""


@dataclass(frozen=True, slots=True)
class Run:
    """What an evaluation came to."""

    outcomes: tuple[Outcome, ...]
    """Of every unit that ended, in admission order."""
    asked: int
    """Units that were to be evaluated."""
    stop: Stop | None
    """Why the run ended early, if it did."""


def admission_order(units: Sequence[Unit], seed: int) -> list[Unit]:
    """Each arm shuffled, then one unit of each arm in turn until the smaller arms are used up.

    Any prefix is an unbiased sample of every arm, so a run stopped by its budget still compares them.
    """
    rng = np.random.default_rng(seed)
    arms: dict[str, list[Unit]] = {}
    for unit in units:
        arms.setdefault(unit.arm, []).append(unit)
    shuffled = [[arms[arm][i] for i in rng.permutation(len(arms[arm]))] for arm in sorted(arms)]
    longest = max((len(arm) for arm in shuffled), default=0)
    return [arm[rank] for rank in range(longest) for arm in shuffled if rank < len(arm)]


async def admit(
    order: Sequence[Unit],
    end: EndOfUnit,
    *,
    at_once: int,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
    on_interrupt: Callable[[], None] = lambda: None,
) -> Run:
    """Bring every unit of `order` to its end, `at_once` at a time.

    Stops admitting at the first `Stop` (budget, credit, key, Ctrl-C), which `on_outcome` may raise too; what is in
    flight is drained. No exception of another kind leaves here but programming errors: failures are outcomes.
    """
    outcomes: dict[int, Outcome] = {}
    queue = iter(enumerate(order))
    stops: list[Stop] = []

    async def work() -> None:
        for rank, unit in queue:
            if stops:
                return
            try:
                outcomes[rank] = outcome = await end(rank, unit)
                on_outcome(outcome)
            except Stop as stop:
                stops.append(stop)
                return
            await asyncio.sleep(0)  # lets signals in where no judge ever waits

    workers = [asyncio.create_task(work()) for _ in range(min(at_once, max(1, len(order))))]
    with _interrupts(stops, workers, on_interrupt):
        finished = await asyncio.gather(*workers, return_exceptions=True)
    for result in finished:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
    ended = tuple(outcomes[rank] for rank in sorted(outcomes))
    return Run(ended, len(order), stops[0] if stops else None)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a unit comes to its end."""

    source: Source
    """Where units and their excerpts come from."""
    method: Method
    """The protocol."""
    judges: Mapping[str, Judges]
    """By arm."""

    async def explain(self, rank: int, unit: Unit) -> Outcome:
        """The unit's explanation and no score; raises `Stop` only."""
        record = self.source.record(unit)
        explanation = await self._explain(record)
        unscored = Failure("pose", "not_scored", "The unit is explained, but not yet scored.")
        return self._outcome(rank, record, explanation, explanation if isinstance(explanation, Failure) else unscored)

    async def whole(self, rank: int, unit: Unit) -> Outcome:
        """The unit's way from evidence to score; raises `Stop` only."""
        record = self.source.record(unit)
        return await self._scored(rank, record, await self._explain(record))

    async def score(self, rank: int, unit: Unit, explanation: Explanation | Failure) -> Outcome:
        """The unit's score from an explanation at hand; raises `Stop` only."""
        return await self._scored(rank, self.source.record(unit), explanation)

    async def _explain(self, record: UnitRecord) -> Explanation | Failure:
        evidence = self.method.evidence(record)
        if isinstance(evidence, Failure):
            return evidence
        return await self.judges[record.unit.arm].explainer.explain(evidence)

    async def _scored(self, rank: int, record: UnitRecord, explanation: Explanation | Failure) -> Outcome:
        if isinstance(explanation, Failure):
            return self._outcome(rank, record, explanation, explanation)
        trial = self.method.scorer.pose(record, explanation, self.source)
        if isinstance(trial, Failure):
            return self._outcome(rank, record, explanation, trial)
        predictions = await self.judges[record.unit.arm].simulator.simulate(explanation, trial.items)
        return self._outcome(rank, record, explanation, self.method.scorer.score(trial, predictions))

    def _outcome(
        self, rank: int, record: UnitRecord, explanation: Explanation | Failure, result: Score | Failure
    ) -> Outcome:
        explain, score = record.statistics["explain"], record.statistics["score"]
        evidence = self.method.evidence(record) if isinstance(explanation, Explanation) else None
        shown, overlap = None, None
        if isinstance(explanation, Explanation) and isinstance(evidence, Evidence):
            shown, overlap = len(evidence.excerpts), literal_overlap(explanation.text, evidence)
        statistics = OutcomeStatistics(
            explain.density, score.density, explain.maximum, explain.mean, evidence=shown, overlap=overlap
        )
        return Outcome(record.unit, rank, statistics, explanation, result)


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
