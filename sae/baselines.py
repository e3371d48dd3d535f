"""Dictionaries that nobody trained: what an autoencoder has to beat."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from sae.dictionary import Dictionary
from sae.errors import UserError

LEVELS = 10
"""Levels into which the range of a unit is divided when its activations are shown."""


@dataclass(frozen=True, slots=True)
class Neurons:
    """The site's own basis.

    Where activations can be negative each neuron gives two units: 2 n, its positive tail relu(x), and 2 n + 1, its
    negative tail relu(-x).
    """

    d_in: int
    """Neurons."""
    signed: bool
    """Whether each has two tails; the activations of an unsigned site must be >= 0."""

    @property
    def n_units(self) -> int:
        """Number of units."""
        return 2 * self.d_in if self.signed else self.d_in

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
        """Each neuron's activation, or its two tails beside each other."""
        return torch.stack((x, -x), dim=-1).flatten(1).relu_() if self.signed else x

    def decode(self, activations: Float[Tensor, "token unit"]) -> Float[Tensor, "token d_in"]:
        """The site's activations, exactly."""
        return activations[:, 0::2] - activations[:, 1::2] if self.signed else activations

    def directions(self) -> Float[Tensor, "unit d_in"]:
        """Basis vectors, negated for negative tails."""
        basis = torch.eye(self.d_in)
        return torch.stack((basis, -basis), dim=1).flatten(0, 1) if self.signed else basis

    def names(self) -> tuple[str, ...]:
        """``77``, or ``77+`` and ``77-``."""
        tails = ("+", "-") if self.signed else ("",)
        return tuple(f"{neuron}{tail}" for neuron in range(self.d_in) for tail in tails)


@dataclass(frozen=True, slots=True, eq=False)
class Thresholded:
    """A dictionary whose units are silent up to a threshold of their own; above it they keep their value."""

    inner: Dictionary
    """The dictionary as it was."""
    thresholds: Float[Tensor, " unit"]
    """Per unit, >= 0."""

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return self.inner.d_in

    @property
    def n_units(self) -> int:
        """Number of units."""
        return self.inner.n_units

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
        """Activations above their unit's threshold, else 0."""
        activations = self.inner.encode(x)
        above = activations > self.thresholds.to(activations.device)
        return torch.where(above, activations, torch.zeros((), device=activations.device, dtype=activations.dtype))

    def decode(self, activations: Float[Tensor, "token unit"]) -> Float[Tensor, "token d_in"]:
        """As the inner dictionary."""
        return self.inner.decode(activations)

    def directions(self) -> Float[Tensor, "unit d_in"]:
        """As the inner dictionary."""
        return self.inner.directions()

    def names(self) -> tuple[str, ...]:
        """As the inner dictionary."""
        return self.inner.names()


class RandomDirections:
    """Units along random directions: relu(x W^T), the rows of W Gaussian and of length 1."""

    def __init__(self, width: int, n_units: int, seed: int, device: str | torch.device = "cpu") -> None:
        rows = np.random.default_rng(seed).standard_normal((n_units, width))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        self._rows = torch.from_numpy(rows.astype(np.float32)).to(device)

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return self._rows.shape[1]

    @property
    def n_units(self) -> int:
        """Number of units."""
        return self._rows.shape[0]

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
        """Rectified projections on the directions."""
        return (x @ self._rows.T).relu_()

    def decode(self, activations: Float[Tensor, "token unit"]) -> Float[Tensor, "token d_in"]:
        """Sum of the directions, weighted by the activations; no attempt at reconstruction."""
        return activations @ self._rows

    def directions(self) -> Float[Tensor, "unit d_in"]:
        """The unit-norm rows."""
        return self._rows

    def names(self) -> tuple[str, ...]:
        """Indices."""
        return tuple(str(i) for i in range(self.n_units))


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalComponents:
    """Projections on the principal components of the site, each with two tails: 2 n positive, 2 n + 1 negative.

    A component has no sign of its own, so both tails are units, as those of a signed neuron are: to rank by one tail
    only, or by the stronger one, would make the baseline weaker or choose it by its data.
    """

    mean: Float[Tensor, " d_in"]
    """Of the site's activations."""
    components: Float[Tensor, "component d_in"]
    """Orthonormal rows, by falling variance."""

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return self.components.shape[1]

    @property
    def n_units(self) -> int:
        """Number of units."""
        return 2 * len(self.components)

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
        """The two tails of each projection beside each other."""
        projected = (x - self.mean) @ self.components.T
        return torch.stack((projected, -projected), dim=-1).flatten(1).relu_()

    def decode(self, activations: Float[Tensor, "token unit"]) -> Float[Tensor, "token d_in"]:
        """The site's activations, exactly where there are as many components as numbers."""
        return (activations[:, 0::2] - activations[:, 1::2]) @ self.components + self.mean

    def directions(self) -> Float[Tensor, "unit d_in"]:
        """The components, negated for negative tails."""
        return torch.stack((self.components, -self.components), dim=1).flatten(0, 1)

    def names(self) -> tuple[str, ...]:
        """``3+`` and ``3-``, counted from the component of the most variance."""
        return tuple(f"{i}{tail}" for i in range(len(self.components)) for tail in "+-")


def principal_components(rows: Float32[np.ndarray, "token d_in"]) -> PrincipalComponents:
    """The principal components of a sample of the site, such as `site_sample` gives.

    Each is signed so that its entry of the largest size is positive, which makes names the same on every machine.
    """
    mean = rows.mean(0, dtype=np.float64)
    centred = rows - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    components = vectors.T[::-1]
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
    return PrincipalComponents(*(torch.from_numpy(a.astype(np.float32)) for a in (mean, components * np.sign(largest))))


def matched_thresholds(
    activations: Float32[np.ndarray, "token unit"], densities: Float[np.ndarray, " target"], seed: int
) -> Float32[np.ndarray, " unit"]:
    """Thresholds above which each unit fires at a density drawn at random from `densities` (each 0 to 1).

    Densities are drawn without replacement where there are enough, else with. A unit's threshold is the order
    statistic of the sample that leaves round(density * n) tokens strictly above it (fewer where values tie), and at
    least 0: a unit that fires less often than its target stays as it is. The sample of n tokens resolves densities
    to 1/n; a target below half of that gives a unit that never fires in the sample.

    Raises `UserError` where there is no density to match.
    """
    n, n_units = activations.shape
    if not len(densities) or not n:
        raise UserError("There is no density to match.", do="Harvest more tokens, or choose units that fire.")
    drawn = np.random.default_rng(seed).choice(densities, size=n_units, replace=len(densities) < n_units)
    above = np.clip(np.rint(drawn * n).astype(np.int64), 0, n)
    thresholds = np.zeros(n_units, dtype=np.float32)
    for unit in np.flatnonzero(above < n):
        rank = n - 1 - above[unit]
        thresholds[unit] = np.partition(activations[:, unit], rank)[rank]
    return np.maximum(thresholds, 0)


def fire_thresholds(activations: Float32[np.ndarray, "token unit"], *, signed: bool) -> Float32[np.ndarray, " unit"]:
    """Activation above which a unit is said to fire.

    At a signed site every neuron is a little on everywhere, so that the threshold is a tenth of the sample's maximum,
    where level 1 of 10 begins; elsewhere it is 0.
    """
    if not signed or not len(activations):
        return np.zeros(activations.shape[1], dtype=np.float32)
    return (activations.max(0) / LEVELS).astype(np.float32)
