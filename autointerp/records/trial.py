"""Blinded questions, their truth, and what came of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float16, Int32

from autointerp.records.anchors import AnchorSample

Question: TypeAlias = Literal["levels", "levels-10", "detection", "fuzzing", "logits"]
"""What is asked of an item: a level for each of its tokens, 0 to 9 or 0 to 10; or one yes or no: whether the unit fires
on any token, whether the marked tokens are those on which it fires, whether it makes the token likelier to be next."""


@dataclass(frozen=True, slots=True)
class Item:
    """A blinded question: only items leave a trial."""

    tokens: tuple[str, ...]
    """The tokens as text."""
    marked: tuple[int, ...] = ()
    """Places of the tokens that are marked, rising, where the question is about marks."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A simulator's answer to one item."""

    levels: tuple[float, ...]
    """Predicted level per token, 0 to the highest level; fractional where the simulator gives expected values. The
    answer to a yes-or-no question is one number: the certainty of yes, 0 to 1; yes from one half."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What answers yes-or-no questions without an explanation, fitted on contexts of the explain split."""

    cut: float
    """Where the answer of `unigram` turns to yes, in (0, 1]. `bigram` is cut there too: in the explain split, which it
    is the mean of, most pairs occur once, and it would tell what it has seen."""
    place: int | None
    """The place at which a mark speaks most for yes; None where nothing is marked."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Items with their truth, which no simulator sees."""

    items: tuple[Item, ...]
    """In the order in which they are asked."""
    ids: Int32[np.ndarray, "item position"]
    """Token ids."""
    truth: Float[np.ndarray, "item token"]
    """Raw activations; of yes-or-no questions one column, 1 for yes."""
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
    sample: AnchorSample | None = None
    """How the items' anchors were drawn, one draw per item in their order; None where no population is estimated."""
    references: Mapping[str, float] = field(default_factory=dict[str, float])
    """`UnitRecord.references`."""
    bigram: Float[np.ndarray, "item token"] | None = None
    """`bigram`'s prediction: the mean activation on each pair of a token and the one before it, over the whole explain
    split; None where the source has no such table."""
    fitted: Bool[np.ndarray, " item"] | None = None
    """Items of the calibrate split, on which predictions are rescaled and which are not scored; None for none."""
    anchors: Int32[np.ndarray, " item"] | None = None
    """Which token each item was drawn for, counted from 0; None where items are not drawn for a token."""
    learnt: Learnt | None = None
    """Of yes-or-no questions; None where the explain split has no contexts, or not both kinds, to fit it on."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """What the documents of a trial do to a unit's measures: units that share documents err together."""

    clusters: Int32[np.ndarray, " cluster"]
    """Document clusters of the items that were scored, rising."""
    changes: Mapping[str, Float16[np.ndarray, " cluster"]]
    """By measure, its derivative by each cluster's relative weight; adds up to 0. A measure may be missing."""


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
    influence: Influence | None = field(default=None, compare=False)
    """None where a scorer or an older table gives none."""
