"""Estimates over a whole population of anchors from a stratified sample of them: pure, design-based.

What the harvest counted of the population (anchors, firings, sums, squares) is used as it is, so that only the
simulator's side is estimated. Sources: Särndal, Swensson and Wretman 1992, "Model assisted survey sampling", chapters
3, 6 and 10; Rao and Wu 1988, "Resampling inference with complex survey data"; Clopper and Pearson 1934; Berry and
Armitage 1995, "Mid-P confidence intervals"; Efron 1987, "Better bootstrap confidence intervals".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from autointerp.records.anchors import AnchorSample

REPLICATES = 400
"""Bootstrap replicates behind an interval: a multiple of 4."""
_TAIL = 0.025
_NUDGE = 0.01
_PREDICTED = 0.5
"""Level from which an anchor counts as predicted to fire."""
_STEEPEST = 0.25
_EDGE = 1 - 1e-9
_FLAT = 1e-12

Weights: TypeAlias = Float[np.ndarray, "row draw"]
Estimator: TypeAlias = Callable[[AnchorSample, Weights, Float[np.ndarray, " draw"]], np.ndarray]
"""A measure by row of weights, from sample, weights and predictions; correlations want `calibrated` weights."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % intervals."""

    value: float
    """The estimate."""
    low: float
    """Lower end, with the false predictions that may lie where none was drawn."""
    high: float
    """Upper end."""
    low_seen: float
    """Lower end if there are no false predictions but such as were drawn."""


def allocate(
    sizes: Int[np.ndarray, " stratum"], measure: Float[np.ndarray, " stratum"], budget: int, fewest: int = 4
) -> Int[np.ndarray, " stratum"]:
    """Draws per stratum: `fewest` in each (all of a smaller one), the rest of `budget` in proportion to `measure`.

    One draw after the other goes where draws are fewest for the measure (Webster's divisors), never beyond the size
    of a stratum. The budget is exceeded only where `fewest` in every stratum already is more.
    """
    drawn = np.minimum(sizes, fewest)
    for _ in range(budget - int(drawn.sum())):
        wanted = np.where(drawn < sizes, measure / (drawn + 0.5), -1.0)
        if wanted.max(initial=-1.0) <= 0:
            break
        drawn[wanted.argmax()] += 1
    return drawn


def answered(sample: AnchorSample, kept: Bool[np.ndarray, " draw"]) -> AnchorSample:
    """The draws that have a prediction, which stand for the others of their stratum too: missing is never zero."""
    strata = len(sample.size)
    asked, left = np.bincount(sample.stratum, minlength=strata), np.bincount(sample.stratum[kept], minlength=strata)
    columns = (column[kept] for column in (sample.stratum, sample.cluster, sample.truth, sample.fires))
    stratum, cluster, truth, fires = columns
    taken = sample.taken * np.where(asked > 0, left / np.maximum(asked, 1), 1.0)
    return replace(sample, stratum=stratum, cluster=cluster, truth=truth, fires=fires, taken=taken)


def unanswered(sample: AnchorSample) -> Int[np.ndarray, " stratum"]:
    """Strata that hold anchors and of which no draw is left: nothing can be said of the population then."""
    return np.flatnonzero((sample.size > 0) & (sample.taken <= 0))


def base_weights(sample: AnchorSample) -> Float[np.ndarray, " draw"]:
    """Horvitz-Thompson weights: how many anchors of its stratum each draw stands for."""
    return (sample.size / np.maximum(sample.taken, 1e-9))[sample.stratum]


