"""What differs between two arms, and how sure that is: both their units and their documents are samples.

Units are scored on documents that they share: the random windows are the same for all, and the top excerpts of many
units lie in the same documents. So the errors of their scores are correlated, and resampling units alone does not see
it. The intervals here resample both (A. B. Owen, "The pigeonhole bootstrap", 2007; Owen and Eckles, "Bootstrapping data
arrays of arbitrary order", 2012). What they speak of is this dictionary on texts like this corpus: not dictionaries of
other seeds, and not autoencoders in general.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse, stats

from autointerp.records.trial import Undefined
from autointerp.statistics import FEWEST, Estimate, percentiles

Statistic: TypeAlias = Literal["median", "mean", "superior"]
"""Of one sample its median, its mean, or the share above 0, zeros counted half; of two the difference of medians or of
means, or P(X > Y) + P(X = Y) / 2."""
_CELLS = 1 << 20
"""Numbers that a resampling holds at one time."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One measure over the units of an arm."""

    values: Float[np.ndarray, " unit"]
    """The measure."""
    unit: Int[np.ndarray, " entry"]
    """Of each entry of `influence`, the unit that it belongs to."""
    cluster: Int[np.ndarray, " entry"]
    """And the document cluster."""
    influence: Float[np.ndarray, " entry"]
    """Change of the unit's measure per unit of relative weight on the cluster, to first order."""

    @classmethod
    def of(cls, values: Float[np.ndarray, " unit"]) -> "Sample":
        """A sample of which nothing is known beside the values: only units are resampled."""
        none = np.zeros(0, dtype=np.int64)
        return cls(np.asarray(values, dtype=np.float64), none, none, np.zeros(0))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def noise(self) -> float:
        """Mean over the units of the variance that their documents alone give their measure."""
        return float((self.influence.astype(np.float64) ** 2).sum() / len(self)) if len(self) else 0.0


@dataclass(frozen=True, slots=True)
class MannWhitney:
    """Two-sided Mann-Whitney test of two independent samples."""

    u: float
    """Pairs in which the first sample's value is the higher, ties counted half."""
    p: float
    """Two-sided p-value."""
    effect: float
    """Rank-biserial correlation, -1 to 1: 2 P(X > Y) + P(X = Y) - 1."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a difference of means lies, whatever the missing values are."""

    missing: tuple[int, int]
    """Units without a value, on either side."""
    low: float
    """With those of the first side at the lowest value there is and those of the second at the highest."""
    high: float
    """The other way round."""


def average(
    x: Sample, statistics: Sequence[Statistic], rng: np.random.Generator, resamples: int = 1000
) -> dict[Statistic, Estimate | Undefined]:
    """Of one arm, or of differences unit by unit, with two-way intervals; `Undefined` below `FEWEST` units."""
    return _estimates((x,), statistics, rng, resamples)


def difference(
    x: Sample, y: Sample, statistics: Sequence[Statistic], rng: np.random.Generator, resamples: int = 1000
) -> dict[Statistic, Estimate | Undefined]:
    """`x` less `y`, by statistic, with two-way intervals; `Undefined` below `FEWEST` units in either.

    A resample draws the units of each arm with replacement, and gives every document cluster an exponential weight
    that is the same for all units of both arms. A drawn unit counts with its value and the change that the weights
    bring to it. The values of different units scatter by that change already, so each arm is first drawn together
    about its mean until value and change scatter as the values did: otherwise a unit's own noise would count twice,
    which makes the plain pigeonhole bootstrap too wide. The resamples are then moved to where the estimate is. Where
    either arm has no influences this is the usual bootstrap over units.
    """
    if not (len(x.influence) and len(y.influence)):
        x, y = Sample.of(x.values), Sample.of(y.values)
    return _estimates((x, y), statistics, rng, resamples)


def _estimates(
    samples: tuple[Sample, ...], statistics: Sequence[Statistic], rng: np.random.Generator, resamples: int
) -> dict[Statistic, Estimate | Undefined]:
    if min(map(len, samples)) < FEWEST:
        counts = " and ".join(str(len(sample)) for sample in samples)
        what = f"a comparison needs {FEWEST} of each" if len(samples) > 1 else f"an interval needs {FEWEST}"
        few = Undefined(f"{counts} units; {what}")
        return dict.fromkeys(statistics, few)
    parts: dict[Statistic, list[np.ndarray]] = {statistic: [] for statistic in statistics}
    for block in _resampled(samples, rng, resamples):
        for statistic, part in parts.items():
            part.append(_evaluated(statistic, block))
    found: dict[Statistic, Estimate | Undefined] = {}
    for statistic, part in parts.items():
        value = float(_evaluated(statistic, tuple(sample.values[None] for sample in samples))[0])
        drawn = np.concatenate(part)
        documents = all(len(sample.influence) for sample in samples)
        if documents:
            drawn += value - drawn.mean()
        interval = percentiles(np.clip(drawn, 0, 1) if statistic == "superior" else drawn)
        found[statistic] = Estimate(value, interval.low, interval.high, documents)
    return found


