"""Detection and fuzzing of Paulo et al. 2025, "Automatically interpreting millions of features"."""

from dataclasses import dataclass

from autointerp.activations.plan import HarvestSizes, SplitSizes
from autointerp.protocols.monosemanticity_2023 import Monosemanticity2023
from autointerp.records.explanation import Evidence, Failure
from autointerp.records.trial import Question
from autointerp.records.unit import Split, UnitRecord
from autointerp.scorers.contexts import DetectionScorer, FuzzingScorer

_TOKENS = 32
_EXPLAINED = Monosemanticity2023()
"""The evidence is the same, so that one explanation serves all: it is paid for once, and scores of one text compare."""
_DETECTION = SplitSizes(top=1, per_interval=4, random=20, out_of_context=30)
_FUZZING = SplitSizes(top=1, per_interval=4, random=0, out_of_context=0)


def _beside_evidence(kept: SplitSizes) -> HarvestSizes:
    """The harvest of the evidence, and wider contexts: those that are asked, and of the explain split those on which
    the answers that need no explanation are fitted."""
    wide = HarvestSizes(
        excerpt_tokens=_TOKENS, centred=False, once_per_window=False, explain=kept, select=kept, score=kept
    )
    return HarvestSizes.union([_EXPLAINED.harvest, wide])


_DETECTION_HARVEST, _FUZZING_HARVEST = _beside_evidence(_DETECTION), _beside_evidence(_FUZZING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection2025:
    """Which of 60 contexts of 32 tokens does the unit fire in? 24 positives, 18 random contexts, 18 hard negatives.

    Where it differs from the published version: that explains from 40 contexts of 32 tokens sampled by quantile, this
    from the 49 excerpts of 9 tokens of `monosemanticity-2023`; that asks of 100 contexts in which the unit fires, 10 of
    each decile of its activations, and of 100 others, this of 2 of each of 12 equal intervals and of 36 others; that
    puts 5 in a call, this 10; that takes for negative what was not found to fire and has no hard negatives. Contexts
    are as long. Here judges answer how certain they are, and yes begins at one half.
    """

    name: str = "detection"
    """What configurations and tables call it."""
    question: Question = "detection"
    """Whether the unit fires on any token."""
    recomputes: bool = False
    """All is in the harvest."""
    harvest: HarvestSizes = _DETECTION_HARVEST
    """The evidence's excerpts of 9 tokens, and contexts."""
    seed: int = 0
    """Of the order of a trial's items and of the resamples behind intervals."""

    def evidence(self, record: UnitRecord) -> Evidence | Failure:
        """What `monosemanticity-2023` shows."""
        return _EXPLAINED.evidence(record)

    def scorer(self, split: Split = "score") -> DetectionScorer:
        """Poses and scores the contexts."""
        return DetectionScorer(tokens=_TOKENS, seed=self.seed, split=split)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzing2025:
    """Are the marked tokens of 48 contexts of 32 tokens those on which the unit fires? 24 true, 24 false.

    Where it differs from the published version: evidence, items per call and answers as under `detection`; that asks
    of 100 + 100 contexts, this of 2 + 2 of each of 12 equal intervals of the activation; false marks lie in contexts in
    which the unit fires, as many as in truth, so that only their places can tell.
    """

    name: str = "fuzzing"
    """What configurations and tables call it."""
    question: Question = "fuzzing"
    """Whether the marked tokens are those on which it fires."""
    recomputes: bool = False
    """All is in the harvest."""
    harvest: HarvestSizes = _FUZZING_HARVEST
    """The evidence's excerpts of 9 tokens, and contexts."""
    seed: int = 0
    """Of the marks, the order of a trial's items and the resamples behind intervals."""

    def evidence(self, record: UnitRecord) -> Evidence | Failure:
        """What `monosemanticity-2023` shows."""
        return _EXPLAINED.evidence(record)

    def scorer(self, split: Split = "score") -> FuzzingScorer:
        """Poses and scores the contexts."""
        return FuzzingScorer(tokens=_TOKENS, seed=self.seed, split=split)
