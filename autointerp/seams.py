"""Where parts can be exchanged. Structural typing: implementations are final, varied by wrapping."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from autointerp.records.anchors import Activations, Pool, Text
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Evidence, Explanation, Failure
from autointerp.records.trial import Item, Prediction, Score, Trial
from autointerp.records.unit import Split, Unit, UnitRecord


@runtime_checkable
class Source(Protocol):
    """Where units and their activations come from."""

    def units(self) -> Sequence[Unit]:
        """Every harvested unit, arm by arm, by index."""
        ...

    def record(self, unit: Unit) -> UnitRecord:
        """What the harvest knows of `unit`."""
        ...

    def activations(self, unit: Unit, windows: Sequence[int]) -> Activations:
        """Recompute `unit` on whole score windows: shape (window, position). Raises `Unavailable` without a subject."""
        ...

    def text(self, split: Split) -> Text:
        """The windows of the split, as token ids; the same object at every call. Raises `Unavailable` without them."""
        ...

    def pool(self, split: Split) -> Pool:
        """The split's uniformly random excerpts, the same for every unit."""
        ...


@runtime_checkable
class Explainer(Protocol):
    """Writes an explanation from explain documents, blind to the arm."""

    async def explain(self, evidence: Evidence, draw: int = 0) -> Explanation | Failure:
        """Explain the unit behind `evidence`; other draws may say it otherwise."""
        ...


@runtime_checkable
class Simulator(Protocol):
    """Predicts activations from an explanation's text and nothing else."""

    async def simulate(self, explanation: Explanation, items: Sequence[Item]) -> Sequence[Prediction | Failure]:
        """One result per item, in order."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Poses a trial and scores the answers; both are pure."""

    def pose(self, record: UnitRecord, explanation: Explanation, source: Source) -> Trial | Failure:
        """A trial from score documents."""
        ...

    def score(self, trial: Trial, predictions: Sequence[Prediction | Failure]) -> Score:
        """Score `predictions`, one per item."""
        ...


@runtime_checkable
class Model(Protocol):
    """Answers requests."""

    async def answer(self, request: Request) -> Reply | Failure:
        """The answer, or the named failure. Raises `Stop` where the run cannot go on."""
        ...

    def reject(self, request: Request) -> None:
        """The answer to `request` could not be read, or not all of it: it was paid for, and the ledger says so."""
        ...


class Unavailable(Exception):
    """A source cannot recompute activations, or has no whole text."""


class Stop(Exception):
    """The run cannot go on, but can be resumed: the only kind of exception that crosses seams."""


class BudgetReached(Stop):
    """The next call could exceed the budget."""


class Overrun(Stop):
    """The run is heading for a cost well above its estimate, and nobody is there to ask."""


class Refused(Stop):
    """The provider refuses the key, the credit or the model."""


class Interrupted(Stop):
    """Ctrl-C or SIGTERM."""
