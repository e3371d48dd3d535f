"""Permutation tests of a difference of means: between two arms, and of one arm's units with themselves."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from autointerp.records.trial import Undefined

_EXACT = 20_000
"""Ways to label the units up to which a test counts them all."""
_TIED, _HUGE = 1e-9, 1e100
"""Up to which two statistics are the same but for rounding; what an infinite one is compared as."""
_CELLS = 1 << 20
"""Numbers that a test holds at one time."""


def permutation_test(
    x: Float[np.ndarray, " first"],
    y: Float[np.ndarray, " second"],
    rng: np.random.Generator,
    resamples: int = 1999,
    *,
    error: float | None = None,
) -> float | Undefined:
    """Two-sided p-value of the hypothesis that both arms have the same mean.

    Labels are permuted; the statistic is Welch's t, so that arms of unequal size and spread do not reject too often
    where only their means are equal (Janssen 1997; Chung and Romano 2013). All labellings are counted where there are
    at most 20,000, otherwise `resamples` are drawn and the observed one is counted with them (Phipson and Smyth 2010).
    Permuted labels know nothing of documents that units share: where `error` is given, the standard error of the
    difference that counts them, the observed difference is taken in it instead of Welch's. `Undefined` below two units
    in either arm.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return Undefined(f"{n} and {m} units; a test needs two of each")
    pooled = np.concatenate([x, y]).astype(np.float64)
    pooled -= pooled.mean()
    observed = abs(float(x.mean() - y.mean())) / error if error else float(_welch(pooled[None, :n], pooled)[0])
    exact = math.comb(n + m, n) <= _EXACT
    drawn = [_welch(block, pooled) for block in _relabelled(pooled, n, rng, resamples, exact=exact)]
    return _tail(observed, np.concatenate(drawn), exact=exact)


def sign_flip_test(
    differences: Float[np.ndarray, " unit"],
    rng: np.random.Generator,
    resamples: int = 1999,
    *,
    error: float | None = None,
) -> float | Undefined:
    """Two-sided p-value of the hypothesis that differences of the same units have mean 0: `permutation_test` in pairs.

    Within every unit the two values change places, which turns the sign of its difference; the statistic is Student's
    t. All signs are counted up to 14 units. `error` as in `permutation_test`. `Undefined` below two units.
    """
    n = len(differences)
    if n < 2:
        return Undefined(f"{n} units; a test needs two")
    values = differences.astype(np.float64)
    observed = abs(float(values.mean())) / error if error else float(_student(values[None])[0])
    exact = 2**n <= _EXACT
    drawn = [_student(signs * values) for signs in _signs(n, rng, resamples, exact=exact)]
    return _tail(observed, np.concatenate(drawn), exact=exact)


def _tail(observed: float, drawn: Float[np.ndarray, " labelling"], *, exact: bool) -> float:
    """Share of the labellings that are as extreme; never 0, since the observed labelling is one of them."""
    extreme = int((drawn >= min(observed, _HUGE) * (1 - _TIED) - _TIED).sum())
    return max(extreme, 1) / len(drawn) if exact else (1 + extreme) / (1 + len(drawn))


def _signs(
    n: int, rng: np.random.Generator, resamples: int, *, exact: bool
) -> Iterator[Float[np.ndarray, "labelling unit"]]:
    if exact:
        yield np.array(list(itertools.product((1.0, -1.0), repeat=n)))
        return
    at_once = max(1, _CELLS // n)
    for begin in range(0, resamples, at_once):
        yield rng.choice((1.0, -1.0), size=(min(at_once, resamples - begin), n))


def _student(values: Float[np.ndarray, "labelling unit"]) -> Float[np.ndarray, " labelling"]:
    """Absolute t statistic of each labelling; infinite where the mean is not 0 and nothing scatters."""
    n = values.shape[1]
    mean, scale = values.mean(1), np.abs(values).max()
    spread = np.maximum((values**2).sum(1) - n * mean**2, 0) / (n * (n - 1))
    flat = spread <= 1e-14 * scale**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flat, np.where(np.abs(mean) > 1e-9 * scale, np.inf, 0.0), np.abs(mean) / np.sqrt(spread))


def _relabelled(
    pooled: np.ndarray, n: int, rng: np.random.Generator, resamples: int, *, exact: bool
) -> Iterator[Float[np.ndarray, "labelling unit"]]:
    """The values of the units labelled as the first arm's."""
    if exact:
        yield pooled[np.array(list(itertools.combinations(range(len(pooled)), n)))]
        return
    at_once = max(1, _CELLS // len(pooled))
    for begin in range(0, resamples, at_once):
        rows = min(at_once, resamples - begin)
        yield rng.permuted(np.broadcast_to(pooled, (rows, len(pooled))), axis=1)[:, :n]


def _welch(first: Float[np.ndarray, "labelling unit"], pooled: np.ndarray) -> Float[np.ndarray, " labelling"]:
    """Absolute Welch statistic of each labelling; infinite where means differ and nothing scatters."""
    n, m = first.shape[1], len(pooled) - first.shape[1]
    total, square = first.sum(1), (first**2).sum(1)
    rest, rest_square = pooled.sum() - total, (pooled**2).sum() - square
    gap = total / n - rest / m
    spread = np.maximum(square - total**2 / n, 0) / (n * (n - 1))
    spread += np.maximum(rest_square - rest**2 / m, 0) / (m * (m - 1))
    scale = np.abs(pooled).max()
    flat = spread <= 1e-14 * scale**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flat, np.where(np.abs(gap) > 1e-9 * scale, np.inf, 0.0), np.abs(gap) / np.sqrt(spread))
