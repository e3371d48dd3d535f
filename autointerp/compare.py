"""What the scores of the arms come to, and how the features differ from each baseline."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autointerp.contrast import RESAMPLES, Contrast, contrast
from autointerp.counted import SEEN, Counted, counted_prefix
from autointerp.inference import average, benjamini_hochberg
from autointerp.power import spread
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.outcome import ArmInfo, Outcome
from autointerp.records.trial import Measure, Score, Undefined
from autointerp.statistics import Estimate, bootstrap_interval
from autointerp.tokens import TokenSplit, token_split
from sae.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class Funnel:
    """Where an arm's units ended; `counted` is `scored` + `undefined` + all of `failed`."""

    asked: int
    """Units that were to be evaluated."""
    counted: int
    """Units in the counted prefix of the admission order."""
    failed: Mapping[str, int]
    """Counted units without a score, by the kind of their failure, the most frequent first."""
    undefined: int
    """Counted units whose headline measure is undefined."""
    why: str | None
    """The most frequent reason for that; None where there are none."""
    scored: int
    """Counted units with a headline measure."""


@dataclass(frozen=True, slots=True)
class Averages:
    """One measure over an arm's units."""

    n: int
    """Units where the measure is defined."""
    median: Estimate | Undefined
    """With its 95 % bootstrap interval."""
    mean: Estimate | Undefined
    """The same for the mean."""
    sd: float | Undefined
    """Standard deviation over units."""


@dataclass(frozen=True, slots=True)
class IntervalMean:
    """The headline measure within one activation interval."""

    n: int
    """Units where it is defined."""
    mean: Estimate | Undefined
    """Over units, with its 95 % bootstrap interval."""


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """What one arm comes to."""

    info: ArmInfo
    """Which arm."""
    funnel: Funnel
    """Where its units ended."""
    measures: Mapping[str, Averages]
    """By name, the headline and its lift over `unigram` included."""
    intervals: tuple[IntervalMean, ...]
    """Activation interval 1 (weakest) to 12."""
    constant_share: float | Undefined
    """Share of the scored units whose predictions were all the same number, 0 to 1."""
    missing_share: float | Undefined
    """Share of all items asked whose prediction failed, 0 to 1."""
    above_levels: int | None
    """Scored units above what the truth in whole levels scores, as fractional predictions can be; None where that is
    not known."""
    lower_bound: float | Undefined | None
    """Mean over the units of the lower ends of the headline's own intervals, where these allow for false predictions
    that none of the draws has met and the arm's interval does not; None under other protocols."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A whole run in numbers."""

    reference: str
    """Label of the arm that the baselines are taken from."""
    headline: str
    """Measure that the protocol reports first."""
    explainers: tuple[str, ...]
    """Who wrote the counted explanations."""
    seed: int
    """Of every bootstrap."""
    arms: tuple[ArmSummary, ...]
    """Per arm, in the order given."""
    contrasts: tuple[Contrast, ...]
    """Per baseline, in the same order."""
    tokens: tuple[TokenSplit, ...] = ()
    """Per arm, single-token and multi-token units apart."""


def compare(outcomes: Sequence[Outcome], arms: Sequence[ArmInfo], reference: str, seed: int) -> Comparison:
    """Summaries of every arm, and the arm `reference` against every other, over the counted prefix of `outcomes`.

    `seed` is >= 0. Raises `UserError` where no arm is called `reference`.
    """
    if reference not in (labels := [arm.label for arm in arms]):
        raise UserError(f"There is no arm {reference!r}.", do=nearest(reference, labels))
    counted = counted_prefix(outcomes)
    headline = next((outcome.result.headline for outcome in counted if isinstance(outcome.result, Score)), "spearman")
    table = Counted(counted, headline, seed)
    return Comparison(
        reference,
        headline,
        tuple(sorted(_explainers(counted))),
        seed,
        tuple(_summary(table, arm) for arm in arms),
        _adjusted([contrast(table, reference, arm) for arm in arms if arm.label != reference]),
        tuple(token_split(table, reference, arm) for arm in arms),
    )


