"""Detection and fuzzing: does a context fire at all, and are these the tokens on which it fires?

Sources: Paulo, Mallen, Juang and Belrose, "Automatically interpreting millions of features in large language models"
(arXiv 2410.13928), and what its critics found: truth comes from activations, never from how an item was drawn (P10).
"""

import zlib
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Prediction, Score, Trial
from autointerp.records.unit import N_INTERVALS, Excerpt, Split, UnitRecord
from autointerp.scorers.yes_no import Asked, firing, score_trial, silent_or_few, trial_of
from autointerp.seams import Source

FEWEST = 20
"""Items below which there is no trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextScorer(ABC):
    """Asks yes-or-no questions of contexts; the token tables' cut is learnt on contexts of the explain split."""

    tokens: int
    """Tokens of a context."""
    per_interval: int = 2
    """Contexts drawn for each of the 12 activation intervals: positives, or true items and as many false ones."""
    answered: float = 0.9
    """Share of items that must have an answer for any measure to be defined."""
    seed: int = 0
    """Of the items' order, of false marks and of the resamples."""
    split: Split = "score"
    """Whose contexts are asked."""

    def pose(self, record: UnitRecord, explanation: Explanation, source: Source) -> Trial | Failure:  # noqa: ARG002
        """A trial from the record's contexts; a `Failure` (``silent_in_score``, ``too_few_excerpts``) if it has few."""
        if silent := silent_or_few(record, self.split):
            return silent
        asked = self._asked(record, self.split)
        if len(asked) < FEWEST:
            return Failure("pose", "too_few_excerpts", f"{len(asked)} {self.split} contexts; {FEWEST} are needed.")
        return trial_of(record, asked, self._asked(record, "explain"), self.seed)

    def score(self, trial: Trial, predictions: Sequence[Prediction | Failure]) -> Score:
        """Every measure of `yes_no.MEASURES`."""
        return score_trial(trial, predictions, self.answered, self.seed)

    @abstractmethod
    def _asked(self, record: UnitRecord, split: Split) -> list[Asked]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionScorer(ContextScorer):
    """Asks of whole contexts whether the unit fires anywhere in them.

    Positives are drawn for tokens of each activation interval. Negatives are uniformly random contexts, and hard ones:
    occurrences of the unit's own top tokens in contexts where it stays silent. These share with the positives the very
    tokens that any search for nearest contexts would rank first, and their truth is known without running the subject
    again. Whatever it was drawn for, an item is positive where the unit fires in it; a top token's context in which it
    fires is no hard negative and is passed over. Strata that run out stay short.

    In `auprc` every item counts for the contexts that it stands for, one around each token of the split, so that
    precision is that of running text: firing tokens by interval and silent ones are strata of known size, of which
    tokens are drawn uniformly. It is approximate in that a context whose tokens occur more than once is asked once and
    counts once, and that tokens of windows too short for a context are counted though none is drawn. Hard negatives
    count for nothing there, since nobody knows how many they stand for.
    """

    random: int = 18
    """Uniformly random contexts."""
    hard: int = 18
    """Hard negatives, at most."""

    def _asked(self, record: UnitRecord, split: Split) -> list[Asked]:
        chosen = candidates(record, self.tokens, split)
        drawn = by_interval(chosen, self.per_interval)
        drawn += [each for each in chosen if each.group == "random"][: self.random]
        in_stratum = Counter(each.interval for each in drawn)
        statistics = record.statistics[split]
        sizes = (statistics.tokens - statistics.fired, *statistics.interval_counts)
        asked = [
            Asked(each, bool(firing(record, each).any()), each.group, sizes[each.interval] / in_stratum[each.interval])
            for each in drawn
        ]
        silent_tops = [e for e in chosen if e.group == "out_of_context" and not firing(record, e).any()]
        return asked + [Asked(each, positive=False, group="hard", weight=0.0) for each in silent_tops[: self.hard]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FuzzingScorer(ContextScorer):
    """Asks of contexts in which the unit fires, with tokens marked, whether the marks are right.

    In a true item all tokens are marked on which it fires; in a false one as many others, drawn by the seed, so that
    neither the context nor the number of marks tells. A context with fewer silent than firing tokens could not be
    marked wrongly, so none is asked of either kind. Each is asked once, the first of an interval as a true item, the
    next as a false one, and so on. In `auprc` true and false items weigh as much, and within either those of an
    interval as many firing tokens as the split has there: not a density of running text, in which nothing is marked.
    """

    def _asked(self, record: UnitRecord, split: Split) -> list[Asked]:
        able = (e for e in candidates(record, self.tokens, split) if 2 * firing(record, e).sum() <= len(e.ids))
        chosen = [each for each in able if each.group == "interval"]
        rng = np.random.default_rng([self.seed, record.unit.index, zlib.crc32(split.encode())])
        counts = record.statistics[split].interval_counts
        asked: list[Asked] = []
        for interval in range(N_INTERVALS, 0, -1):
            here = [each for each in chosen if each.interval == interval]
            sides = (here[: 2 * self.per_interval : 2], here[1 : 2 * self.per_interval : 2])
            for is_true, side in zip((True, False), sides, strict=True):
                weight = counts[interval - 1] / max(len(side), 1)
                asked += [
                    Asked(each, is_true, "interval", weight, marks(record, each, rng, is_true=is_true)) for each in side
                ]
        return _even(asked)


def candidates(record: UnitRecord, tokens: int, split: Split) -> list[Excerpt]:
    """The contexts that may be asked, those of intervals first, the highest first; of those with the same tokens, one.

    Top contexts are none: which token they were drawn for depends on rank. A highest activation is asked as any other
    of its interval, so it must not be passed over for having been a top context too.
    """
    drawn = [each for each in record.excerpts_of(tokens, split) if each.group != "top"]
    drawn.sort(key=lambda each: -each.interval if each.group == "interval" else 0)
    first: dict[tuple[int, ...], Excerpt] = {}
    for each in drawn:
        first.setdefault(each.ids, each)
    return list(first.values())


def by_interval(excerpts: Sequence[Excerpt], n: int) -> list[Excerpt]:
    """The first `n` that were drawn for each interval."""
    taken: defaultdict[int, list[Excerpt]] = defaultdict(list)
    for each in excerpts:
        if each.group == "interval" and len(taken[each.interval]) < n:
            taken[each.interval].append(each)
    return [each for interval in sorted(taken, reverse=True) for each in taken[interval]]


def marks(record: UnitRecord, excerpt: Excerpt, rng: np.random.Generator, *, is_true: bool) -> tuple[int, ...]:
    """Places of the tokens that fire, or of as many others, of which there must be as many."""
    fires = firing(record, excerpt)
    right, others = np.flatnonzero(fires), np.flatnonzero(~fires)
    if is_true:
        return tuple(right.tolist())
    return tuple(np.sort(rng.choice(others, size=len(right), replace=False)).tolist())


def _even(asked: Sequence[Asked]) -> list[Asked]:
    """The items with the weights of the true and of the false ones adding up to the same."""
    totals = {side: sum(each.weight for each in asked if each.positive is side) for side in (True, False)}
    return [
        Asked(each.excerpt, each.positive, each.group, each.weight / (totals[each.positive] or 1.0), each.marked)
        for each in asked
    ]
