"""Blinded questions, their truth, and what came of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int32

Question: TypeAlias = Literal["levels"]
"""What is asked of an item: a level for each of its tokens."""


@dataclass(frozen=True, slots=True)
class Item:
    """A blinded question: only items leave a trial."""

    tokens: tuple[str, ...]
    """The tokens as text."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A simulator's answer to one item."""

    levels: tuple[float, ...]
    """Predicted level per token, 0 to the highest level; fractional where the simulator gives expected values."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Items with their truth, which no simulator sees."""

    items: tuple[Item, ...]
    """In the order in which they are asked."""
    ids: Int32[np.ndarray, "item token"]
    """Token ids."""
    truth: Float[np.ndarray, "item token"]
    """Raw activations."""
    unigram: Float[np.ndarray, "item token"]
    """`unigram`'s prediction: the unit's mean activation on each token id over the whole explain split."""
    weights: Float[np.ndarray, " item"]
    """Weight of each of the item's tokens in the weighted measures; unit-free."""
    clusters: Int32[np.ndarray, " item"]
    """Document cluster of each item."""
    groups: tuple[str, ...]
    """Group of each item (`records.unit.Group`)."""
    intervals: Int32[np.ndarray, " item"]
    """Interval for which the item was drawn, 1 to 12; 0 for the items of other groups."""
    maximum: float
    """The explain split's maximum, the scale of the levels."""
    top_level: int
    """The highest level."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number with a 95 % interval over document clusters."""

    value: float
    """The estimate."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


@dataclass(frozen=True, slots=True)
class Undefined:
    """A measure that has no value here; never NaN."""

    reason: str
    """Why, in words."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a trial and its predictions come to."""

    measures: Mapping[str, Measure | Undefined]
    """By name, such as ``spearman``, ``pearson``, ``spearman_weighted``, ``unigram_spearman``."""
    headline: str
    """Which measure the protocol reports first."""
    items: int
    """Items asked."""
    missing: int
    """Items whose prediction failed."""
    constant: bool
    """Whether all predictions were the same number, which scores 0."""
