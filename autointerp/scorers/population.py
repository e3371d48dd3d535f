"""The whole score split's Pearson correlation and average precision, estimated from few simulated excerpts.

Only the excerpts' anchors enter the estimate; the tokens around give context. Firing anchors come from the harvest's
sample, in strata by activation, the highest of them taken whole. In search of false predictions, anchors are drawn from
a proposal that knows the explanation's words and the unit's tokens, and at random from all others; whether the unit
fires there is recomputed. Source of the idea to let a cheap model guide the sample: Oikarinen et al. 2026; of the
estimator: `autointerp.estimation`.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from autointerp import estimation, notation
from autointerp.proposal import TextIndex, propose
from autointerp.records.anchors import INTERVALS_PER_STRATUM, AnchorSample, FiringAnchors, Text, Totals
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Influence, Item, Measure, Prediction, Score, Trial, Undefined
from autointerp.records.unit import REFERENCES, UnitRecord
from autointerp.seams import Source

HEADLINE = "pearson"
"""The measure that is reported first."""
_ESTIMATORS: Mapping[str, estimation.Estimator] = {
    HEADLINE: estimation.pearson,
    "auprc": estimation.auprc,
    "f1": estimation.f1,
}
MEASURES = (
    *_ESTIMATORS,
    "pearson_seen",
    "quantised_oracle_pearson",
    *REFERENCES,
    "effective_sample",
)
"""Every measure of a score. Intervals hold the false predictions that may lie where none was drawn; that of
``pearson_seen``, otherwise the same as the headline, only such as were. What `unigram` and `bigram` reach is known over
the whole split, without sampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """How many anchors are drawn from which strata."""

    top: int = 8
    """Highest firing anchors of different windows: a stratum that is taken whole."""
    strata: int = 6
    """Strata of the other firing anchors: pairs of neighbouring activation intervals."""
    firing: int = 48
    """Firing anchors in all, at most."""
    silent: int = 72
    """Anchors drawn in search of false predictions, at most; those that fire are not simulated."""
    proposed: int = 5
    """Strata of tokens that the explanation or the unigram table makes likely."""
    uniform: float = 0.3
    """Share of the silent draws that are uniform over all anchors."""
    fewest: int = 4
    """Draws in every stratum that has as many."""


