"""What the scores of the arms come to, and how the features differ from each baseline."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autointerp.counted import Counted, counted_prefix
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.outcome import ArmInfo, Outcome
from autointerp.records.trial import Score, Undefined
from autointerp.statistics import (
    FEWEST,
    Bounds,
    Estimate,
    MannWhitney,
    bootstrap_difference,
    bootstrap_interval,
    difference_bounds,
    mann_whitney,
    probability_superior,
)
from sae.errors import UserError, nearest

_RESAMPLES = 1000
_FEWEST_MATCHED = 20
"""Units per arm below which a comparison at matched density is `Undefined`."""


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
    scored: int
    """Counted units with a headline measure."""


@dataclass(frozen=True, slots=True)
class Averages:
    """One measure over an arm's units."""

    n: int
    """Units where the measure is defined."""
    median: Estimate | Undefined
    """With its 95 % bootstrap interval over units."""
    mean: Estimate | Undefined
    """The same for the mean."""


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


@dataclass(frozen=True, slots=True)
class Support:
    """Densities that both arms have: a comparison at matched density keeps to them."""

    low: float
    """Lowest density in both arms, on the explain split."""
    high: float
    """Highest density in both arms."""
    kept: tuple[int, int]
    """Scored units within, of the reference and of the baseline."""
    lost: tuple[int, int]
    """Scored units outside."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure: the reference arm less a baseline."""

    n: tuple[int, int]
    """Units where the measure is defined, of the reference and of the baseline."""
    median: Estimate | Undefined
    """Difference of medians with its 95 % bootstrap interval over units."""
    mean: Estimate | Undefined
    """Difference of means."""
    superior: Estimate | Undefined
    """Probability that a random unit of the reference has the higher value, ties counted half."""
    test: MannWhitney | Undefined
    """Two-sided Mann-Whitney test."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """The reference arm against one baseline."""

    baseline: str
    """Label of the baseline."""
    support: Support | Undefined | None
    """Common densities, where the baseline is compared at matched density; `Undefined` where there are none."""
    differences: Mapping[str, Difference]
    """By measure."""
    bounds: Bounds | Undefined
    """On the difference of means of the headline, whatever the counted units without it would have scored."""
    intervals: tuple[Estimate | Undefined, ...]
    """Difference of means within activation interval 1 to 12."""


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
        tuple(sorted({each.explanation.explainer for each in counted if isinstance(each.explanation, Explanation)})),
        seed,
        tuple(_summary(table, arm) for arm in arms),
        tuple(_contrast(table, reference, arm) for arm in arms if arm.label != reference),
    )


def _summary(table: Counted, info: ArmInfo) -> ArmSummary:
    scores = [each.result for each in table.arms.get(info.label, []) if isinstance(each.result, Score)]
    return ArmSummary(
        info,
        _funnel(table, info),
        {measure: _averages(table, info.label, measure) for measure in table.main},
        tuple(_interval_mean(table, info.label, name) for name in table.intervals),
        _share(sum(score.constant for score in scores), len(scores), "no unit was scored"),
        _share(sum(score.missing for score in scores), sum(score.items for score in scores), "no item was asked"),
    )


def _funnel(table: Counted, info: ArmInfo) -> Funnel:
    outcomes = table.arms.get(info.label, [])
    failed = Counter(each.result.kind for each in outcomes if isinstance(each.result, Failure))
    scored = len(table.values(info.label, table.headline))
    undefined = len(outcomes) - failed.total() - scored
    return Funnel(info.n_units, len(outcomes), dict(failed.most_common()), undefined, scored)


def _averages(table: Counted, arm: str, measure: str) -> Averages:
    values = table.values(arm, measure)
    median = bootstrap_interval(values, "median", table.rng(arm, measure, "median"), _RESAMPLES)
    mean = bootstrap_interval(values, "mean", table.rng(arm, measure, "mean"), _RESAMPLES)
    return Averages(len(values), median, mean)


def _interval_mean(table: Counted, arm: str, measure: str) -> IntervalMean:
    values = table.values(arm, measure)
    return IntervalMean(len(values), bootstrap_interval(values, "mean", table.rng(arm, measure, "mean"), _RESAMPLES))


def _share(part: int, whole: int, reason: str) -> float | Undefined:
    return part / whole if whole else Undefined(reason)


def _contrast(table: Counted, reference: str, baseline: ArmInfo) -> Contrast:
    support = _support(table, reference, baseline.label) if baseline.kind == "neurons-matched" else None
    if isinstance(support, Undefined):
        nothing = Difference((0, 0), support, support, support, support)
        none = dict.fromkeys(table.main, nothing)
        return Contrast(baseline.label, support, none, support, (support,) * len(table.intervals))

    def keep(outcome: Outcome) -> bool:
        return support is None or support.low <= outcome.statistics.density_explain <= support.high

    def sides(measure: str) -> tuple[np.ndarray, np.ndarray]:
        return table.values(reference, measure, keep), table.values(baseline.label, measure, keep)

    def rng(measure: str) -> np.random.Generator:
        return table.rng(reference, baseline.label, measure)

    by_interval = [bootstrap_difference(*sides(name), "mean", rng(name), _RESAMPLES) for name in table.intervals]
    differences = {measure: _difference(*sides(measure), rng(measure)) for measure in table.main}
    x, y = sides(table.headline)
    kept = [sum(map(keep, table.arms.get(arm, []))) for arm in (reference, baseline.label)]
    bounds = difference_bounds(x, y, (kept[0] - len(x), kept[1] - len(y)))
    return Contrast(baseline.label, support, differences, bounds, tuple(by_interval))


def _difference(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Difference:
    n = (len(x), len(y))
    if min(n) < FEWEST:
        few = Undefined(f"{n[0]} and {n[1]} units; a comparison needs {FEWEST} of each")
        return Difference(n, few, few, few, few)
    return Difference(
        n,
        bootstrap_difference(x, y, "median", rng, _RESAMPLES),
        bootstrap_difference(x, y, "mean", rng, _RESAMPLES),
        probability_superior(x, y, rng, _RESAMPLES),
        mann_whitney(x, y),
    )


def _support(table: Counted, reference: str, baseline: str) -> Support | Undefined:
    densities = [table.densities(arm) for arm in (reference, baseline)]
    if not all(map(len, densities)):
        return Undefined("an arm has no scored unit")
    low, high = max(float(each.min()) for each in densities), min(float(each.max()) for each in densities)
    first, second = (int(((each >= low) & (each <= high)).sum()) for each in densities)
    if min(first, second) < _FEWEST_MATCHED:
        return Undefined(f"{first} and {second} units of common density; a comparison needs {_FEWEST_MATCHED} of each")
    return Support(low, high, (first, second), (len(densities[0]) - first, len(densities[1]) - second))
