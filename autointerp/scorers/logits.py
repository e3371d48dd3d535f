"""The logit-weight test: which tokens does the unit make likelier to come next, told from its explanation alone?"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autointerp import notation, statistics
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Measure, Prediction, Score, Trial, Undefined
from autointerp.records.unit import Split, UnitRecord
from autointerp.scorers.resamples import influence_of, measured, with_own
from autointerp.scorers.yes_no import why_missing
from autointerp.seams import Source

HEADLINE = "accuracy"
"""The measure that is reported first: on promoted and random tokens, as published."""
MEASURES = (
    HEADLINE,
    "accuracy_matched",
    "recall",
    "specificity_random",
    "specificity_matched",
    f"unigram_{HEADLINE}",
    f"constant_{HEADLINE}",
    f"quantised_oracle_{HEADLINE}",
)
"""Every measure of a score; among them what the unit's table of tokens on which it fires, the same answer to
everything, and the truth reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitScorer:
    """Asks of tokens, one by one, whether the unit makes them likelier; chance is one half.

    Promoted tokens of rank 11 to 60 against as many random ones (`accuracy`), and against as many that are as frequent
    in the corpus (`accuracy_matched`). The output side is never averaged with scores of activations (P20).
    """

    answered: float = 0.9
    """Share of items that must have an answer for any measure to be defined."""
    seed: int = 0
    """Of the items' order and of the resamples."""
    split: Split = "score"
    """Tokens belong to no split: the scored ones are not asked for any other."""

    def pose(self, record: UnitRecord, explanation: Explanation, source: Source) -> Trial | Failure:  # noqa: ARG002
        """A trial of the unit's tokens.

        A `Failure` (``no_direct_path``, ``nothing_held_out``) where no logit weights are known, or where explanations
        would be chosen by the tokens that score them (P14).
        """
        if self.split != "score":
            return Failure("pose", "nothing_held_out", "All tokens of the logit-weight test are scored.")
        if record.logit_test is None:
            return Failure("pose", "no_direct_path", "The site has no direct path to the logits.")
        asked = [(kind, id_, token) for kind, tokens in record.logit_test.items() for id_, token in tokens]
        rng = np.random.default_rng([self.seed, zlib.crc32(record.unit.arm.encode()), record.unit.index])
        asked = [asked[i] for i in rng.permutation(len(asked))]
        ids = np.array([id_ for _, id_, _ in asked], dtype=np.int32)
        levels = {id_: 10 * mean / (record.maximum or 1.0) for id_, mean in record.token_means.items()}
        return Trial(
            items=tuple(Item((token,)) for _, _, token in asked),
            ids=ids[:, None],
            truth=np.array([[float(kind == "promoted")] for kind, _, _ in asked]),
            unigram=np.array([[notation.certainty(levels.get(id_, 0.0))] for _, id_, _ in asked]),
            weights=np.ones(len(asked)),
            clusters=ids,  # units that share tokens err together
            groups=tuple(kind for kind, _, _ in asked),
            intervals=np.zeros(len(asked), dtype=np.int32),
            maximum=1.0,
            top_level=1,
        )

    def score(self, trial: Trial, predictions: Sequence[Prediction | Failure]) -> Score:
        """Every measure of `MEASURES`; all `Undefined` where too few tokens have an answer."""
        kept = np.array([isinstance(p, Prediction) for _, p in zip(trial.items, predictions, strict=True)])
        certain = np.array([p.levels[0] for p in predictions if isinstance(p, Prediction)], dtype=np.float64)
        constant = bool(len(certain)) and bool(certain.min() == certain.max())
        missing = int((~kept).sum())
        if len(certain) < self.answered * len(kept):
            undefined: dict[str, Measure | Undefined] = dict.fromkeys(MEASURES, Undefined(why_missing(predictions)))
            return Score(undefined, HEADLINE, len(kept), missing, constant)
        groups = np.array(trial.groups)[kept]
        promoted = trial.truth[kept, 0] > 0.5
        right = (certain >= 0.5) == promoted
        by_table = (trial.unigram[kept, 0] >= 0.5) == promoted
        draws = statistics.draw_clusters(trial.clusters[kept], np.random.default_rng(self.seed))
        times = with_own(draws)

        def rate(*of: str, right: np.ndarray = right) -> Measure | Undefined:
            chosen = np.isin(groups, of)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = (times @ (right & chosen)) / (times @ chosen)
            return measured(values, draws, 0.0, "no such token has an answer")

        measures: Mapping[str, Measure | Undefined] = {
            HEADLINE: rate("promoted", "random"),
            "accuracy_matched": rate("promoted", "matched"),
            "recall": rate("promoted"),
            "specificity_random": rate("random"),
            "specificity_matched": rate("matched"),
            f"unigram_{HEADLINE}": rate("promoted", "random", right=by_table),
            f"constant_{HEADLINE}": rate("promoted", "random", right=promoted),
            f"quantised_oracle_{HEADLINE}": rate("promoted", "random", right=np.ones_like(promoted)),
        }
        chosen = np.isin(groups, ("promoted", "random"))
        changes = {
            name: np.where(chosen, (each - each[chosen].mean()) / chosen.sum(), 0.0) if chosen.any() else 0.0 * chosen
            for name, each in ((HEADLINE, right), (f"unigram_{HEADLINE}", by_table))
        }
        influence = influence_of(trial.clusters[kept], changes)
        return Score(measures, HEADLINE, len(kept), missing, constant, influence)
