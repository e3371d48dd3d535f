"""What an explainer sees and what it says."""

from dataclasses import dataclass

from autointerp.records.unit import LogitEffect


@dataclass(frozen=True, slots=True)
class EvidenceExcerpt:
    """One excerpt as an explainer sees it."""

    tokens: tuple[str, ...]
    """The tokens as text."""
    levels: tuple[int, ...]
    """Quantised activations, 0 to the protocol's highest level."""
    label: str
    """Which group it came from, in words, such as ``top`` or ``interval 3 of 12``."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that an explainer sees: nothing here tells which arm or unit it is."""

    excerpts: tuple[EvidenceExcerpt, ...]
    """Excerpts of explain documents, in the order in which they are shown."""
    promoted: tuple[LogitEffect, ...]
    """Tokens that the unit makes likelier, strongest first."""
    suppressed: tuple[LogitEffect, ...]
    """Tokens that it makes less likely, strongest first."""
    top_level: int
    """The highest level: 9 or 10."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A natural-language explanation; a simulator reads the text and nothing else."""

    text: str
    """The explanation itself."""
    explainer: str
    """Who said it: ``lookup`` or ``provider/model``."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An outcome that is no value: it reaches the tables and is never scored."""

    stage: str
    """``evidence``, ``explain``, ``pose``, ``simulate`` or ``score``."""
    kind: str
    """Short name to count by, such as ``dead``, ``refusal``, ``truncated``, ``invalid``."""
    message: str
    """For people."""
