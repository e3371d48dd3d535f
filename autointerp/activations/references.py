"""Reference predictors: what the token, or the token and the one before it, say of a unit without any explanation.

`unigram` predicts a unit's mean activation on a token over the explain split, `bigram` its mean on a pair of tokens,
and `unigram` where the explain split does not have the pair.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy import sparse

from autointerp.activations.pairs import PairSums
from autointerp.records.unit import REFERENCES


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """A split's activations, as far as a prediction is held against them."""

    n: int
    """Positions."""
    total: Float[np.ndarray, " unit"]
    """Sum of each unit's activations."""
    squares: Float[np.ndarray, " unit"]
    """Sum of their squares."""
    fired: Float[np.ndarray, " unit"]
    """Firing positions."""


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """Where a predictor says something above 0: (unit, cell) pairs, unit by unit. Elsewhere it says 0."""

    unit: Int64[np.ndarray, " entry"]
    """Rising."""
    value: Float[np.ndarray, " entry"]
    """Predicted activation, > 0, the same at every position of the cell."""
    positions: Float[np.ndarray, " entry"]
    """Positions of the cell in the split that is predicted, > 0."""
    total: Float[np.ndarray, " entry"]
    """Sum of the unit's activations there."""
    fired: Float[np.ndarray, " entry"]
    """Positions there at which the unit fires."""


def population_pearson(predicted: Predicted, truth: Truth) -> Float[np.ndarray, " unit"]:
    """Pearson correlation over every position of the split; NaN where the truth is constant, 0 where only the
    prediction is."""
    n_units = len(truth.total)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(predicted.unit, weights=values, minlength=n_units)

    p = summed(predicted.positions * predicted.value)
    p_squares = summed(predicted.positions * predicted.value**2)
    covariance = summed(predicted.value * predicted.total) - p * truth.total / truth.n
    p_variance, x_variance = p_squares - p**2 / truth.n, truth.squares - truth.total**2 / truth.n
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.where(p_variance > 0, covariance / np.sqrt(p_variance * x_variance), 0.0)
    return np.where(x_variance > 0, correlation.clip(-1, 1), np.nan)


def population_auprc(predicted: Predicted, truth: Truth) -> Float[np.ndarray, " unit"]:
    """Average precision at finding the firing positions of the split, ties taken together; NaN where there is none."""
    n_units = len(truth.total)
    order = np.lexsort((-predicted.value, predicted.unit))
    unit, value = predicted.unit[order], predicted.value[order]
    begins = np.searchsorted(unit, np.arange(n_units))
    found, taken = (_running(column[order], unit, begins) for column in (predicted.fired, predicted.positions))
    last = np.ones(len(unit), dtype=np.bool_)
    last[:-1] = (unit[1:] != unit[:-1]) | (value[1:] != value[:-1])
    unit, found, taken = unit[last], found[last], taken[last]
    before = np.zeros(len(unit))
    before[1:] = np.where(unit[1:] == unit[:-1], found[:-1], 0.0)
    precise = np.bincount(unit, weights=(found - before) * found / taken, minlength=n_units)
    rest = truth.fired - np.bincount(predicted.unit, weights=predicted.fired, minlength=n_units)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (precise + rest * truth.fired / truth.n) / truth.fired


def _running(values: np.ndarray, unit: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Cumulative sums that start anew with every unit."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return sums[1:] - sums[begins[unit]]


class References:
    """Both predictors of one arm, from its sums."""

    def __init__(self, sums: PairSums, steps: Float32[np.ndarray, " unit"]) -> None:
        self._sums, self._scale = sums, 1 / steps.astype(np.float64)
        explain, n = sums.sums("explain"), sums.counts("explain")
        by_token = sums.by_token(explain)
        occurrences = np.bincount(sums.cells.column, weights=n, minlength=len(sums.cells.tokens))
        self._unigram = self._means(by_token, occurrences)
        pairs = sparse.csc_array(explain)
        pairs.data[pairs.indices >= sums.cells.n_pairs] = 0
        self._pairs = self._means(pairs, n)

    def token_means(self) -> tuple[Int64[np.ndarray, " row"], Int64[np.ndarray, " row"], Float[np.ndarray, " row"]]:
        """Unit, token id and mean activation where it is above 0, unit by unit."""
        return _units(self._unigram), self._sums.cells.tokens[self._unigram.indices], self._unigram.data

    def bigram(
        self, place: Int64[np.ndarray, "excerpt token"], row: np.ndarray
    ) -> Float32[np.ndarray, "excerpt token"]:
        """`bigram`'s prediction for the units `row`, each at its own positions `place` of either split."""
        cell = self._sums.place_of(place)
        column = self._sums.cells.column[cell]
        unit = np.broadcast_to(row[:, None], place.shape)
        alone = _at(self._unigram, column.reshape(-1), unit.reshape(-1))
        paired = _at(self._pairs, cell.reshape(-1), unit.reshape(-1))
        known = (cell < self._sums.cells.n_pairs).reshape(-1)
        return np.where(known, paired, alone).reshape(place.shape).astype(np.float32)

    def population(self, squares: np.ndarray, n: int) -> dict[str, Float[np.ndarray, " unit"]]:
        """`REFERENCES` over the `n` positions of the score split, of whose activations `squares` are summed."""
        score, fired, counts = self._sums.sums("score"), self._sums.fired(), self._sums.counts("score")
        truth = Truth(n, score.sum(0) * self._scale, squares, fired.sum(0))
        by_token, fired_by_token = self._sums.by_token(score), self._sums.by_token(fired)
        cells = self._sums.cells
        token_counts = np.bincount(cells.column, weights=counts, minlength=len(cells.tokens))
        unigram = self._predicted(self._unigram, by_token, fired_by_token, token_counts)
        above = sparse.csc_array((cells.n_pairs, len(squares)))
        alone = sparse.csc_array(sparse.vstack([above, self._unigram]))
        bigram = self._predicted(sparse.csc_array(self._pairs + alone), score, fired, counts)
        measures = (population_pearson, population_auprc)
        values = (measure(each, truth) for each in (unigram, bigram) for measure in measures)
        return dict(zip(REFERENCES, values, strict=True))

    def _predicted(
        self, means: sparse.csc_array, score: sparse.csr_array, fired: sparse.csr_array, counts: np.ndarray
    ) -> Predicted:
        there = counts[means.indices] > 0  # a token of the explain split that the score split lacks predicts nothing
        unit, cell, value = _units(means)[there], means.indices[there], means.data[there]
        total, firing = (_at(sparse.csc_array(matrix), cell, unit) for matrix in (score, fired))
        return Predicted(unit, value, counts[cell].astype(np.float64), total * self._scale[unit], firing)

    def _means(self, sums: sparse.csr_array | sparse.csc_array, n: np.ndarray) -> sparse.csc_array:
        means = sparse.csc_array(sums)
        means.eliminate_zeros()
        means.sort_indices()
        means.data = means.data * self._scale[_units(means)] / n[means.indices]
        return means


def _units(matrix: sparse.csc_array) -> Int64[np.ndarray, " entry"]:
    return np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))


def _at(matrix: sparse.csc_array, cell: np.ndarray, unit: np.ndarray) -> Float[np.ndarray, " entry"]:
    """Values at (cell, unit), 0 where there is none."""
    matrix.sort_indices()
    if not matrix.nnz:
        return np.zeros(len(cell))
    keys = (_units(matrix) << 32) + matrix.indices
    wanted = (unit.astype(np.int64) << 32) + cell
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, matrix.data[at], 0.0)
