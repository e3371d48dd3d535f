"""Measures with their intervals over resampled document clusters, and what documents do to them."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from autointerp.records.trial import Influence, Measure, Undefined
from autointerp.statistics import FEWEST, ClusterDraws, pearson, percentiles, resampled_pearson

NOT_GIVEN = Undefined("the source does not give this predictor")
"""Where a reference predictor is not known."""


def measured(
    values: Float[np.ndarray, " resample_and_own"], draws: ClusterDraws, lowest: float, reason: str
) -> Measure | Undefined:
    """The first of `values`, which is the sample's own, with the 95 % percentile interval of the others.

    `Undefined` for `reason` where it is no number; an interval from `lowest` to 1 says that there were too few document
    clusters to know. Resamples without a value are left out.
    """
    value = float(values[0])
    if not np.isfinite(value):
        return Undefined(reason)
    resampled = values[1:][np.isfinite(values[1:])]
    if len(np.unique(draws.clusters)) < FEWEST or not len(resampled):
        return Measure(value, lowest, 1.0)
    interval = percentiles(resampled)
    return Measure(value, interval.low, interval.high)


def with_own(draws: ClusterDraws) -> Float[np.ndarray, "resample_and_own item"]:
    """How often each resample has each item, the sample itself first."""
    return np.concatenate([np.ones((1, draws.times.shape[1])), draws.times])


def correlations(
    truth: Float[np.ndarray, "item token"], prediction: Float[np.ndarray, "item token"], times: np.ndarray
) -> Float[np.ndarray, " resample_and_own"]:
    """Pearson correlation over all tokens, by resample: 0 where only the prediction is constant, else no number."""
    own = pearson(truth, prediction)
    if own is None:
        return np.full(len(times), np.nan)
    found = resampled_pearson(truth, prediction, times)
    found[0] = own
    return found


def average_precision(
    certainty: Float[np.ndarray, " item"], positive: Bool[np.ndarray, " item"], weights: Float[np.ndarray, "row item"]
) -> Float[np.ndarray, " row"]:
    """Area under the precision-recall curve as average precision, ties taken together; no number without positives."""
    levels, place = np.unique(certainty, return_inverse=True)
    at = np.eye(len(levels))[place]
    right, wrong = (np.cumsum(((weights * chosen) @ at)[:, ::-1], axis=1) for chosen in (positive, ~positive))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(right + wrong > 0, right / (right + wrong), 0.0)
        return (np.diff(right, axis=1, prepend=0.0) * precision).sum(axis=1) / right[:, -1]


def influence_of(clusters: Int[np.ndarray, " item"], by_item: Mapping[str, Float[np.ndarray, " item"]]) -> Influence:
    """The items' influences on each measure, added up by document cluster."""
    names, place = np.unique(clusters, return_inverse=True)
    changes = {name: np.bincount(place, each).astype(np.float16) for name, each in by_item.items()}
    return Influence(names.astype(np.int32), changes)
