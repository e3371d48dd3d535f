"""What the scores of the arms come to, and how the features differ from each baseline."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from autointerp.records.explanation import Explanation, Failure
from autointerp.records.outcome import ArmInfo, Outcome
from autointerp.records.trial import Measure, Score, Undefined
from autointerp.statistics import (
    FEWEST,
    Estimate,
    MannWhitney,
    bootstrap_difference,
    bootstrap_interval,
    mann_whitney,
    probability_superior,
)
from sae.errors import UserError, nearest

LIFT = "lift"
"""The headline measure less that of `unigram`, unit by unit."""
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


def counted_prefix(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """The longest prefix of the admission order in which every unit has ended, in that order.

    Beyond it a stopped run has ended only the quick units: counting those would favour whatever ends quickly.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.order)
    gap = next((rank for rank, outcome in enumerate(ordered) if outcome.order != rank), len(ordered))
    return tuple(ordered[:gap])


def compare(outcomes: Sequence[Outcome], arms: Sequence[ArmInfo], reference: str, seed: int) -> Comparison:
    """Summaries of every arm, and the arm `reference` against every other, over the counted prefix of `outcomes`.

    `seed` is >= 0. Raises `UserError` where no arm is called `reference`.
    """
    if reference not in (labels := [arm.label for arm in arms]):
        raise UserError(f"There is no arm {reference!r}.", do=nearest(reference, labels))
    counted = counted_prefix(outcomes)
    headline = next((outcome.result.headline for outcome in counted if isinstance(outcome.result, Score)), "spearman")
    table = _Table(counted, headline, seed)
    return Comparison(
        reference,
        headline,
        tuple(sorted({each.explanation.explainer for each in counted if isinstance(each.explanation, Explanation)})),
        seed,
        tuple(_summary(table, arm) for arm in arms),
        tuple(_contrast(table, reference, arm) for arm in arms if arm.label != reference),
    )


class _Table:
    """The counted outcomes, looked up by arm and measure."""

    def __init__(self, counted: Sequence[Outcome], headline: str, seed: int) -> None:
        self.headline = headline
        self.seed = seed
        self.arms: dict[str, list[Outcome]] = {}
        names: dict[str, None] = {headline: None}
        for outcome in counted:
            self.arms.setdefault(outcome.unit.arm, []).append(outcome)
            if isinstance(outcome.result, Score):
                names |= dict.fromkeys(outcome.result.measures)
        self.intervals = [f"{headline}_interval_{i}" for i in range(1, 13)]
        self.main = [name for name in names if "_interval_" not in name]
        if f"unigram_{headline}" in names:
            self.main.append(LIFT)

    def values(
        self, arm: str, measure: str, keep: Callable[[Outcome], bool] = lambda _: True
    ) -> Float[np.ndarray, " unit"]:
        """`measure` of every kept unit of `arm` where it is defined, in admission order."""
        found = (self.value(outcome, measure) for outcome in self.arms.get(arm, []) if keep(outcome))
        return np.array([value for value in found if value is not None], dtype=np.float64)

    def densities(self, arm: str) -> Float[np.ndarray, " unit"]:
        """Explain density of every scored unit of `arm`."""
        scored = (each for each in self.arms.get(arm, []) if self.value(each, self.headline) is not None)
        return np.array([each.statistics.density_explain for each in scored])

    def value(self, outcome: Outcome, measure: str) -> float | None:
        """One unit's `measure`, None where it failed or is undefined."""
        if measure == LIFT:
            own, floor = self.value(outcome, self.headline), self.value(outcome, f"unigram_{self.headline}")
            return None if own is None or floor is None else own - floor
        found = outcome.result.measures.get(measure) if isinstance(outcome.result, Score) else None
        return found.value if isinstance(found, Measure) else None

    def rng(self, *words: str) -> np.random.Generator:
        """A generator of its own for what is named, so that no number depends on which others are computed."""
        return np.random.default_rng([self.seed, *"/".join(words).encode()])


def _summary(table: _Table, info: ArmInfo) -> ArmSummary:
    scores = [each.result for each in table.arms.get(info.label, []) if isinstance(each.result, Score)]
    return ArmSummary(
        info,
        _funnel(table, info),
        {measure: _averages(table, info.label, measure) for measure in table.main},
        tuple(_interval_mean(table, info.label, name) for name in table.intervals),
        _share(sum(score.constant for score in scores), len(scores), "no unit was scored"),
        _share(sum(score.missing for score in scores), sum(score.items for score in scores), "no item was asked"),
    )


def _funnel(table: _Table, info: ArmInfo) -> Funnel:
    outcomes = table.arms.get(info.label, [])
    failed = Counter(each.result.kind for each in outcomes if isinstance(each.result, Failure))
    scored = len(table.values(info.label, table.headline))
    undefined = len(outcomes) - failed.total() - scored
    return Funnel(info.n_units, len(outcomes), dict(failed.most_common()), undefined, scored)


def _averages(table: _Table, arm: str, measure: str) -> Averages:
    values = table.values(arm, measure)
    median = bootstrap_interval(values, "median", table.rng(arm, measure, "median"), _RESAMPLES)
    mean = bootstrap_interval(values, "mean", table.rng(arm, measure, "mean"), _RESAMPLES)
    return Averages(len(values), median, mean)


def _interval_mean(table: _Table, arm: str, measure: str) -> IntervalMean:
    values = table.values(arm, measure)
    return IntervalMean(len(values), bootstrap_interval(values, "mean", table.rng(arm, measure, "mean"), _RESAMPLES))


def _share(part: int, whole: int, reason: str) -> float | Undefined:
    return part / whole if whole else Undefined(reason)


def _contrast(table: _Table, reference: str, baseline: ArmInfo) -> Contrast:
    support = _support(table, reference, baseline.label) if baseline.kind == "neurons-matched" else None
    if isinstance(support, Undefined):
        nothing = Difference((0, 0), support, support, support, support)
        return Contrast(baseline.label, support, dict.fromkeys(table.main, nothing), (support,) * len(table.intervals))

    def keep(outcome: Outcome) -> bool:
        return support is None or support.low <= outcome.statistics.density_explain <= support.high

    def sides(measure: str) -> tuple[np.ndarray, np.ndarray]:
        return table.values(reference, measure, keep), table.values(baseline.label, measure, keep)

    def rng(measure: str) -> np.random.Generator:
        return table.rng(reference, baseline.label, measure)

    by_interval = [bootstrap_difference(*sides(name), "mean", rng(name), _RESAMPLES) for name in table.intervals]
    differences = {measure: _difference(*sides(measure), rng(measure)) for measure in table.main}
    return Contrast(baseline.label, support, differences, tuple(by_interval))


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


def _support(table: _Table, reference: str, baseline: str) -> Support | Undefined:
    densities = [table.densities(arm) for arm in (reference, baseline)]
    if not all(map(len, densities)):
        return Undefined("an arm has no scored unit")
    low, high = max(float(each.min()) for each in densities), min(float(each.max()) for each in densities)
    first, second = (int(((each >= low) & (each <= high)).sum()) for each in densities)
    if min(first, second) < _FEWEST_MATCHED:
        return Undefined(f"{first} and {second} units of common density; a comparison needs {_FEWEST_MATCHED} of each")
    return Support(low, high, (first, second), (len(densities[0]) - first, len(densities[1]) - second))