ALLOCATION = Allocation()
"""120 excerpts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationScorer:
    """Poses the drawn anchors with their excerpts, and estimates measures over every anchor of the score split."""

    allocation: Allocation = ALLOCATION
    """How many are drawn from where."""
    width: int = 9
    """Tokens of an excerpt."""
    top_level: int = 9
    """Highest level that a simulator predicts."""
    answered: float = 0.9
    """Share of items that must have a prediction for any measure to be defined."""
    seed: int = 0
    """Of the draws, the items' order and the resamples."""

    def pose(self, record: UnitRecord, explanation: Explanation, source: Source) -> Trial | Failure:
        """A trial from the score split, in an order of the unit's own.

        A `Failure` (``silent_in_score``, ``not_harvested``) where the unit never fires there, or its firing anchors
        are not known. Raises `Unavailable` where the source cannot recompute activations.
        """
        firing = record.firing
        if firing is None:
            return Failure("pose", "not_harvested", "The harvest kept no sample of firing anchors.")
        if not firing.counts.sum():
            return Failure("pose", "silent_in_score", "The unit never fires in the score documents.")
        words = f"{record.unit.arm} {record.unit.index} {explanation.text}"
        rng = np.random.default_rng([self.seed, zlib.crc32(words.encode())])
        index = _indexed(source.text("score"), self.width)
        parts, sizes, taken = _firing_draws(record, firing, index, self.allocation)
        unigram = np.zeros(len(index.count))
        if record.token_means:
            unigram[list(record.token_means)] = list(record.token_means.values())
        proposal = propose(
            explanation.text,
            unigram,
            index,
            int(firing.counts.sum()),
            strata=self.allocation.proposed,
            uniform=self.allocation.uniform,
        )
        wanted = estimation.allocate(proposal.sizes, proposal.measure, self.allocation.silent, self.allocation.fewest)
        silent = [proposal.draw(stratum, n, rng) for stratum, n in enumerate(wanted.tolist())]
        at = np.concatenate([*parts, *silent])
        stratum = np.repeat(np.arange(len(parts) + len(silent)), [len(part) for part in (*parts, *silent)])
        activations = _recomputed(record, source, index, at)
        truth = activations[np.arange(len(at)), index.position[at]]
        fires = truth > record.threshold
        kept = np.flatnonzero((stratum < len(parts)) | ~fires)
        kept = kept[rng.permutation(len(kept))]
        sample = AnchorSample(
            stratum=stratum[kept],
            cluster=index.text.cluster[index.window[at[kept]]],
            truth=truth[kept].astype(np.float64),
            fires=stratum[kept] < len(parts),
            size=np.array([*sizes, *proposal.sizes.tolist()], dtype=np.float64),
            taken=np.array([*taken, *wanted.tolist()], dtype=np.float64),
            totals=_totals(firing),
        )
        return self._trial(record, index, at[kept], activations[kept], unigram, sample)

    def _trial(
        self,
        record: UnitRecord,
        index: TextIndex,
        at: np.ndarray,
        activations: np.ndarray,
        unigram: np.ndarray,
        sample: AnchorSample,
    ) -> Trial:
        window, position = index.window[at], index.position[at]
        last = index.text.length[window] - self.width
        start = np.clip(position - self.width // 2, index.text.first, last)
        place = start[:, None] + np.arange(self.width)
        ids = index.text.tokens[window[:, None], place]
        vocabulary = index.text.vocabulary
        return Trial(
            items=tuple(Item(tuple(vocabulary[token] for token in row)) for row in ids.tolist()),
            ids=ids,
            truth=np.take_along_axis(activations, place, axis=1).astype(np.float64),
            unigram=unigram[ids],
            weights=estimation.base_weights(sample),
            clusters=sample.cluster.astype(np.int32),
            groups=tuple("firing" if fires else "silent" for fires in sample.fires.tolist()),
            intervals=np.zeros(len(at), dtype=np.int32),
            maximum=record.maximum,
            top_level=self.top_level,
            sample=sample,
            anchors=(position - start).astype(np.int32),
            references=record.references,
        )

    def score(self, trial: Trial, predictions: Sequence[Prediction | Failure]) -> Score:
        """Every measure of `MEASURES`; all `Undefined` where too few items have a prediction, or a stratum none."""
        if trial.sample is None or trial.anchors is None:
            raise ValueError("The trial was not posed by this scorer.")
        kept = np.array(
            [isinstance(p, Prediction) for _, p in zip(trial.items, predictions, strict=True)], dtype=np.bool_
        )
        given = [p.levels for p in predictions if isinstance(p, Prediction)]
        sample = estimation.answered(trial.sample, kept)
        measures: dict[str, Measure | Undefined]
        influence = None
        if len(given) < self.answered * len(kept):
            reason = Undefined(f"incomplete: {len(given)} of {len(kept)} items have a prediction")
            measures = dict.fromkeys(MEASURES, reason)
        elif len(estimation.unanswered(sample)):
            measures = dict.fromkeys(MEASURES, Undefined("incomplete: a stratum has no prediction"))
        else:
            predicted = np.array(given, dtype=np.float64)[np.arange(len(given)), trial.anchors[kept]]
            measures = self._measures(trial, sample, predicted)
            influence = _influence(sample, predicted)
        levels = {level for each in given for level in each}
        return Score(measures, HEADLINE, len(kept), len(kept) - len(given), len(levels) == 1, influence)

    def _measures(self, trial: Trial, sample: AnchorSample, predicted: np.ndarray) -> dict[str, Measure | Undefined]:
        rng = np.random.default_rng(self.seed)
        plain = estimation.rows(sample, rng)
        calibrated = estimation.calibrated(sample, plain)
        oracle = notation.quantise(sample.truth, trial.maximum, trial.top_level).astype(np.float64)
        measures: dict[str, Measure | Undefined] = {}
        for name, estimator in _ESTIMATORS.items():
            weights = calibrated if estimator is estimation.pearson else plain
            found = estimation.interval(sample, predicted, estimator, weights, rng, trial.top_level)
            measures[name] = Measure(found.value, found.low, found.high)
            if name == HEADLINE:
                measures["pearson_seen"] = Measure(found.value, found.low_seen, found.high)
        ceiling = estimation.interval(sample, oracle, estimation.pearson, calibrated, rng, trial.top_level)
        measures["quantised_oracle_pearson"] = Measure(ceiling.value, ceiling.low_seen, ceiling.high)
        for name in REFERENCES:
            known = trial.references.get(name)
            measures[name] = Undefined("not known of the unit") if known is None else Measure(known, known, known)
        effective = estimation.effective_size(estimation.base_weights(sample))
        measures["effective_sample"] = Measure(effective, effective, effective)
        return measures


def _influence(sample: AnchorSample, predicted: np.ndarray) -> Influence:
    """What the headline loses without each document cluster, about its mean."""
    clusters, weights = estimation.without_each(sample)
    whole = estimation.calibrated(sample, estimation.base_weights(sample)[None, :])
    without = estimation.pearson(sample, estimation.calibrated(sample, weights), predicted)
    changes = estimation.pearson(sample, whole, predicted)[0] - without
    return Influence(clusters.astype(np.int32), {HEADLINE: (changes - changes.mean()).astype(np.float16)})


@lru_cache(maxsize=2)
def _indexed(text: Text, width: int) -> TextIndex:
    return TextIndex(text, width)


def _firing_draws(
    record: UnitRecord, firing: FiringAnchors, index: TextIndex, allocation: Allocation
) -> tuple[list[np.ndarray], list[int], list[int]]:
    """Anchors drawn from each stratum, anchors in it, and draws taken: the top first, then by activation.

    The highest anchors of different windows are taken out of their strata, and out of the strata's samples.
    """
    tops = [each for each in record.excerpts["score"] if each.group == "top"][: allocation.top]
    highest = index.anchors_at(np.array([e.window for e in tops]), np.array([e.start + e.anchor for e in tops]))
    strata = len(firing.counts)
    held = np.bincount([(e.interval - 1) // INTERVALS_PER_STRATUM for e in tops], minlength=strata)
    drawn = index.anchors_at(firing.window, firing.position)
    others = ~np.isin(drawn, highest)
    sizes = firing.counts - held
    left = [drawn[others & (firing.stratum == h)] for h in range(strata)]
    able = np.minimum(sizes, [len(part) for part in left])
    measure = np.sqrt(np.maximum(firing.counts * firing.squares, 0.0))
    wanted = estimation.allocate(able, measure, allocation.firing - len(tops), allocation.fewest)
    parts = [highest, *(part[:n] for part, n in zip(left, wanted.tolist(), strict=True))]
    return parts, [len(tops), *sizes.tolist()], [len(tops), *wanted.tolist()]


def _recomputed(record: UnitRecord, source: Source, index: TextIndex, at: np.ndarray) -> np.ndarray:
    """Activations of the whole window of each anchor, of shape (anchor, position)."""
    rows, place = np.unique(index.text.row[index.window[at]], return_inverse=True)
    return source.activations(record.unit, rows.tolist())[place]


def _totals(firing: FiringAnchors) -> Totals:
    fired = int(firing.counts.sum()), float(firing.sums.sum()), float(firing.squares.sum())
    return Totals(firing.anchors, *fired, firing.silent_sum, firing.silent_square)
