"""The automated evaluation of Bricken et al. 2023, "Towards Monosemanticity"."""

from dataclasses import dataclass

import numpy as np

from autointerp import notation
from autointerp.activations.plan import HarvestSizes, SplitSizes
from autointerp.records.explanation import Evidence, EvidenceExcerpt, Failure
from autointerp.records.trial import Question
from autointerp.records.unit import N_INTERVALS, Excerpt, Split, UnitRecord
from autointerp.scorers.simulation import GroupSizes, SimulationScorer, choose

_EVIDENCE = GroupSizes(top=10, per_interval=2, random=5, out_of_context=10)
_TRIAL = GroupSizes(top=6, per_interval=2, random=10, out_of_context=20)
_KEPT = SplitSizes(top=20, per_interval=4, random=15, out_of_context=30)
_HARVEST = HarvestSizes(explain=_KEPT, select=_KEPT, score=_KEPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Monosemanticity2023:
    """49 excerpts of 9 tokens explain a unit, 60 others are predicted from the explanation; levels 0 to 9.

    Scored by the Spearman correlation pooled over the 540 tokens. A unit with fewer than 20 excerpts of either kind
    is dropped, with the reason. Where it differs from the published version: language models predict 20 excerpts in a
    call, not all 60 in one completion; the 8 demonstrations are our own, and answers are JSON of one digit a token
    instead of tokens repeated with their values; explanations of more than 400 characters are rejected; the excerpts of
    explaining and of predicting come from different documents; the top excerpts' weight, which the paper does not name,
    is the highest interval's. Judges are whatever models are asked for, where the paper has Claude 2.
    """

    name: str = "monosemanticity-2023"
    """What configurations and tables call it."""
    question: Question = "levels"
    """A level per token."""
    recomputes: bool = False
    """All is in the harvest."""
    top_level: int = 9
    """Highest level."""
    fewest: int = 20
    """Excerpts, duplicates removed, below which a unit is dropped."""
    evidence_sizes: GroupSizes = _EVIDENCE
    """The 49 excerpts shown to the explainer."""
    trial_sizes: GroupSizes = _TRIAL
    """The 60 excerpts to be predicted."""
    harvest: HarvestSizes = _HARVEST
    """More than is used of every group, so that duplicates can be passed over."""
    seed: int = 0
    """Of the order of a trial's items and of the resamples behind intervals."""

    def evidence(self, record: UnitRecord) -> Evidence | Failure:
        """What the explainer sees of the unit: explain documents only, highest first, groups and intervals labelled.

        A `Failure` (``dead``, ``too_few_excerpts``) where the unit never fires in them or has too few.
        """
        if not record.statistics["explain"].fired:
            return Failure("evidence", "dead", "The unit never fires in the explain documents.")
        chosen = choose(record.excerpts["explain"], self.evidence_sizes)
        if len(chosen) < self.fewest:
            message = f"{len(chosen)} explain excerpts; {self.fewest} are needed."
            return Failure("evidence", "too_few_excerpts", message)
        return Evidence(
            excerpts=tuple(self._shown(excerpt, record.maximum) for excerpt in chosen),
            promoted=record.promoted,
            suppressed=record.suppressed,
            top_level=self.top_level,
        )

    def scorer(self, split: Split = "score") -> SimulationScorer:
        """Poses and scores the 60 excerpts."""
        return SimulationScorer(
            sizes=self.trial_sizes, top_level=self.top_level, fewest=self.fewest, seed=self.seed, split=split
        )

    def _shown(self, excerpt: Excerpt, maximum: float) -> EvidenceExcerpt:
        levels = notation.quantise(np.array(excerpt.activations), maximum, self.top_level)
        return EvidenceExcerpt(excerpt.tokens, tuple(levels.tolist()), _label(excerpt))


def _label(excerpt: Excerpt) -> str:
    match excerpt.group:
        case "top":
            return "top"
        case "interval":
            return f"interval {excerpt.interval} of {N_INTERVALS}"
        case "random":
            return "random"
        case "out_of_context":
            return "out of context"
