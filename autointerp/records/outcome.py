"""How the evaluation of one unit ended."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Score
from autointerp.records.unit import Unit

ArmKind: TypeAlias = Literal[
    "features", "neurons", "neurons-matched", "random", "pca", "sae", "shuffled-subject", "control"
]
"""What an arm's dictionary is; decides how the arm is compared. A ``control`` has the units of the features and other
explanations."""


@dataclass(frozen=True, slots=True)
class ArmInfo:
    """An arm, as tables name it."""

    label: str
    """``Unit.arm`` of its units."""
    kind: ArmKind
    """What its dictionary is."""
    n_units: int
    """Units asked."""
    description: str
    """One phrase for people."""


@dataclass(frozen=True, slots=True)
class OutcomeStatistics:
    """What tables and figures say of a unit beside its scores; all 0 for a unit that never fires."""

    density_explain: float
    """Share of the explain split's positions on which the unit fires, 0 to 1."""
    density_score: float
    """The same on the score split."""
    maximum: float
    """Highest activation of the explain split."""
    mean: float
    """Mean activation over the explain split."""
    evidence: int | None = None
    """Excerpts that its explainer was shown; None where there was no explainer, or an older table did not say."""
    overlap: float | None = None
    """Share of the explanation's words that are tokens on which it fired in that evidence, 0 to 1; None likewise."""
    single_token: bool | None = None
    """Whether the token at the maximum is the same in all top excerpts of the explain split (`selectivity`); None for
    a unit without such excerpts, or where an older table did not say."""
    token_entropy: float | None = None
    """Bits: how the activation in those excerpts spreads over token ids; None likewise."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one unit ended under one protocol: scored or failed, never neither."""

    unit: Unit
    """Which one."""
    protocol: str
    """Under which protocol; a unit ends once under each."""
    order: int
    """Its place in the admission order, counted from 0."""
    statistics: OutcomeStatistics
    """What the harvest knows of it."""
    explanation: Explanation | Failure | None
    """None where no explanation was asked for."""
    result: Score | Failure
    """The score, or where and why there is none."""
