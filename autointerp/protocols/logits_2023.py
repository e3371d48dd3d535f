"""The logit-weight test of Bricken et al. 2023, "Towards Monosemanticity"."""

from dataclasses import dataclass, replace

from autointerp.activations.plan import HarvestSizes
from autointerp.protocols.monosemanticity_2023 import Monosemanticity2023
from autointerp.records.explanation import Evidence, Failure
from autointerp.records.trial import Question
from autointerp.records.unit import Split, UnitRecord
from autointerp.scorers.logits import LogitScorer

_EXPLAINED = Monosemanticity2023()
_HARVEST = replace(_EXPLAINED.harvest, logit_tokens=50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logits2023:
    """50 promoted tokens of rank 11 to 60 against 50 random ones, from the explanation of `monosemanticity-2023`.

    The ten highest are left out, since the explainer has seen them. 50 more tokens as frequent as the promoted ones
    are asked among them, for a second accuracy that frequency alone cannot raise. Where it differs from the published
    version: that asks of ranks 10 to 60 and has no matched tokens, and yes or no, where this asks how certain it is and
    takes yes from one half, 25 tokens in a call. `unigram`, which says yes to tokens on which the unit fires at a tenth
    of its maximum, is fitted to nothing: no token outside the test is known to be promoted or not, so the lift over it
    says little.
    """

    name: str = "logits-2023"
    """What configurations and tables call it."""
    question: Question = "logits"
    """Whether the unit makes a token likelier to come next."""
    recomputes: bool = False
    """All is in the harvest."""
    harvest: HarvestSizes = _HARVEST
    """The evidence's excerpts, and 50 tokens of each kind."""
    seed: int = 0
    """Of the order of a trial's items and of the resamples behind intervals."""

    def evidence(self, record: UnitRecord) -> Evidence | Failure:
        """What `monosemanticity-2023` shows."""
        return _EXPLAINED.evidence(record)

    def scorer(self, split: Split = "score") -> LogitScorer:
        """Poses and scores the tokens, none of which is held out to choose explanations by."""
        return LogitScorer(seed=self.seed, split=split)
