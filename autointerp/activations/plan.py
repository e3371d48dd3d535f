"""What a harvest is asked for, and what its stream gives."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int32

from autointerp.records.unit import Group, LogitKind, Split

SPLITS: tuple[Split, ...] = ("explain", "select", "calibrate", "score")
"""The splits in the order of their codes."""
GROUPS: tuple[Group, ...] = ("top", "interval", "random", "out_of_context")
"""The groups in the order in which a unit's excerpts are kept."""
TOP, INTERVAL, RANDOM, OUT_OF_CONTEXT = range(len(GROUPS))
LOGIT_KINDS: tuple[LogitKind, ...] = ("promoted", "random", "matched")
"""Kinds of tokens in the logit-weight test."""
TOP_TOKENS = 10
"""Distinct tokens, at the anchors of a unit's top excerpts, that are sought out of context."""


@runtime_checkable
class Block(Protocol):
    """Positive activations of one batch of windows, sorted by (window, position, unit); counted positions only."""

    @property
    def window(self) -> np.ndarray:
        """Row of the windows, int32 of shape (entry)."""
        ...

    @property
    def position(self) -> np.ndarray:
        """Position in the window, int32 of shape (entry)."""
        ...

    @property
    def unit(self) -> np.ndarray:
        """Index in the arm's dictionary, int32 of shape (entry)."""
        ...

    @property
    def value(self) -> np.ndarray:
        """Activation, float32 of shape (entry), > 0."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LogitTokens:
    """The tokens that each unit's direct path to the logits promotes and suppresses, strongest first."""

    promoted: Int32[np.ndarray, "unit token"]
    """Token ids of the highest logit weights, falling."""
    promoted_weights: Float32[np.ndarray, "unit token"]
    """Logits per unit of activation, the median over the vocabulary shifted to 0."""
    suppressed: Int32[np.ndarray, "unit token"]
    """Token ids of the lowest, rising."""
    suppressed_weights: Float32[np.ndarray, "unit token"]
    """Their weights."""


@dataclass(frozen=True, slots=True, eq=False)
class LogitTest:
    """The tokens of each unit that the logit-weight test asks about."""

    promoted: Int32[np.ndarray, "unit token"]
    """Token ids of high logit weights, falling, after those that the explainer is shown."""
    random: Int32[np.ndarray, "unit token"]
    """Uniformly random others."""
    matched: Int32[np.ndarray, "unit token"]
    """Others as frequent in the corpus as the promoted ones."""


@dataclass(frozen=True, slots=True, eq=False)
class ArmUnits:
    """The units of one arm that are harvested."""

    units: np.ndarray
    """Their indices in the arm's dictionary, strictly rising integers of shape (unit)."""
    names: tuple[str, ...]
    """What people read for each."""
    thresholds: np.ndarray
    """Activation above which each fires, floats of shape (unit); 0 for rectified units."""
    logits: LogitTokens | None = None
    """None where the site has no direct path to the logits."""
    logit_test: LogitTest | None = None
    """None there too, and where no protocol asks for it."""

    def __post_init__(self) -> None:
        if not len(self.units) == len(self.names) == len(self.thresholds):
            raise ValueError(f"{len(self.units)} units, {len(self.names)} names, {len(self.thresholds)} thresholds")
        if (np.diff(self.units) <= 0).any():
            raise ValueError("The units must rise strictly.")


