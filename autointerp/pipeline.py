"""The main path over the seams: units in, outcomes out."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from autointerp.records.explanation import Evidence, Explanation, Failure
from autointerp.records.outcome import Outcome
from autointerp.records.unit import Unit, UnitRecord
from autointerp.seams import Explainer, Interrupted, Scorer, Simulator, Source, Stop

DRAIN_SECONDS = 30.0
"""How long calls in flight may still answer after the first Ctrl-C."""


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


async def evaluate(
    order: Sequence[Unit],
    source: Source,
    method: Method,
    judges: Mapping[str, Judges],
    *,
    at_once: int,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> Run:
    """Explain, pose, simulate and score every unit of `order`, `at_once` at a time.

    Stops admitting at the first `Stop` (budget, credit, key, Ctrl-C); what is in flight is drained. No exception of
    a kind other than a programming error leaves here: failures are outcomes.
    """
    outcomes: dict[int, Outcome] = {}
    queue = iter(enumerate(order))
    stops: list[Stop] = []

    async def work() -> None:
        for rank, unit in queue:
            if stops:
                return
            try:
                outcome = await evaluate_unit(rank, unit, source, method, judges[unit.arm])
            except Stop as stop:
                stops.append(stop)
                return
            outcomes[rank] = outcome
            on_outcome(outcome)
            await asyncio.sleep(0)  # lets signals in where no judge ever waits

    workers = [asyncio.create_task(work()) for _ in range(min(at_once, max(1, len(order))))]
    with _interrupts(stops, workers):
        finished = await asyncio.gather(*workers, return_exceptions=True)
    for result in finished:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
    ended = tuple(outcomes[rank] for rank in sorted(outcomes))
    return Run(ended, len(order), stops[0] if stops else None)


async def evaluate_unit(rank: int, unit: Unit, source: Source, method: Method, judges: Judges) -> Outcome:
    """One unit's way from evidence to score; raises `Stop` only."""
    record = source.record(unit)
    explanation = await _explain(record, method, judges.explainer)
    if isinstance(explanation, Failure):
        return _outcome(rank, record, explanation, explanation)
    trial = method.scorer.pose(record, explanation, source)
    if isinstance(trial, Failure):
        return _outcome(rank, record, explanation, trial)
    predictions = await judges.simulator.simulate(explanation, trial.items)
    return _outcome(rank, record, explanation, method.scorer.score(trial, predictions))


async def _explain(record: UnitRecord, method: Method, explainer: Explainer) -> Explanation | Failure:
    evidence = method.evidence(record)
    return evidence if isinstance(evidence, Failure) else await explainer.explain(evidence)


def _outcome(rank: int, record: UnitRecord, explanation: Explanation | Failure, result: object) -> Outcome:
    raise NotImplementedError


@contextmanager
def _interrupts(stops: list[Stop], workers: Sequence["asyncio.Task[None]"]) -> Iterator[None]:
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
