"""Simulation scoring: how well activations predicted from the words alone correlate with the real ones."""

import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from autointerp import notation, statistics
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Influence, Item, Measure, Prediction, Score, Trial, Undefined
from autointerp.records.unit import N_INTERVALS, Excerpt, Group, Split, UnitRecord
from autointerp.scorers.resamples import NOT_GIVEN, influence_of
from autointerp.seams import Source

HEADLINE = "spearman"
"""The measure that is reported first."""
MEASURES = (
    HEADLINE,
    "pearson",
    "spearman_weighted",
    "unigram_spearman",
    "unigram_pearson",
    "bigram_spearman",
    "bigram_pearson",
    "anchor_spearman",
    "anchor_pearson",
    "quantised_oracle_spearman",
    *(f"spearman_interval_{interval}" for interval in range(1, N_INTERVALS + 1)),
)
"""Every measure of a score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSizes:
    """How many excerpts of each group."""

    top: int
    """Of the highest activations."""
    per_interval: int
    """Of each of the 12 activation intervals."""
    random: int
    """Uniformly random."""
    out_of_context: int
    """Top tokens elsewhere, whatever the activation there."""

    @property
    def total(self) -> int:
        """Excerpts in all."""
        return self.top + N_INTERVALS * self.per_interval + self.random + self.out_of_context

    def strata(self) -> Iterator[tuple[Group, int, int]]:
        """Group, interval (0 but for intervals, highest first) and how many, in the order in which they are shown."""
        yield "top", 0, self.top
        for interval in range(N_INTERVALS, 0, -1):
            yield "interval", interval, self.per_interval
        yield "random", 0, self.random
        yield "out_of_context", 0, self.out_of_context


def choose(excerpts: Sequence[Excerpt], sizes: GroupSizes) -> list[Excerpt]:
    """The first excerpts of each stratum, in their order, stratum by stratum.

    One whose token ids equal those of an earlier choice is passed over for the next of its stratum. A stratum that
    runs out stays short; no other fills its place.
    """
    candidates: defaultdict[tuple[Group, int], list[Excerpt]] = defaultdict(list)
    for excerpt in excerpts:
        candidates[excerpt.group, excerpt.interval if excerpt.group == "interval" else 0].append(excerpt)
    chosen: dict[tuple[int, ...], Excerpt] = {}
    for group, interval, size in sizes.strata():
        full = len(chosen) + size
        for excerpt in candidates[group, interval]:
            if len(chosen) == full:
                break
            chosen.setdefault(excerpt.ids, excerpt)
    return list(chosen.values())


def importance(record: UnitRecord, excerpt: Excerpt) -> float:
    """Weight of the excerpt's tokens in the paper's importance-weighted Spearman correlation.

    1 for random excerpts; density times the interval's share of firing positions for intervals; for tokens out of
    context the weight of the top interval. The paper names no weight for the top excerpts themselves; the top
    interval's is taken, and the twelfth is taken for the top interval. Positions of the explain and score splits are
    counted, whatever else the harvest holds, so that no interval with an excerpt of theirs weighs 0. Source: Bricken
    et al. 2023, appendix on automated interpretability.
    """
    if excerpt.group == "random":
        return 1.0
    interval = excerpt.interval if excerpt.group == "interval" else N_INTERVALS
    splits = [record.statistics[split] for split in ("explain", "score")]
    # density * share = fired / tokens * count / fired
    return sum(split.interval_counts[interval - 1] for split in splits) / sum(split.tokens for split in splits)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationScorer:
    """Poses excerpts of score documents and correlates predicted with real activations over all their tokens.

    Truth is raw. Items without a prediction are left out and counted. Items of one document cluster are resampled
    together; an interval from -1 to 1 says that there were too few to know.
    """

    sizes: GroupSizes
    """Items of each group."""
    top_level: int
    """Highest level that a simulator predicts."""
    fewest: int = 20
    """Excerpts below which there is no trial."""
    answered: float = 0.9
    """Share of items that must have a prediction for any measure to be defined."""
    seed: int = 0
    """Of the items' order and of the resamples."""
    split: Split = "score"
    """Whose excerpts are posed."""
    headline: str = HEADLINE
    """The measure that is reported first, and by which the best of several explanations is chosen."""

    def pose(self, record: UnitRecord, explanation: Explanation, source: Source) -> Trial | Failure:  # noqa: ARG002
        """A trial from the record's excerpts of the split, in an order of the unit's own.

        A `Failure` (``silent_in_score``, ``too_few_excerpts``) where the unit never fires there or has too few.
        """
        if not record.statistics[self.split].fired:
            message = f"The unit never fires in the {self.split} documents."
            return Failure("pose", f"silent_in_{self.split}", message)
        chosen = choose(record.excerpts[self.split], self.sizes)
        if len(chosen) < self.fewest:
            message = f"{len(chosen)} {self.split} excerpts; {self.fewest} are needed."
            return Failure("pose", "too_few_excerpts", message)
        rng = np.random.default_rng([self.seed, zlib.crc32(record.unit.arm.encode()), record.unit.index])
        chosen = [chosen[i] for i in rng.permutation(len(chosen))]
        return Trial(
            items=tuple(Item(excerpt.tokens) for excerpt in chosen),
            ids=np.array([excerpt.ids for excerpt in chosen], dtype=np.int32),
            truth=np.array([excerpt.activations for excerpt in chosen], dtype=np.float64),
            unigram=np.array([[record.token_means.get(id_, 0.0) for id_ in excerpt.ids] for excerpt in chosen]),
            weights=np.array([importance(record, excerpt) for excerpt in chosen]),
            clusters=np.array([excerpt.cluster for excerpt in chosen], dtype=np.int32),
            groups=tuple(excerpt.group for excerpt in chosen),
            intervals=np.array([e.interval if e.group == "interval" else 0 for e in chosen], dtype=np.int32),
            maximum=record.maximum,
            top_level=self.top_level,
            bigram=np.array([excerpt.bigram for excerpt in chosen]) if all(e.bigram for e in chosen) else None,
            anchors=np.array([excerpt.anchor for excerpt in chosen], dtype=np.int32),
        )

    def score(self, trial: Trial, predictions: Sequence[Prediction | Failure]) -> Score:
        """Every measure of `MEASURES`; all `Undefined` where too few items have a prediction."""
        given = [p.levels for p in predictions if isinstance(p, Prediction)]
        kept = np.array([isinstance(p, Prediction) for _, p in zip(trial.items, predictions, strict=True)])
        predicted = np.array(given, dtype=np.float64)
        measures: Mapping[str, Measure | Undefined]
        influence = None
        if len(given) < self.answered * len(kept):
            reason = Undefined(f"incomplete: {len(given)} of {len(kept)} items have a prediction")
            measures = dict.fromkeys(MEASURES, reason)
        else:
            measures = _measures(trial, kept, predicted, np.random.default_rng(self.seed))
            influence = _influence(trial, kept, predicted)
        constant = bool(given) and bool(predicted.min() == predicted.max())
        return Score(measures, self.headline, len(kept), len(kept) - len(given), constant, influence)