def _resampled(
    samples: tuple[Sample, ...], rng: np.random.Generator, resamples: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Values of each sample's drawn units, of shape (resample, unit), in blocks of resamples."""
    clusters = np.unique(np.concatenate([sample.cluster for sample in samples]))
    influences = [_matrix(sample, clusters) for sample in samples]
    middles = [float(sample.values.mean()) for sample in samples]
    drawn_together = [
        middle + _shrunk(sample) * (sample.values - middle) for sample, middle in zip(samples, middles, strict=True)
    ]
    at_once = max(1, _CELLS // (sum(map(len, samples)) + len(clusters)))
    for begin in range(0, resamples, at_once):
        rows = min(at_once, resamples - begin)
        units = [rng.integers(len(sample), size=(rows, len(sample))) for sample in samples]
        weights = rng.standard_exponential((rows, len(clusters))) - 1 if len(clusters) else None
        block: list[np.ndarray] = []
        for values, influence, drawn in zip(drawn_together, influences, units, strict=True):
            block.append(values[drawn])
            if weights is not None and influence is not None:
                block[-1] += np.take_along_axis(np.asarray((influence @ weights.T).T), drawn, axis=1)
        yield tuple(block)


def _matrix(sample: Sample, clusters: np.ndarray) -> sparse.csr_array | None:
    if not len(sample.influence):
        return None
    columns = np.searchsorted(clusters, sample.cluster)
    entries = sample.influence.astype(np.float64), (sample.unit, columns)
    return sparse.csr_array(entries, shape=(len(sample), len(clusters)))


def _shrunk(sample: Sample) -> float:
    """Factor on the deviations from the mean that leaves the variance between units without their own noise."""
    total = float(sample.values.var(ddof=1))
    return math.sqrt(max(0.0, 1 - sample.noise / total)) if total > 0 else 1.0


def _evaluated(statistic: Statistic, block: tuple[np.ndarray, ...]) -> Float[np.ndarray, " resample"]:
    match statistic:
        case "mean" | "median":
            of_each = [np.mean(each, axis=1) if statistic == "mean" else np.median(each, axis=1) for each in block]
            return of_each[0] if len(of_each) == 1 else of_each[0] - of_each[1]
        case "superior" if len(block) == 1:
            return (1 + np.sign(block[0])).mean(axis=1) / 2
        case "superior":
            return _superior(*block)


def _superior(
    x: Float[np.ndarray, "resample first"], y: Float[np.ndarray, "resample second"]
) -> Float[np.ndarray, " resample"]:
    """P(X > Y) + P(X = Y) / 2 over all pairs of a resample."""
    if x.shape[1] < y.shape[1]:
        return 1 - _superior(y, x)
    pairs = zip(np.sort(x), y, strict=True)
    up_to = [(row.searchsorted(other, "right") + row.searchsorted(other, "left")).sum() for row, other in pairs]
    return 1 - np.array(up_to) / (2 * x.shape[1] * y.shape[1])


def mann_whitney(x: Float[np.ndarray, " first"], y: Float[np.ndarray, " second"]) -> MannWhitney | Undefined:
    """Mann-Whitney test that `x` and `y` are alike; `Undefined` where either is empty."""
    if not len(x) or not len(y):
        return Undefined("one of the samples is empty")
    result = stats.mannwhitneyu(x, y, alternative="two-sided")
    u = float(result.statistic)
    return MannWhitney(u, float(result.pvalue), 2 * u / (len(x) * len(y)) - 1)


def difference_bounds(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " m"], missing: tuple[int, int], lowest: float
) -> Bounds | Undefined:
    """Bounds on mean(x) - mean(y) where `missing` values of each, all between `lowest` and 1, are unknown.

    They need no assumption on why values are missing (C. F. Manski, Nonparametric Bounds on Treatment Effects, 1990).
    """
    n, m = len(x) + missing[0], len(y) + missing[1]
    if not n or not m:
        return Undefined("an arm has no counted unit")
    middle, shares = float(x.sum()) / n - float(y.sum()) / m, (missing[0] / n, missing[1] / m)
    return Bounds(missing, middle + lowest * shares[0] - shares[1], middle + shares[0] - lowest * shares[1])


def benjamini_hochberg(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjusted p-values: rejecting those up to q keeps the expected share of false rejections below q.

    Source: Benjamini and Hochberg 1995; valid for independent and for positively dependent tests.
    """
    order = np.argsort(p)[::-1]
    stepped = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def against_null(scores: Float[np.ndarray, " unit"], null: Float[np.ndarray, " draw"]) -> Float[np.ndarray, " unit"]:
    """One-sided p-value of each score among the `null` scores, itself counted: (1 + those as high) / (1 + all).

    Together they are conformal p-values, which Benjamini-Hochberg may adjust (Bates et al. 2023).
    """
    as_high = len(null) - np.searchsorted(np.sort(null), scores, "left")
    return (1 + as_high) / (1 + len(null))
