"""Differences between arms among units that are alike in what is not to be compared: density, evidence, length."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from autointerp.inference import Sample
from autointerp.records.trial import Undefined
from autointerp.statistics import Estimate, Z

FEWEST = 20
"""Units per arm below which a matched difference is `Undefined`."""
_FEWEST_PER_STRATUM = 2
"""Units of each arm that a stratum needs: of one alone there is no telling how units scatter."""
_QUARTERS = 4
"""Strata per decade of density."""
_EVIDENCE = 5
"""Excerpts of evidence per stratum."""
_FLAT = 1e-9
"""Variation below which a covariate says nothing."""


@dataclass(frozen=True, slots=True)
class Matched:
    """A difference of means among units that are alike in one respect."""

    strata: int
    """Strata with units of both arms."""
    kept: tuple[int, int]
    """Scored units in them, of the reference and of the baseline."""
    lost: tuple[int, int]
    """Scored units in no such stratum."""
    mean: Estimate | Undefined
    """Mean over the strata of the difference of means within each, weighted by n m / (n + m)."""


def density_strata(densities: Float[np.ndarray, " unit"]) -> Int[np.ndarray, " unit"]:
    """Quarter decades of density, so that densities within one differ by less than a factor of 1.8."""
    return np.floor(_QUARTERS * np.log10(np.maximum(densities, 1e-12))).astype(np.int64)


def evidence_strata(excerpts: Int[np.ndarray, " unit"]) -> Int[np.ndarray, " unit"]:
    """Fives of excerpts that the explainer saw."""
    return excerpts // _EVIDENCE


def matched_difference(
    x: Sample, y: Sample, x_strata: Int[np.ndarray, " first"], y_strata: Int[np.ndarray, " second"]
) -> Matched:
    """Difference of means of `x` and `y` within common strata, with its 95 % interval; strata of one arm are left out.

    The weights n m / (n + m) are those of least variance where the difference is the same in all strata (overlap
    weights: Li, Morgan and Zaslavsky 2018). It is a weighted sum of the units' values, so its variance is a sum too:
    of the scatter within strata, and of what shared documents add, which is the variance of the documents' joint
    influence less that of every unit's own, as the scatter has it already (Cameron, Gelbach and Miller 2011).
    """
    common, weights = _strata(x_strata, y_strata)
    kept = tuple(np.isin(strata, common) for strata in (x_strata, y_strata))
    counts = int(kept[0].sum()), int(kept[1].sum())
    lost = len(x) - counts[0], len(y) - counts[1]
    if min(counts) < FEWEST:
        few = Undefined(f"{counts[0]} and {counts[1]} units in common strata; a comparison needs {FEWEST} of each")
        return Matched(len(common), counts, lost, few)
    parts = [
        _part(sample, strata, common, sign * weights) for sample, strata, sign in ((x, x_strata, 1), (y, y_strata, -1))
    ]
    value = sum(part.value for part in parts)
    error = math.sqrt(_variance(parts))
    documents = bool(len(x.influence) and len(y.influence))
    return Matched(len(common), counts, lost, Estimate(value, value - Z * error, value + Z * error, documents))


def _strata(x: np.ndarray, y: np.ndarray) -> tuple[Int[np.ndarray, " stratum"], Float[np.ndarray, " stratum"]]:
    """Strata that both arms fill, and the weight of each."""
    common = np.intersect1d(x, y)
    n, m = ((strata[:, None] == common).sum(0) for strata in (x, y))
    enough = (n >= _FEWEST_PER_STRATUM) & (m >= _FEWEST_PER_STRATUM)
    weights = (n * m / np.maximum(n + m, 1))[enough]
    return common[enough], weights / max(weights.sum(), 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One arm's side of a weighted sum."""

    value: float
    scatter: float
    """Variance of `value` that the scatter of the units gives."""
    cluster: Int[np.ndarray, " entry"]
    influence: Float[np.ndarray, " entry"]
    """What each document cluster does to `value` through one unit."""


