"""What is explained, and what the harvest knows of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from autointerp.records.anchors import FiringAnchors

N_INTERVALS = 12
"""Equal intervals of (0, maximum] into which the harvest sorts excerpts."""
Split: TypeAlias = Literal["explain", "select", "calibrate", "score"]
"""Part of the corpus by document cluster: an explainer sees the first, the best of several explanations is chosen on
the second, predictions are rescaled by the third, scores come from the last."""

Group: TypeAlias = Literal["top", "interval", "random", "out_of_context"]
"""Why an excerpt was drawn: the highest activations; one of 12 equal intervals of (0, maximum]; uniformly at
random, the same windows for all units; an occurrence of one of the unit's top tokens whatever its activation."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A feature of an autoencoder, or one tail of a neuron."""

    arm: str
    """Label of the arm, such as ``features`` or ``neurons``."""
    index: int
    """Row of the arm's dictionary, counted from 0."""
    name: str
    """What people read, such as ``1234``, ``77+`` or ``77-``."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A few consecutive tokens of one window, with the unit's activation at each."""

    window: int
    """Row of the store's windows."""
    start: int
    """Position of the first token in the window."""
    cluster: int
    """Id of the document's near-duplicate cluster: the sampling unit of every interval."""
    ids: tuple[int, ...]
    """Token ids."""
    tokens: tuple[str, ...]
    """The same as text; bytes that are not UTF-8 on their own are written by `notation.display`."""
    activations: tuple[float, ...]
    """Raw activation of the unit at each token, >= 0."""
    anchor: int
    """Which token the excerpt was drawn for, counted from 0 within the excerpt."""
    group: Group
    """Why it was drawn."""
    interval: int
    """1 to 12 for the interval of the anchor's activation, 0 where the anchor does not fire."""
    bigram: tuple[float, ...] = ()
    """`bigram`'s prediction at each token: the unit's mean activation on the pair of it and the token before it over
    the explain split, or on the token where that pair is unknown. Empty in the explain split, and where a source has
    no such table."""


@dataclass(frozen=True, slots=True)
class LogitEffect:
    """A token that the unit's direct path to the logits promotes or suppresses."""

    token: str
    """The token as text."""
    weight: float
    """Logits per unit of activation, the unit's median over the vocabulary shifted to 0."""


LogitKind: TypeAlias = Literal["promoted", "random", "matched"]
"""A token of the logit-weight test: of the highest weights, but not shown to the explainer; uniformly random; as
frequent in the corpus as a promoted one."""


@dataclass(frozen=True, slots=True)
class SplitStatistics:
    """A unit's activations over one split."""

    tokens: int
    """Positions counted, the same for all units."""
    fired: int
    """Positions where the unit fires: its activation exceeds its threshold."""
    maximum: float
    """Highest activation; 0 where it never fires."""
    mean: float
    """Mean activation over all counted positions."""
    interval_counts: tuple[int, ...]
    """Firing positions in each of the 12 equal intervals of (0, explain maximum]; those above are in the last."""

    @property
    def density(self) -> float:
        """Share of counted positions on which the unit fires, 0 to 1."""
        return self.fired / self.tokens if self.tokens else 0.0


REFERENCES = ("unigram_pearson", "unigram_auprc", "bigram_pearson", "bigram_auprc")
"""What is known of the reference predictors over the whole score split."""


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """Everything that the harvest knows of one unit."""

    unit: Unit
    """Which one."""
    threshold: float
    """Activation above which it fires; 0 for rectified units."""
    statistics: Mapping[Split, SplitStatistics]
    """Per harvested split: always of ``explain`` and ``score``, of others where a protocol needs them."""
    excerpts: Mapping[Split, tuple[Excerpt, ...]]
    """Per harvested split, all groups, in a fixed order: top by falling activation, interval by interval then by hash,
    the others by draw."""
    promoted: tuple[LogitEffect, ...]
    """Ten highest logit weights, falling; empty where the site has no direct path to the logits."""
    suppressed: tuple[LogitEffect, ...]
    """Ten lowest logit weights, rising."""
    token_means: Mapping[int, float]
    """`unigram`: mean activation per token id over the explain split; absent means 0."""
    wider: Mapping[int, Mapping[Split, tuple[Excerpt, ...]]] = field(
        default_factory=dict[int, Mapping[Split, tuple["Excerpt", ...]]]
    )
    """The same as `excerpts` for excerpts of more tokens, by their number, where a protocol needs them."""
    logit_test: Mapping[LogitKind, tuple[tuple[int, str], ...]] | None = None
    """Tokens of the logit-weight test (id and text) by kind; None where no protocol asks for them, or the site has no
    direct path to the logits."""
    references: Mapping[str, float] = field(default_factory=dict[str, float])
    """What `unigram` and `bigram` reach over every position of the score split, by the names of `REFERENCES`; absent
    where it is undefined, or where a source does not know it."""

    firing: FiringAnchors | None = None
    """Where it fires in the score split, where a protocol needs it."""

    def excerpts_of(self, tokens: int, split: Split) -> tuple[Excerpt, ...]:
        """The excerpts of so many tokens of `split`; none where they are not harvested."""
        if tokens in self.wider:
            return self.wider[tokens].get(split, ())
        return tuple(each for each in self.excerpts.get(split, ()) if len(each.ids) == tokens)

    @property
    def maximum(self) -> float:
        """The explain split's highest activation: the scale of every level."""
        return self.statistics["explain"].maximum
