"""Estimates over a whole population of anchors from a stratified sample of them: pure, design-based.

What the harvest counted of the population (anchors, firings, sums, squares) is used as it is, so that only the
simulator's side is estimated. Sources: Särndal, Swensson and Wretman 1992, "Model assisted survey sampling", chapters
3, 6 and 10; Rao and Wu 1988, "Resampling inference with complex survey data"; Clopper and Pearson 1934.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from autointerp.records.anchors import AnchorSample

REPLICATES = 300
"""Bootstrap replicates behind an interval."""
_TAIL = 0.025
_EDGE = 1 - 1e-9
_FLAT = 1e-12

Weights: TypeAlias = Float[np.ndarray, "replicate draw"]


@dataclass(frozen=True, slots=True)
class Unseen:
    """False predictions that may lie where none was drawn, by replicate."""

    count: Float[np.ndarray, " replicate"]
    """Anchors with a false prediction."""
    levels: Float[np.ndarray, " level"]
    """Levels that they are taken to have, each as often as the others."""


Estimator: TypeAlias = Callable[[AnchorSample, Weights, Float[np.ndarray, " draw"], Unseen | None], np.ndarray]
"""A measure by replicate, from sample, weights and predictions; correlations want `calibrated` weights."""


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
    sample: AnchorSample, weights: Weights, prediction: Float[np.ndarray, " draw"], unseen: Unseen | None = None
) -> Float[np.ndarray, " replicate"]:
    """Pearson correlation of prediction and truth over all anchors; 0 where the prediction is constant."""
    totals, n = sample.totals, sample.totals.anchors
    product, first, second = (weights @ column for column in (prediction * sample.truth, prediction, prediction**2))
    if unseen is not None:
        first = first + unseen.count * unseen.levels.mean()
        second = second + unseen.count * (unseen.levels**2).mean()
    mean = (totals.fired_sum + totals.silent_sum) / n
    variance = (totals.fired_square + totals.silent_square) / n - mean**2
    spread = second / n - (first / n) ** 2
    covariance = product / n - mean * first / n
    defined = spread > _FLAT * np.maximum(second / n, 1e-300)
    return np.where(defined, np.clip(covariance / np.sqrt(np.where(defined, spread, 1.0) * variance), -1, 1), 0.0)


def auprc(
    sample: AnchorSample, weights: Weights, prediction: Float[np.ndarray, " draw"], unseen: Unseen | None = None
) -> Float[np.ndarray, " replicate"]:
    """Average precision at natural density: firing anchors are positive, ties are one threshold.

    At the lowest threshold everything is predicted, so precision there is the density itself.
    """
    levels, place = np.unique(prediction, return_inverse=True)
    at = np.eye(len(levels))[place]
    right, wrong = (
        np.cumsum((weights[:, chosen] @ at[chosen])[:, ::-1], axis=1) for chosen in (sample.fires, ~sample.fires)
    )
    if unseen is not None:
        share = (unseen.levels[None, :] >= levels[::-1, None]).mean(axis=1)
        wrong = wrong + unseen.count[:, None] * share
    silent = sample.totals.anchors - sample.totals.fired
    wrong = np.minimum(wrong, silent)
    wrong[:, -1] = silent
    recall = right / np.maximum(right[:, -1:], 1e-300)
    precision = right / np.maximum(right + wrong, 1e-300)
    return (np.diff(recall, axis=1, prepend=0.0) * precision).sum(axis=1)


def f1(
    sample: AnchorSample, weights: Weights, prediction: Float[np.ndarray, " draw"], unseen: Unseen | None = None
) -> Float[np.ndarray, " replicate"]:
    """F1 of predicting that an anchor fires: a level that rounds to 1 or more."""
    positive = prediction >= 0.5
    right, wrong = weights @ (positive & sample.fires), weights @ (positive & ~sample.fires)
    if unseen is not None:
        wrong = wrong + unseen.count * (unseen.levels >= 0.5).mean()
    return 2 * right / np.maximum(right + wrong + sample.totals.fired, 1e-300)


def interval(
    sample: AnchorSample,
    prediction: Float[np.ndarray, " draw"],
    estimator: Estimator,
    weights: Float[np.ndarray, "1 draw"],
    resampled: Weights,
    rng: np.random.Generator,
    top_level: int,
) -> Interval:
    """The estimate with its 95 % intervals; `weights` has one row, `resampled` those of `replicates`.

    The standard error over the replicates is taken on Fisher's z scale. To the lower end are added the false
    predictions that may lie in the stratum where a draw weighs most and mostly none is found: their share there is
    drawn from Beta(x + 1, n - x), x false ones being seen in n draws, whose 97.5 % point is Clopper and Pearson's
    limit, also for x = 0. Seeing none elsewhere is no stronger evidence for the population than there, since the
    limit on a number of anchors, size times 1 - 0.025^(1/n), is the largest where size over n is.
    """
    found = estimator(sample, weights, prediction, None)
    value = float(found[0])
    over = estimator(sample, resampled, prediction, None)
    error = float(_z(over).std(ddof=1))
    half = stats.norm.ppf(1 - _TAIL) * error
    low_seen, high = (float(np.tanh(_z(found)[0] + sign * half)) for sign in (-1, 1))
    low = low_seen
    rare = _rarest(sample)
    if rare is not None:
        false = ~sample.fires & (prediction >= 0.5)
        here = sample.stratum == rare
        seen, drawn = int((false & here).sum()), float(sample.taken[rare])
        count = sample.size[rare] * rng.beta(seen + 1, max(drawn - seen, 1e-9), size=len(resampled))
        known = prediction[false] if false.any() else prediction[prediction >= 0.5]
        levels = known if len(known) else np.array([float(top_level)])
        cleared = np.where(here & false, 0.0, prediction)
        worst = estimator(sample, resampled, cleared, Unseen(count, levels))
        low = min(low_seen, float(np.quantile(worst, _TAIL)))
    return Interval(value, min(low, value), max(high, value), min(low_seen, value))


def _z(correlation: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.arctanh(np.clip(correlation, -_EDGE, _EDGE))


def _rarest(sample: AnchorSample) -> int | None:
    """The stratum of silent anchors in which a draw weighs most; None where all were taken whole."""
    mixed = sample.size > sample.taken
    mixed[np.unique(sample.stratum[sample.fires])] = False
    if not mixed.any():
        return None
    return int(np.argmax(np.where(mixed, sample.size / np.maximum(sample.taken, 1e-9), -1.0)))
