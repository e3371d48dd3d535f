"""One arm against another: differences of every measure, among all units and among those that are alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autointerp.counted import Counted, lower_limit
from autointerp.inference import (
    Bounds,
    MannWhitney,
    Sample,
    against_null,
    average,
    benjamini_hochberg,
    difference,
    difference_bounds,
    mann_whitney,
)
from autointerp.matching import (
    FEWEST,
    LengthControl,
    Matched,
    Wording,
    density_strata,
    evidence_strata,
    length_control,
    matched_difference,
)
from autointerp.permutation import permutation_test, sign_flip_test
from autointerp.power import detectable_difference, spread
from autointerp.records.explanation import Explanation
from autointerp.records.outcome import ArmInfo, Outcome
from autointerp.records.trial import Undefined
from autointerp.statistics import Estimate, bootstrap_difference, bootstrap_interval
from autointerp.wording import n_words

RESAMPLES = 1000
SHUFFLED = ":shuffled"
"""How the label ends of an arm whose units are judged by each other's explanations."""
_FEWEST_IN_STRATUM = 99
"""Null scores with which a p-value of 0.01 exists: with fewer, no unit could ever stand out after adjustment."""
FALSE_DISCOVERIES = 0.05
"""Expected share of false ones among the units found, at most."""
_SAME = Undefined("both arms have the same units, which are compared one by one")


@dataclass(frozen=True, slots=True)
class Support:
    """Densities that both arms have: a baseline of matched density is compared within them."""

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
    """One measure: the reference arm less a baseline, or unit by unit where both arms have the same units."""

    n: tuple[int, int]
    """Units where the measure is defined, of the reference and of the baseline; of pairs, those that have both."""
    median: Estimate | Undefined
    """Difference of medians; of pairs, the median of the differences."""
    mean: Estimate | Undefined
    """Difference of means."""
    superior: Estimate | Undefined
    """Probability that a random unit of the reference has the higher value, ties counted half; of pairs, that a unit
    has it by its own explanation."""
    test: MannWhitney | Undefined
    """Two-sided Mann-Whitney test."""


@dataclass(frozen=True, slots=True)
class Discoveries:
    """Units of the reference that score more than chance would give them, found one by one."""

    units: int
    """Found by Benjamini and Hochberg's procedure."""
    of: int
    """Tested: those with a headline score."""
    rate: float
    """Expected share of false ones among those found, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The reference arm against one baseline.

    What is claimed of the two is the difference of the headline's means: a score is bounded, so that no unit moves it
    far, and its interval, its test, its power and the differences among units that are alike speak of the same number.
    """

    baseline: str
    """Label of the baseline."""
    paired: bool
    """Whether both arms have the same units, so that these are compared one by one: the baseline is a control."""
    support: Support | Undefined | None
    """Common densities, where the baseline is compared at matched density; `Undefined` where there are none."""
    differences: Mapping[str, Difference]
    """By measure."""
    p: float | Undefined
    """Permutation test of the headline's means; of pairs, of the signs of the differences."""
    q: float | Undefined
    """The same, adjusted by Benjamini and Hochberg over all contrasts of the run; those with controls, which are true
    almost always and would make the others look better, are a family of their own."""
    detectable: float | Undefined
    """Difference of headline means that these units, as their scores scatter, show with 80 % power."""
    density: Matched | Undefined
    """Difference of headline means among units of equal density."""
    evidence: Matched | Undefined
    """The same among units explained from equally many excerpts."""
    length: LengthControl | Undefined
    """The same at equal length of the explanations."""
    bounds: Bounds | Undefined
    """On the difference of means of the headline, whatever the counted units without it would have scored."""
    intervals: tuple[Estimate | Undefined, ...]
    """Difference of means within activation interval 1 to 12; over units alone."""
    found: Discoveries | Undefined | None
    """Units that beat what other units' explanations score, where the baseline is that; None elsewhere."""


