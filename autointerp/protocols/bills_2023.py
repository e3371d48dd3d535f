"""The automated evaluation of Bills et al. 2023, "Language models can explain neurons in language models"."""

from dataclasses import dataclass

import numpy as np

from autointerp import notation
from autointerp.activations.plan import HarvestSizes, SplitSizes
from autointerp.records.explanation import Evidence, EvidenceExcerpt, Failure
from autointerp.records.trial import Question
from autointerp.records.unit import Split, UnitRecord
from autointerp.scorers.top_and_random import TopAndRandomScorer, deal

_TOKENS = 64
_TOPS = SplitSizes(top=12, per_interval=0, random=0, out_of_context=0)
_BOTH = SplitSizes(top=12, per_interval=0, random=10, out_of_context=0)
_HARVEST = HarvestSizes(
    excerpt_tokens=_TOKENS, centred=False, explain=_TOPS, select=_BOTH, calibrate=_BOTH, score=_BOTH
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bills2023:
    """5 top windows of 64 tokens explain a unit; 5 other top and 5 random ones are predicted, levels 0 to 10.

    Scored by the correlation of expected and real activations pooled over the 640 tokens (top and random; each also
    alone), and by the variance and the absolute deviation explained after calibration on 5 + 5 windows of the calibrate
    split. Sizes are those of Cunningham et al. 2023, who ported the code. Where it differs from that code: documents,
    not ranks, are dealt out to the splits; tokens that fire carry their level in the one copy of the text, instead of
    being listed once more; an answer that cannot be read is missing, where the code takes zeros; models that give
    log-probabilities predict digits, so their highest level is 9.
    """

    name: str = "bills-2023"
    """What configurations and tables call it."""
    question: Question = "levels-10"
    """A level per token, 0 to 10."""
    recomputes: bool = False
    """All is in the harvest."""
    top_level: int = 10
    """Highest level: the maximum alone."""
    of_each: int = 5
    """Windows that explain; top windows, and as many random ones, that are predicted."""
    harvest: HarvestSizes = _HARVEST
    """Twice the top windows, since every second is taken, and some to spare."""
    seed: int = 0
    """Of the order of a trial's windows and of the resamples behind intervals."""

    def evidence(self, record: UnitRecord) -> Evidence | Failure:
        """What the explainer sees of the unit: top windows of explain documents only, and no logits.

        A `Failure` (``dead``, ``too_few_excerpts``) where the unit never fires in them or has too few.
        """
        if not record.statistics["explain"].fired:
            return Failure("evidence", "dead", "The unit never fires in the explain documents.")
        dealt = deal(record.excerpts_of(_TOKENS, "explain"), self.of_each)
        chosen = [each for each in dealt if each.group == "top"]
        if len(chosen) < self.of_each:
            message = f"{len(chosen)} top windows of {_TOKENS} tokens; {self.of_each} are needed."
            return Failure("evidence", "too_few_excerpts", message)
        shown = [
            EvidenceExcerpt(
                each.tokens,
                tuple(notation.quantise(np.array(each.activations), record.maximum, self.top_level).tolist()),
                "top",
            )
            for each in chosen
        ]
        return Evidence(excerpts=tuple(shown), promoted=(), suppressed=(), top_level=self.top_level)

    def scorer(self, split: Split = "score") -> TopAndRandomScorer:
        """Poses and scores the top and the random windows."""
        return TopAndRandomScorer(
            tokens=_TOKENS, of_each=self.of_each, top_level=self.top_level, seed=self.seed, split=split
        )
