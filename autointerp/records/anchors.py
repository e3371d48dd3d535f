"""Anchors: token positions as a population, and samples of them."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

INTERVALS_PER_STRATUM = 2
"""Neighbouring activation intervals that make a stratum of firing anchors."""


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """The windows of one split, as token ids."""

    row: Int32[np.ndarray, " window"]
    """Row of the store's windows."""
    tokens: Int32[np.ndarray, "window position"]
    """Token ids."""
    length: Int32[np.ndarray, " window"]
    """Positions that are not padding."""
    cluster: Int32[np.ndarray, " window"]
    """Id of each document's near-duplicate cluster."""
    first: int
    """First position that counts."""
    vocabulary: tuple[str, ...]
    """Displayed text of every token id."""


@dataclass(frozen=True, slots=True, eq=False)
class FiringAnchors:
    """A sample of the anchors at which a unit fires in one split, and what is known of all of them.

    Anchors lie in strata: `INTERVALS_PER_STRATUM` neighbouring equal intervals of (0, explain maximum] each, those
    above in the last. Within a stratum the sample is
    uniform over anchors, in random order, so that any beginning of it is a sample too.
    """

    window: Int32[np.ndarray, " draw"]
    """Row of the store's windows."""
    position: Int32[np.ndarray, " draw"]
    """Position in the window."""
    value: Float[np.ndarray, " draw"]
    """Activation there."""
    stratum: Int[np.ndarray, " draw"]
    """Stratum of each draw, from 0."""
    counts: Int[np.ndarray, " stratum"]
    """Firing anchors of the stratum in the whole split."""
    sums: Float[np.ndarray, " stratum"]
    """Sum of their activations."""
    squares: Float[np.ndarray, " stratum"]
    """Sum of their squares."""
    anchors: int
    """Anchors of the split, firing or not."""
    silent_sum: float
    """Sum of the activations of anchors that do not fire: above 0 only where units have thresholds."""
    silent_square: float
    """Sum of their squares."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What is known exactly of a population of anchors."""

    anchors: int
    """Anchors in all."""
    fired: int
    """Anchors that fire."""
    fired_sum: float
    """Sum of the activations of anchors that fire."""
    fired_square: float
    """Sum of their squares."""
    silent_sum: float = 0.0
    """Sum of the activations of anchors that do not fire."""
    silent_square: float = 0.0
    """Sum of their squares."""


@dataclass(frozen=True, slots=True, eq=False)
class AnchorSample:
    """Anchors drawn from strata, uniformly and without replacement within each.

    A stratum holds either firing anchors only, or anchors of both kinds. A draw from one of the latter that turns out
    to fire is left out of the sample, since its anchor is in a firing stratum too; but it was taken, and counts as a
    zero of the silent domain (Särndal, Swensson and Wretman 1992, section 10.3).
    """

    stratum: Int[np.ndarray, " draw"]
    """Stratum of each draw, from 0."""
    cluster: Int[np.ndarray, " draw"]
    """Document cluster of each draw."""
    truth: Float[np.ndarray, " draw"]
    """Activation, >= 0."""
    fires: Bool[np.ndarray, " draw"]
    """Whether the anchor fires."""
    size: Float[np.ndarray, " stratum"]
    """Anchors in each stratum."""
    taken: Float[np.ndarray, " stratum"]
    """Draws taken from each, those left out included."""
    totals: Totals
    """Of the population."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Uniformly random excerpts of one split, the same for every unit."""

    window: Int32[np.ndarray, " excerpt"]
    """Row of the store's windows."""
    start: Int32[np.ndarray, " excerpt"]
    """Position of the first token."""
    cluster: Int32[np.ndarray, " excerpt"]
    """Id of the document's cluster."""
    ids: Int32[np.ndarray, "excerpt token"]
    """Token ids."""


Activations: TypeAlias = Float[np.ndarray, "window position"]