def contrast(table: Counted, reference: str, baseline: ArmInfo) -> Contrast:
    """`reference` against `baseline`; `q` is that of this contrast alone."""
    if baseline.kind == "control":
        return _paired(table, reference, baseline.label)
    support = _support(table, reference, baseline.label) if baseline.kind == "neurons-matched" else None
    if isinstance(support, Undefined):
        return _undefined(table, baseline.label, support)

    def keep(outcome: Outcome) -> bool:
        return support is None or support.low <= outcome.statistics.density_explain <= support.high

    def sides(measure: str) -> tuple[Sample, Sample]:
        return table.sample(reference, measure, keep), table.sample(baseline.label, measure, keep)

    def rng(measure: str) -> np.random.Generator:
        return table.rng(reference, baseline.label, measure)

    intervals: list[Estimate | Undefined] = []
    for name in table.intervals:
        x, y = (table.values(arm, name, keep) for arm in (reference, baseline.label))
        intervals.append(bootstrap_difference(x, y, "mean", rng(name), RESAMPLES))
    differences = {measure: _difference(*sides(measure), rng(measure)) for measure in table.contrasted}
    x, y = sides(table.headline)
    error = _error(differences[table.headline])
    p = permutation_test(x.values, y.values, rng("permutation"), error=error)
    everyone = [table.arms.get(arm, []) for arm in (reference, baseline.label)]
    units = [[each for each in arm if keep(each)] for arm in everyone]
    scored = [[each for each in arm if table.value(each, table.headline) is not None] for arm in units]
    return Contrast(
        baseline=baseline.label,
        paired=False,
        support=support,
        differences=differences,
        p=p,
        q=p,
        detectable=_detectable(x, y, error),
        density=matched_difference(x, y, *map(_density_strata, scored)),
        evidence=_evidence_matched(x, y, *scored),
        length=_length_control(x, y, *scored),
        bounds=_bounds(table, x, y, (len(units[0]), len(units[1]))),
        intervals=tuple(intervals),
        found=None,
    )


def _paired(table: Counted, reference: str, control: str) -> Contrast:
    """The `reference`'s units by their own explanations against the same units by those of `control`."""
    pairs = {measure: table.paired(reference, control, measure) for measure in table.contrasted}
    differences: dict[str, Difference] = {}
    for measure, each in pairs.items():
        found = average(each, ("median", "mean", "superior"), table.rng(reference, control, measure), RESAMPLES)
        n = len(each), len(each)
        differences[measure] = Difference(n, found["median"], found["mean"], found["superior"], _SAME)
    whole, error = pairs[table.headline].values, _error(differences[table.headline])
    p = sign_flip_test(whole, table.rng(reference, control, "permutation"), error=error)
    x, y = (table.sample(arm, table.headline) for arm in (reference, control))
    arms = [table.arms.get(arm, []) for arm in (reference, control)]
    scored = [[each for each in arm if table.value(each, table.headline) is not None] for arm in arms]
    scatter = spread(whole.tolist())
    few = Undefined(f"{len(whole)} pairs do not show how scores scatter")
    n = len(whole)
    return Contrast(
        baseline=control,
        paired=True,
        support=None,
        differences=differences,
        p=p,
        q=p,
        detectable=few if scatter is None else detectable_difference(n, n, scatter, 0.0, error=error),
        density=_SAME,
        evidence=_SAME,
        length=_SAME,
        bounds=_bounds(table, x, y, (len(arms[0]), len(arms[1]))),
        intervals=tuple(
            bootstrap_interval(
                table.paired(reference, control, name).values, "mean", table.rng(reference, control, name), RESAMPLES
            )
            for name in table.intervals
        ),
        found=_discoveries(x, y, *map(_density_strata, scored)) if control.endswith(SHUFFLED) else None,
    )


def _undefined(table: Counted, baseline: str, why: Undefined) -> Contrast:
    nothing = Difference((0, 0), why, why, why, why)
    return Contrast(
        baseline=baseline,
        paired=False,
        support=why,
        differences=dict.fromkeys(table.contrasted, nothing),
        p=why,
        q=why,
        detectable=why,
        density=why,
        evidence=why,
        length=why,
        bounds=why,
        intervals=(why,) * len(table.intervals),
        found=None,
    )


