"""What a protocol is to the main path: which evidence, which question, which scorer, which sizes."""

from typing import Protocol, runtime_checkable

from autointerp.activations.plan import HarvestSizes
from autointerp.records.explanation import Evidence, Failure
from autointerp.records.trial import Question
from autointerp.records.unit import Split, UnitRecord
from autointerp.seams import Scorer


@runtime_checkable
class Preset(Protocol):
    """A versioned protocol; what is published under a name never changes its numbers."""

    @property
    def name(self) -> str:
        """What configurations and tables call it."""
        ...

    @property
    def question(self) -> Question:
        """What a simulator is asked of every item."""
        ...

    @property
    def harvest(self) -> HarvestSizes:
        """What it needs of every unit, with some to spare where duplicates are passed over."""
        ...

    @property
    def recomputes(self) -> bool:
        """Whether posing needs `Source.activations`, which a source without a subject does not have."""
        ...

    def evidence(self, record: UnitRecord) -> Evidence | Failure:
        """What the explainer sees of the unit: explain documents only."""
        ...

    def scorer(self, split: Split = "score") -> Scorer:
        """Poses trials from documents of `split` and scores them."""
        ...