def has_intervals(comparison: Comparison) -> bool:
    """Whether the protocol scores any unit by activation interval."""
    return any(each.n for arm in comparison.arms for each in arm.intervals)


def _explainers(outcomes: Sequence[Outcome]) -> set[str]:
    """Who wrote the explanations; the fixed ones of controls are nobody's."""
    said = (each.explanation for each in outcomes)
    return {each.explainer for each in said if isinstance(each, Explanation) and ":" not in each.explainer}


def _summary(table: Counted, info: ArmInfo) -> ArmSummary:
    outcomes = table.arms.get(info.label, [])
    scores = [each.result for each in outcomes if isinstance(each.result, Score)]
    return ArmSummary(
        info,
        _funnel(table, info),
        {measure: _averages(table, info.label, measure) for measure in table.main},
        tuple(_interval_mean(table, info.label, name) for name in table.intervals),
        _share(sum(score.constant for score in scores), len(scores), "no unit was scored"),
        _share(sum(score.missing for score in scores), sum(score.items for score in scores), "no item was asked"),
        _above_levels(table, outcomes),
        _lower_bound(table, scores),
    )


def _above_levels(table: Counted, outcomes: Sequence[Outcome]) -> int | None:
    oracle = f"quantised_oracle_{table.headline}"
    if oracle not in table.main:
        return None
    pairs = [(table.value(each, table.headline), table.value(each, oracle)) for each in outcomes]
    return sum(own is not None and levels is not None and own > levels for own, levels in pairs)


def _lower_bound(table: Counted, scores: Sequence[Score]) -> float | Undefined | None:
    if SEEN.format(table.headline) not in table.main:
        return None
    found = (score.measures[table.headline] for score in scores)
    lows = [each.low for each in found if isinstance(each, Measure)]
    return float(np.mean(lows)) if lows else Undefined("no unit was scored")


def _funnel(table: Counted, info: ArmInfo) -> Funnel:
    outcomes = table.arms.get(info.label, [])
    failed = Counter(each.result.kind for each in outcomes if isinstance(each.result, Failure))
    scored = len(table.values(info.label, table.headline))
    undefined = len(outcomes) - failed.total() - scored
    headlines = (each.result.measures[table.headline] for each in outcomes if isinstance(each.result, Score))
    reasons = Counter(each.reason for each in headlines if isinstance(each, Undefined))
    why = next((reason for reason, _ in reasons.most_common(1)), None)
    return Funnel(info.n_units, len(outcomes), dict(failed.most_common()), undefined, why, scored)


def _averages(table: Counted, arm: str, measure: str) -> Averages:
    sample = table.sample(arm, measure)
    found = average(sample, ("median", "mean"), table.rng(arm, measure), RESAMPLES)
    scatter = spread(sample.values.tolist())
    few = Undefined(f"{len(sample)} units do not show how the measure scatters")
    return Averages(len(sample), found["median"], found["mean"], few if scatter is None else scatter)


def _interval_mean(table: Counted, arm: str, measure: str) -> IntervalMean:
    values = table.values(arm, measure)
    return IntervalMean(len(values), bootstrap_interval(values, "mean", table.rng(arm, measure, "mean"), RESAMPLES))


def _share(part: int, whole: int, reason: str) -> float | Undefined:
    return part / whole if whole else Undefined(reason)


def adjusted(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """The comparisons, by protocol, with every contrast's `q` over the family of its like under all protocols."""
    family = iter(_adjusted([contrast for each in comparisons.values() for contrast in each.contrasts]))
    return {
        name: replace(each, contrasts=tuple(next(family) for _ in each.contrasts)) for name, each in comparisons.items()
    }


def _adjusted(contrasts: Sequence[Contrast]) -> tuple[Contrast, ...]:
    """The contrasts with `q`: those with other dictionaries are one family, those with controls another."""
    out = list(contrasts)
    for paired in (False, True):
        p = {i: each.p for i, each in enumerate(out) if each.paired is paired and not isinstance(each.p, Undefined)}
        q = benjamini_hochberg(np.array(list(p.values()), dtype=np.float64)).tolist()
        for i, each in zip(p, q, strict=True):
            out[i] = replace(out[i], q=each)
    return tuple(out)