def _error(headline: Difference) -> float | None:
    """Standard error of the difference of means, where it counts the documents that units share."""
    mean = headline.mean
    return mean.error if isinstance(mean, Estimate) and mean.documents else None


def _bounds(table: Counted, x: Sample, y: Sample, counted: tuple[int, int]) -> Bounds | Undefined:
    missing = counted[0] - len(x), counted[1] - len(y)
    return difference_bounds(x.values, y.values, missing, lower_limit(table.headline))


def _discoveries(x: Sample, y: Sample, x_strata: np.ndarray, y_strata: np.ndarray) -> Discoveries | Undefined:
    """Each unit of `x` against the null scores of `y` in its stratum of density, or all where these are too few."""
    if len(y) < FEWEST:
        return Undefined(f"{len(y)} scores by other units' explanations; {FEWEST} are needed")
    p = against_null(x.values, y.values)
    for stratum in np.unique(x_strata):
        null = y.values[y_strata == stratum]
        if len(null) >= _FEWEST_IN_STRATUM:
            own = x_strata == stratum
            p[own] = against_null(x.values[own], null)
    return Discoveries(int((benjamini_hochberg(p) <= FALSE_DISCOVERIES).sum()), len(x), FALSE_DISCOVERIES)


def _difference(x: Sample, y: Sample, rng: np.random.Generator) -> Difference:
    found = difference(x, y, ("median", "mean", "superior"), rng, RESAMPLES)
    few = next((each for each in found.values() if isinstance(each, Undefined)), None)
    test = few or mann_whitney(x.values, y.values)
    return Difference((len(x), len(y)), found["median"], found["mean"], found["superior"], test)


def _support(table: Counted, reference: str, baseline: str) -> Support | Undefined:
    densities = [table.densities(arm) for arm in (reference, baseline)]
    if not all(map(len, densities)):
        return Undefined("an arm has no scored unit")
    low, high = max(float(each.min()) for each in densities), min(float(each.max()) for each in densities)
    first, second = (int(((each >= low) & (each <= high)).sum()) for each in densities)
    if min(first, second) < FEWEST:
        return Undefined(f"{first} and {second} units of common density; a comparison needs {FEWEST} of each")
    return Support(low, high, (first, second), (len(densities[0]) - first, len(densities[1]) - second))


def _detectable(x: Sample, y: Sample, error: float | None) -> float | Undefined:
    spreads = spread(x.values.tolist()), spread(y.values.tolist())
    if spreads[0] is None or spreads[1] is None:
        return Undefined(f"{len(x)} and {len(y)} units do not show how scores scatter")
    return detectable_difference(len(x), len(y), spreads[0], spreads[1], error=error)


def _density_strata(scored: Sequence[Outcome]) -> np.ndarray:
    return density_strata(np.array([each.statistics.density_explain for each in scored], dtype=np.float64))


def _evidence_matched(x: Sample, y: Sample, first: Sequence[Outcome], second: Sequence[Outcome]) -> Matched | Undefined:
    strata: list[np.ndarray] = []
    for scored in (first, second):
        known = [each.statistics.evidence for each in scored if each.statistics.evidence is not None]
        if len(known) < len(scored):
            return Undefined("how much evidence was shown is not recorded")
        strata.append(evidence_strata(np.array(known, dtype=np.int64)))
    return matched_difference(x, y, strata[0], strata[1])


def _length_control(
    x: Sample, y: Sample, first: Sequence[Outcome], second: Sequence[Outcome]
) -> LengthControl | Undefined:
    wordings: list[Wording] = []
    for sample, scored in ((x, first), (y, second)):
        texts = [each.explanation.text for each in scored if isinstance(each.explanation, Explanation)]
        if len(texts) < len(scored):
            return Undefined("not every scored unit has an explanation")
        overlaps = [each.statistics.overlap for each in scored if each.statistics.overlap is not None]
        words = np.array([n_words(text) for text in texts], dtype=np.int64)
        wordings.append(Wording(sample.values, words, np.array(overlaps) if len(overlaps) == len(scored) else None))
    return length_control(wordings[0], wordings[1])