@dataclass(frozen=True, slots=True)
class SplitSizes:
    """Excerpts kept per unit in one split."""

    top: int
    """Windows with the highest activations, at least 1."""
    per_interval: int
    """Windows of each activation interval."""
    random: int
    """Of the split's pool."""
    out_of_context: int
    """Occurrences of the unit's top tokens."""
    anchors: int = 0
    """Firing anchors of each stratum, uniform over anchors; kept of the score split only."""

    @classmethod
    def union(cls, needs: "Sequence[SplitSizes]") -> "SplitSizes":
        """The most of each group."""
        return cls(*(max(getattr(each, field.name) for each in needs) for field in fields(cls)))

    def __post_init__(self) -> None:
        if self.top < 1 or min(self.per_interval, self.random, self.out_of_context, self.anchors) < 0:
            raise ValueError(f"A unit keeps at least one top excerpt, and no negative number of others: {self}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestSizes:
    """How much is kept of each unit."""

    excerpt_tokens: int = 9
    """Tokens of an excerpt: the anchor and 4 either side (Bricken et al. 2023)."""
    centred: bool = True
    """Whether the anchor is in the middle; otherwise it is anywhere, so that its place tells nothing of the truth."""
    once_per_window: bool = True
    """Whether an interval's excerpts are of different windows, each as likely; otherwise anchors are drawn, each as
    likely, so that an excerpt stands for the firing positions of the interval and not for its windows."""
    n_intervals: int = 12
    """Equal intervals of (0, explain maximum]."""
    pool: int = 256
    """Uniformly random excerpts per split, shared by all units."""
    explain: SplitSizes = SplitSizes(top=20, per_interval=4, random=10, out_of_context=20)
    """Kept of the explain split: twice what the protocols show, so that duplicates can be passed over."""
    score: SplitSizes = SplitSizes(top=12, per_interval=4, random=20, out_of_context=40)
    """Kept of the score split."""
    select: SplitSizes | None = None
    """Kept of the select split; None where nothing of it is harvested."""
    calibrate: SplitSizes | None = None
    """Kept of the calibrate split; None where nothing of it is harvested."""

    logit_tokens: int = 0
    """Tokens of each kind for the logit-weight test."""
    wider: "tuple[HarvestSizes, ...]" = ()
    """What is kept of excerpts with more tokens, by rising tokens; with the same intervals and pool."""

    @classmethod
    def union(cls, needs: "Sequence[HarvestSizes]") -> "HarvestSizes":
        """The least that holds all of `needs`; a sample is the beginning of any larger one of its kind.

        Raises `ValueError` where they differ in their intervals or pool, or in how excerpts of the same width are drawn
        and placed, which cannot be joined.
        """
        every = [width for need in needs for width in need.widths]
        drawn = {(width.excerpt_tokens, (width.centred, width.once_per_window)) for width in every}
        if len({(width.n_intervals, width.pool) for width in every}) > 1 or len(drawn) > len(dict(drawn)):
            raise ValueError(f"Harvests of different intervals, pools, draws or places cannot be joined: {every}.")
        widths: list[HarvestSizes] = []
        for tokens in sorted({width.excerpt_tokens for width in every}):
            same = [width for width in every if width.excerpt_tokens == tokens]
            held = {name: [sizes for each in same if (sizes := each.of(name))] for name in SPLITS}
            joined = {name: SplitSizes.union(sizes) if sizes else None for name, sizes in held.items()}
            widths.append(replace(same[0], **joined, wider=()))
        asked = max(need.logit_tokens for need in needs)
        return replace(widths[0], logit_tokens=asked, wider=tuple(widths[1:]))

    @property
    def widths(self) -> "tuple[HarvestSizes, ...]":
        """These and the wider ones, each without the others."""
        return (replace(self, wider=(), logit_tokens=0), *self.wider)

    def without(self, split: Literal["select", "calibrate"]) -> "HarvestSizes":
        """The same with nothing of `split`."""
        return replace(self, **{split: None, "wider": tuple(each.without(split) for each in self.wider)})

    @property
    def held(self) -> tuple[Split, ...]:
        """Splits of which anything is kept, of any width."""
        return tuple(name for name in SPLITS if any(width.of(name) for width in self.widths))

    @property
    def splits(self) -> dict[Split, SplitSizes]:
        """The splits with what is kept of them in excerpts of this width, in the order of their codes."""
        held: dict[Split, SplitSizes | None] = {name: self.of(name) for name in SPLITS}
        return {name: sizes for name, sizes in held.items() if sizes is not None}

    def of(self, split: Split) -> SplitSizes | None:
        """Excerpts kept of `split`; None where nothing of it is harvested."""
        match split:
            case "explain":
                return self.explain
            case "select":
                return self.select
            case "calibrate":
                return self.calibrate
            case "score":
                return self.score
