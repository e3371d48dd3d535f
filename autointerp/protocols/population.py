"""Estimates over the whole score split: what the samples of other protocols are blind to is counted at its weight."""

from dataclasses import dataclass, replace

from autointerp.activations.plan import HarvestSizes
from autointerp.protocols.monosemanticity_2023 import Monosemanticity2023
from autointerp.records.explanation import Evidence, Failure
from autointerp.records.trial import Question
from autointerp.records.unit import Split, UnitRecord
from autointerp.scorers.population import ALLOCATION, Allocation, PopulationScorer
from autointerp.seams import Scorer

_EVIDENCE = Monosemanticity2023()
_HARVEST = replace(
    _EVIDENCE.harvest,
    score=replace(_EVIDENCE.harvest.score, anchors=ALLOCATION.firing - (ALLOCATION.strata - 1) * ALLOCATION.fewest),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """The evidence of monosemanticity-2023; at most 120 excerpts of 9 tokens, of which only the anchor counts.

    Levels are 0 to 9. Scored by the Pearson correlation over every anchor of the score split, beside average precision
    at natural density.
    """

    name: str = "population"
    """What configurations and tables call it."""
    question: Question = "levels"
    """A level per token."""
    recomputes: bool = True
    """Truth at the anchors that the proposal draws."""
    allocation: Allocation = ALLOCATION
    """How the excerpts are drawn."""
    harvest: HarvestSizes = _HARVEST
    """As much of every stratum as may be drawn from one."""
    seed: int = 0
    """Of the draws, the order of a trial's items and the resamples."""

    def evidence(self, record: UnitRecord) -> Evidence | Failure:
        """What the explainer sees: the same as under monosemanticity-2023, so that one explanation serves both."""
        return _EVIDENCE.evidence(record)

    def scorer(self, split: Split = "score") -> Scorer:
        """Poses and scores over the score split.

        Firing anchors are sampled of that one only: on the select split explanations are told apart by the Pearson
        correlation over the excerpts of monosemanticity-2023.
        """
        if split != "score":
            return replace(Monosemanticity2023(seed=self.seed).scorer(split), headline="pearson")
        return PopulationScorer(allocation=self.allocation, seed=self.seed)