def _part(sample: Sample, strata: np.ndarray, common: np.ndarray, weights: np.ndarray) -> _Part:
    member: Bool[np.ndarray, "unit stratum"] = strata[:, None] == common
    n = member.sum(0)
    per_unit = member @ (weights / n)
    means = sample.values @ member / n
    variances = ((sample.values[:, None] - means) ** 2 * member).sum(0) / (n - 1)
    scatter = float((weights**2 * variances / n).sum())
    influence = per_unit[sample.unit] * sample.influence
    return _Part(float(per_unit @ sample.values), scatter, sample.cluster, influence)


def _variance(parts: Sequence[_Part]) -> float:
    influence = np.concatenate([part.influence for part in parts])
    _, cluster = np.unique(np.concatenate([part.cluster for part in parts]), return_inverse=True)
    joint = float((np.bincount(cluster, influence) ** 2).sum()) if len(influence) else 0.0
    # What is left of the scatter without the units' own noise cannot be negative.
    return max(sum(part.scatter for part in parts) - float((influence**2).sum()), 0.0) + joint


@dataclass(frozen=True, slots=True)
class LengthControl:
    """What the wording of explanations has to do with a difference."""

    words: tuple[float, float]
    """Geometric mean of the words of an explanation, in the reference and in the baseline."""
    slopes: tuple[float, float]
    """Change of the score per doubling of the words, within either arm (least squares)."""
    overlaps: tuple[float, float] | None
    """Mean share of an explanation's words that are tokens of its evidence, 0 to 1; None where it was not recorded."""
    mean: Estimate
    """Difference of mean scores at equal length, and at equal overlap where that is known."""


@dataclass(frozen=True, slots=True, eq=False)
class Wording:
    """Scores of an arm's units beside the wording of their explanations."""

    scores: Float[np.ndarray, " unit"]
    """The headline measure."""
    words: Int[np.ndarray, " unit"]
    """Words of the explanation."""
    overlaps: Float[np.ndarray, " unit"] | None
    """Share of them that are tokens of the evidence; None where it was not recorded."""


def length_control(x: Wording, y: Wording) -> LengthControl | Undefined:
    """Least squares of the scores on the arm, the logarithm of the words, and the overlap where both arms have it.

    The interval is that of White's heteroscedasticity-consistent errors (HC1), over units alone. Nothing causal: a unit
    that is harder to explain may be given more words. `Undefined` below `FEWEST` units in either arm, or where the
    explanations of each arm have one length.
    """
    n = len(x.scores), len(y.scores)
    if min(n) < FEWEST:
        return Undefined(f"{n[0]} and {n[1]} units; a comparison needs {FEWEST} of each")
    logs = [np.log2(np.maximum(each.words, 1)) for each in (x, y)]
    within = [each - each.mean() for each in logs]
    if sum(float(each @ each) for each in within) <= _FLAT:
        return Undefined("the explanations of each arm have one length")
    slopes = [float(each @ of.scores / max(each @ each, _FLAT)) for each, of in zip(within, (x, y), strict=True)]
    columns = [np.repeat([1.0, 0.0], n), np.ones(sum(n)), np.concatenate(logs)]
    overlaps = None
    if x.overlaps is not None and y.overlaps is not None:
        overlaps = float(x.overlaps.mean()), float(y.overlaps.mean())
        if x.overlaps.var() + y.overlaps.var() > _FLAT:
            columns.append(np.concatenate([x.overlaps, y.overlaps]))
    value, error = _least_squares(np.stack(columns, axis=1), np.concatenate([x.scores, y.scores]))
    words = float(2 ** logs[0].mean()), float(2 ** logs[1].mean())
    mean = Estimate(value, value - Z * error, value + Z * error)
    return LengthControl(words, (slopes[0], slopes[1]), overlaps, mean)


def _least_squares(design: Float[np.ndarray, "unit column"], scores: Float[np.ndarray, " unit"]) -> tuple[float, float]:
    """Coefficient of the first column, and its HC1 standard error."""
    n, k = design.shape
    inverse = np.linalg.pinv(design.T @ design)
    fitted = inverse @ (design.T @ scores)
    residuals = scores - design @ fitted
    meat = (design * residuals[:, None] ** 2).T @ design * (n / (n - k))
    return float(fitted[0]), math.sqrt((inverse @ meat @ inverse)[0, 0])