def _measures(
    trial: Trial, kept: np.ndarray, predicted: Float[np.ndarray, "answered token"], rng: np.random.Generator
) -> dict[str, Measure | Undefined]:
    truth, unigram, intervals = trial.truth[kept], trial.unigram[kept], trial.intervals[kept]
    weights = np.broadcast_to(trial.weights[kept, None], truth.shape)
    oracle = notation.quantise(truth, trial.maximum, trial.top_level).astype(np.float64)
    is_random = np.array(trial.groups)[kept] == "random"
    draws = statistics.draw_clusters(trial.clusters[kept], rng)
    truth_ranks = statistics.ranks(truth)
    bigram = None if trial.bigram is None else trial.bigram[kept]
    at_anchor = None if trial.anchors is None else np.eye(truth.shape[1])[trial.anchors[kept]]

    def reference(prediction: np.ndarray | None, *, ranked: bool) -> Measure | Undefined:
        if prediction is None:
            return NOT_GIVEN
        if not ranked:
            return _pearson(truth, prediction, draws)
        return _pearson(truth_ranks, statistics.ranks(prediction), draws)

    measures = {
        "spearman": _pearson(truth_ranks, statistics.ranks(predicted), draws),
        "pearson": _pearson(truth, predicted, draws),
        "spearman_weighted": _spearman(truth, predicted, draws, weights),
        "unigram_spearman": reference(unigram, ranked=True),
        "unigram_pearson": reference(unigram, ranked=False),
        "bigram_spearman": reference(bigram, ranked=True),
        "bigram_pearson": reference(bigram, ranked=False),
        "anchor_spearman": reference(at_anchor, ranked=True),
        "anchor_pearson": reference(at_anchor, ranked=False),
        "quantised_oracle_spearman": reference(oracle, ranked=True),
    }
    for interval in range(1, N_INTERVALS + 1):
        drawn_for = intervals == interval
        chosen = drawn_for | is_random
        measures[f"spearman_interval_{interval}"] = (
            _spearman(truth[chosen], predicted[chosen], draws.at(chosen))
            if drawn_for.any()
            else Undefined("no item of this interval")
        )
    return measures


def _influence(trial: Trial, kept: np.ndarray, predicted: Float[np.ndarray, "answered token"]) -> Influence:
    """Of the measures that arms are compared by, and of the floor that the lift is taken from."""
    truth, unigram = trial.truth[kept], trial.unigram[kept]
    by_item = {
        "spearman": statistics.spearman_influence(truth, predicted),
        "pearson": statistics.pearson_influence(truth, predicted),
        "unigram_spearman": statistics.spearman_influence(truth, unigram),
    }
    return influence_of(trial.clusters[kept], {name: each.sum(1) for name, each in by_item.items()})


def _spearman(
    truth: np.ndarray, prediction: np.ndarray, draws: statistics.ClusterDraws, weights: np.ndarray | None = None
) -> Measure | Undefined:
    return _pearson(statistics.ranks(truth, weights), statistics.ranks(prediction, weights), draws, weights)


def _pearson(
    truth: np.ndarray, prediction: np.ndarray, draws: statistics.ClusterDraws, weights: np.ndarray | None = None
) -> Measure | Undefined:
    found = statistics.pearson_with_interval(truth, prediction, draws, weights)
    if found is None:
        return Undefined("the truth is constant")
    value, interval = found
    return Measure(value, interval.low, interval.high)