def effective_size(weights: Float[np.ndarray, " draw"]) -> float:
    """Kish's effective sample size: that of an equal-probability sample with the same variance of a mean."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0


def replicates(sample: AnchorSample, rng: np.random.Generator, n: int = REPLICATES) -> Weights:
    """Weights of Rao and Wu's rescaled bootstrap, of shape (replicate, draw).

    Per stratum of n draws n - 1 are drawn with replacement, and rescaled so that the variance is that of a sample
    without replacement; draws of one document cluster in one stratum go together. A stratum taken whole keeps its
    weights: it has no variance. So does one with a single draw, of which none is known.
    """
    base = base_weights(sample)
    out = np.tile(base, (n, 1))
    for h in range(len(sample.size)):
        at = np.flatnonzero(sample.stratum == h)
        fraction = sample.taken[h] / sample.size[h] if sample.size[h] else 1.0
        if not len(at) or fraction >= 1:
            continue
        _, group = np.unique(sample.cluster[at], return_inverse=True)
        slots = int(group.max()) + 1 + max(0, round(sample.taken[h]) - len(at))
        if slots < 2:
            continue
        times = rng.multinomial(slots - 1, np.full(slots, 1 / slots), size=n)[:, group]
        scale = np.sqrt(1 - fraction)
        out[:, at] = base[at] * (1 - scale + scale * slots / (slots - 1) * times)
    return out


def rows(sample: AnchorSample, rng: np.random.Generator, n: int = REPLICATES) -> Weights:
    """What an interval is made of: the base weights, `n` replicates, and for each draw the base weights with its own
    a hundredth higher."""
    base = base_weights(sample)
    nudged = base * (1 + _NUDGE * np.eye(len(base)))
    return np.concatenate([base[None, :], replicates(sample, rng, n), nudged])


def without_each(sample: AnchorSample) -> tuple[Int[np.ndarray, " cluster"], Weights]:
    """Document clusters, and the base weights with one of them left out after the other."""
    clusters = np.unique(sample.cluster)
    return clusters, np.where(sample.cluster[None, :] == clusters[:, None], 0.0, base_weights(sample)[None, :])


def calibrated(sample: AnchorSample, weights: Weights) -> Weights:
    """Weights changed as little as can be so that the known sums of activations and of squares come out.

    The regression (GREG) estimator's weights, for firing and silent anchors apart: w (1 + (1 - f) x' λ), f being the
    share of the stratum that was drawn, so that what was taken whole keeps its weight of 1. A known sum
    that the draws cannot give, because they are too few or alike, is met as nearly as can be. For correlations, which
    they make 1 for an oracle; not for counts: a weight of a small sample may come out below 0.
    """
    totals, out = sample.totals, weights.copy()
    free = (1 - np.minimum(sample.taken / np.maximum(sample.size, 1), 1))[sample.stratum]
    fired, silent = (totals.fired_sum, totals.fired_square), (totals.silent_sum, totals.silent_square)
    for domain, known in ((sample.fires, fired), (~sample.fires, silent)):
        x = sample.truth[domain, None] ** np.array([1, 2])
        if not x.any():
            continue
        x, target = x / x.max(axis=0), np.array(known) / x.max(axis=0)
        w, moved = weights[:, domain], free[domain, None] * x
        gram = np.einsum("rn,ni,nj->rij", w, moved, x)
        multiplier = np.linalg.pinv(gram, rcond=1e-9, hermitian=True) @ (target - w @ x)[:, :, None]
        out[:, domain] = w * (1 + multiplier[:, :, 0] @ moved.T)
    return out


def pearson(
    sample: AnchorSample, weights: Weights, prediction: Float[np.ndarray, " draw"]
) -> Float[np.ndarray, " row"]:
    """Pearson correlation of prediction and truth over all anchors; 0 where the prediction is constant."""
    totals, n = sample.totals, sample.totals.anchors
    product, first, second = (weights @ column for column in (prediction * sample.truth, prediction, prediction**2))
    mean = (totals.fired_sum + totals.silent_sum) / n
    variance = (totals.fired_square + totals.silent_square) / n - mean**2
    spread = second / n - (first / n) ** 2
    covariance = product / n - mean * first / n
    defined = spread > _FLAT * np.maximum(second / n, 1e-300)
    return np.where(defined, np.clip(covariance / np.sqrt(np.where(defined, spread, 1.0) * variance), -1, 1), 0.0)


def auprc(sample: AnchorSample, weights: Weights, prediction: Float[np.ndarray, " draw"]) -> Float[np.ndarray, " row"]:
    """Average precision at natural density: firing anchors are positive, ties are one threshold.

    At the lowest threshold everything is predicted, so precision there is the density itself.
    """
    levels, place = np.unique(prediction, return_inverse=True)
    at = np.eye(len(levels))[place]
    right, wrong = (
        np.cumsum((weights[:, chosen] @ at[chosen])[:, ::-1], axis=1) for chosen in (sample.fires, ~sample.fires)
    )
    silent = sample.totals.anchors - sample.totals.fired
    wrong = np.minimum(wrong, silent)
    wrong[:, -1] = silent
    recall = right / np.maximum(right[:, -1:], 1e-300)
    precision = right / np.maximum(right + wrong, 1e-300)
    return (np.diff(recall, axis=1, prepend=0.0) * precision).sum(axis=1)


def f1(sample: AnchorSample, weights: Weights, prediction: Float[np.ndarray, " draw"]) -> Float[np.ndarray, " row"]:
    """F1 of predicting that an anchor fires: a level that rounds to 1 or more."""
    positive = prediction >= _PREDICTED
    right, wrong = weights @ (positive & sample.fires), weights @ (positive & ~sample.fires)
    return 2 * right / np.maximum(right + wrong + sample.totals.fired, 1e-300)


def interval(
    sample: AnchorSample,
    prediction: Float[np.ndarray, " draw"],
    estimator: Estimator,
    weights: Weights,
    rng: np.random.Generator,
    top_level: int,
) -> Interval:
    """The estimate with its 95 % intervals; `weights` are those of `rows`, calibrated for correlations.

    The bootstrap knows nothing of what no draw has shown. In the stratum of silent anchors where a draw weighs most,
    the share that is predicted is therefore drawn from both ends of Clopper and Pearson's interval, x of n draws being
    predicted: from Beta(x + 1, n - x) in half of the replicates, from Beta(x, n - x + 1), which is 0 for x = 0, in the
    others. Together they are the mid-p distribution, and share one level with the bootstrap's error. With none seen,
    the lower end is at the share 1 - 0.05^(1/n), Clopper and Pearson's one-sided 95 % limit. Seeing none elsewhere is
    no stronger evidence, since the limit on a number of anchors is the largest where size over n is. Measures of
    counts have it in such a stratum of firing anchors too: predictions there only add to recall, while a correlation
    may fall with them.

    The ends are quantiles of all replicates, accelerated (Efron 1987) by the skewness of the draws' influence:
    samples that hold more false predictions have both lower estimates and larger errors.
    """
    found = estimator(sample, weights, prediction)
    value, n = float(found[0]), len(weights) - 1 - len(prediction)
    over, nudged = found[1 : n + 1], found[n + 1 :]
    half = stats.norm.ppf(1 - _TAIL) * float(_z(over).std(ddof=1))
    low_seen = float(np.tanh(_z(found)[0] - half))
    first = np.arange(n) < n // 2
    doubted = sample, weights[1 : n + 1], prediction
    known = prediction[prediction >= _PREDICTED]  # the levels of few false ones seen say little of those unseen
    known = known if len(known) else np.array([float(top_level)])
    doubted = _doubted(*doubted, _heaviest(sample, firing=False), known, first, rng)
    if estimator is not pearson:
        there = _heaviest(sample, firing=True)
        hits = prediction[(sample.stratum == there) & (prediction >= _PREDICTED)]
        hits = hits if len(hits) else np.ones(1)
        doubted = _doubted(*doubted, there, hits, np.arange(n) % 2 == 0, rng)
    spread = estimator(*doubted)
    below = ((over < value - _FLAT).mean() + (over <= value + _FLAT).mean()) / 2
    levels = _accelerated(n // 2, float(below), _acceleration(sample, nudged - value))
    ends = [np.quantile(part, levels) for part in (spread[first], spread[~first])]
    low, high = np.quantile(np.concatenate(ends), [_TAIL, 1 - _TAIL])
    low = min(float(low), value)
    return Interval(value, low, max(float(high), value), min(max(low, low_seen), value))


def _heaviest(sample: AnchorSample, *, firing: bool) -> int | None:
    """The stratum of firing or of silent anchors in which a draw weighs most; None where all were taken whole."""
    fires = np.isin(np.arange(len(sample.size)), sample.stratum[sample.fires])
    able = (sample.size > sample.taken) & (fires == firing)
    return int(np.argmax(np.where(able, sample.size / np.maximum(sample.taken, 1e-9), -1.0))) if able.any() else None


def _doubted(
    sample: AnchorSample,
    weights: Weights,
    prediction: Float[np.ndarray, " draw"],
    stratum: int | None,
    levels: Float[np.ndarray, " level"],
    more: Bool[np.ndarray, " row"],
    rng: np.random.Generator,
) -> tuple[AnchorSample, Float[np.ndarray, "row some"], Float[np.ndarray, " some"]]:
    """The same with Dirichlet weights in the stratum, of its draws and of one that was not made.

    That one is predicted at one of the `levels` in the rows where there are to be `more`, at 0 in the others. The share
    of x predicted among n draws is then Beta(x + 1, n - x), or Beta(x, n - x + 1).
    """
    if stratum is None:
        return sample, weights, prediction
    at = np.flatnonzero(sample.stratum == stratum)
    alike = np.array([*np.ones(len(at)), max(0.0, sample.taken[stratum] - len(at)), 1.0])
    share = rng.standard_gamma(alike, size=(len(weights), len(alike)))
    share *= sample.size[stratum] / share.sum(axis=1, keepdims=True)
    unmade, place = np.unique(np.where(more, rng.choice(levels, len(weights)), 0.0), return_inverse=True)
    weights = np.concatenate([weights, share[:, -1:] * np.eye(len(unmade))[place]], axis=1)
    weights[:, at] = share[:, : len(at)]
    pure = bool(sample.fires[at].any())
    sample = replace(
        sample,
        stratum=np.append(sample.stratum, np.full(len(unmade), stratum)),
        cluster=np.append(sample.cluster, np.full(len(unmade), -1)),
        truth=np.append(sample.truth, np.full(len(unmade), sample.truth[at].mean() if pure else 0.0)),
        fires=np.append(sample.fires, np.full(len(unmade), pure)),
    )
    return sample, weights, np.append(prediction, unmade)


def _acceleration(sample: AnchorSample, influence: Float[np.ndarray, " draw"]) -> float:
    """A sixth of the skewness of the draws' influence about their strata's means; draws left out have none."""
    square, cube = 0.0, 0.0
    for h, n in enumerate(sample.taken.tolist()):
        here = influence[sample.stratum == h]
        if n <= 1 or n >= sample.size[h] or not len(here):
            continue
        mean, absent = here.sum() / n, max(0.0, n - len(here))
        scale = (1 - n / sample.size[h]) * n / (n - 1)
        square += scale * (((here - mean) ** 2).sum() + absent * mean**2)
        cube += scale**1.5 * (((here - mean) ** 3).sum() - absent * mean**3)
    return float(np.clip(cube / (6 * square**1.5), -_STEEPEST, _STEEPEST)) if square > _FLAT**2 else 0.0


def _accelerated(n: int, below: float, acceleration: float) -> Float[np.ndarray, " level"]:
    """Where to read `n` evenly spaced quantiles of replicates, of which a share `below` lies under the estimate."""
    bias = stats.norm.ppf(np.clip(below, 0.3, 0.7))
    z = bias + stats.norm.ppf((np.arange(n) + 0.5) / n)
    return stats.norm.cdf(bias + z / (1 - acceleration * z))


def _z(correlation: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.arctanh(np.clip(correlation, -_EDGE, _EDGE))
