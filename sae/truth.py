"""How well a dictionary found what was planted."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sae.architectures.initial import unit_rows
from sae.dictionary import Dictionary, encoded
from sae.errors import UserError


@dataclass(frozen=True, slots=True, eq=False)
class TruthMetrics:
    """A dictionary against the planted one, on vectors whose true activations are known.

    Means over planted features count a feature without a partner as 0; means over units leave dead units out.
    """

    n_vectors: int
    """Vectors measured."""
    mmcs_planted: float
    """Mean over planted features of the largest cosine with a living unit's direction (Sharkey et al. 2022)."""
    mmcs_units: float
    """Mean over living units of the largest cosine with a planted direction."""
    mcc: float
    """Mean cosine of planted features with their partners, one to one, that make it largest (Hungarian algorithm)."""
    matched_correlation: float
    """Mean correlation of planted with units' activations, one to one, partners chosen to make it largest."""
    uniqueness: float
    """Distinct planted features that living units are nearest to, per living unit."""
    f1: float
    """Mean over planted features of the F1 score of their partner (by `matched_correlation`) in firing when they do."""
    l0: float
    """Mean number of units that fire per vector."""
    l0_error: float
    """`l0` less the mean number of planted features that fire per vector."""
    fvu: float
    """Fraction of variance unexplained."""
    shrinkage: float
    """Norm of the reconstruction over the norm of the vector, mean over vectors: 1 for none, below 1 for shrinkage."""
    dead: int
    """Units that never fire."""
    unseen: int
    """Planted features that never fire in these vectors: they are left out of `matched_correlation` and `f1`."""
    f1_by_feature: Float[np.ndarray, " feature"]
    """F1 of each planted feature's partner; 0 without one, and for unseen features."""


def evaluate_truth(
    dictionary: Dictionary,
    planted: Float[Tensor, "feature d_in"],
    pieces: Iterable[tuple[Float[Tensor, "token d_in"], Float[Tensor, "token feature"]]],
) -> TruthMetrics:
    """Measure `dictionary` on `pieces` of vectors with their true activations of the `planted` directions.

    Raises `UserError` where the widths differ or there is no vector.
    """
    if dictionary.d_in != planted.shape[1]:
        raise UserError(f"The dictionary expects {dictionary.d_in}, the planted vectors have {planted.shape[1]}.")
    sums = _Sums(len(planted), dictionary.n_units, planted.shape[1])
    for x, truth in pieces:
        for begin, activations in encoded(dictionary, x):
            part = slice(begin, begin + len(activations))
            sums.add(x[part], truth[part], activations, dictionary.decode(activations))
    if not sums.n:
        raise UserError("There are no vectors to measure the dictionary on.")
    seen, living = sums.true_fired > 0, sums.fired > 0
    cosines = (planted @ unit_rows(dictionary.directions()).T).double().numpy()[:, living]
    correlations = np.where(seen[:, None], sums.correlations(), 0.0)
    partners = linear_sum_assignment(correlations, maximize=True)
    matched = linear_sum_assignment(cosines, maximize=True)
    f1 = np.zeros(len(planted))
    f1[partners[0]] = sums.f1()[partners]
    n_seen = max(int(seen.sum()), 1)
    return TruthMetrics(
        n_vectors=sums.n,
        mmcs_planted=float(cosines.max(1).mean()) if living.any() else 0.0,
        mmcs_units=float(cosines.max(0).mean()) if living.any() else 0.0,
        mcc=float(cosines[matched].sum() / len(planted)),
        matched_correlation=float(correlations[partners].sum() / n_seen),
        uniqueness=len(np.unique(cosines.argmax(0))) / cosines.shape[1] if living.any() else 0.0,
        f1=float(f1[seen].sum() / n_seen),
        l0=float(sums.fired.sum() / sums.n),
        l0_error=float((sums.fired.sum() - sums.true_fired.sum()) / sums.n),
        fvu=sums.error / sums.variance(),
        shrinkage=sums.ratio / sums.n,
        dead=int((~living).sum()),
        unseen=int((~seen).sum()),
        f1_by_feature=np.where(seen, f1, 0.0),
    )


class _Sums:
    """Sums over vectors, in float64."""

    def __init__(self, features: int, units: int, d_in: int) -> None:
        self.n = 0
        self.true_fired: Int64[np.ndarray, " feature"] = np.zeros(features, dtype=np.int64)
        self.fired: Int64[np.ndarray, " unit"] = np.zeros(units, dtype=np.int64)
        self.error = self.ratio = self._squares = 0.0
        self._total = np.zeros(d_in)
        self._both = np.zeros((features, units))
        self._products = np.zeros((features, units))
        self._true_moments, self._moments = np.zeros((2, features)), np.zeros((2, units))

    def add(self, x: Tensor, truth: Tensor, found: Tensor, made: Tensor) -> None:
        """Count a few vectors with their true activations, the dictionary's, and its reconstruction."""
        self.n += len(x)
        self.error += float((made - x).double().square().sum())
        self.ratio += float((made.norm(dim=1) / x.norm(dim=1).clamp_min(1e-12)).double().sum())
        self._squares += float(x.double().square().sum())
        self._total += x.double().sum(0).numpy()
        true_fires, fires = (truth > 0).float(), (found > 0).float()
        self.true_fired += true_fires.sum(0).long().numpy()
        self.fired += fires.sum(0).long().numpy()
        self._both += (true_fires.T @ fires).double().numpy()
        self._products += (truth.T @ found).double().numpy()
        self._true_moments += _moments(truth)
        self._moments += _moments(found)

    def variance(self) -> float:
        """Summed squared distance of the vectors from their mean."""
        return self._squares - float(np.square(self._total).sum()) / self.n

    def correlations(self) -> Float[np.ndarray, "feature unit"]:
        """Pearson's, of true with found activations; 0 where either is constant."""
        true_mean, mean = self._true_moments[0] / self.n, self._moments[0] / self.n
        covariance = self._products / self.n - np.outer(true_mean, mean)
        spread = np.outer(_deviation(self._true_moments, self.n), _deviation(self._moments, self.n))
        return np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 0)

    def f1(self) -> Float[np.ndarray, "feature unit"]:
        """Of every unit as a detector of every planted feature."""
        either = self.true_fired[:, None] + self.fired[None, :]
        return np.divide(2 * self._both, either, out=np.zeros_like(self._both), where=either > 0)


def _moments(values: Tensor) -> Float[np.ndarray, "2 column"]:
    """Sums of the values and of their squares."""
    return np.stack([values.double().sum(0).numpy(), values.double().square().sum(0).numpy()])


def _deviation(moments: Float[np.ndarray, "2 column"], n: int) -> Float[np.ndarray, " column"]:
    return np.sqrt(np.maximum(moments[1] / n - np.square(moments[0] / n), 0.0))
