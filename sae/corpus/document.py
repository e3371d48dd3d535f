"""What a corpus is made of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a document whose kind is known because we generated it."""

    start: int
    """First character, counted from 0."""
    end: int
    """One past the last character."""
    kind: str
    """What the characters are, such as ``base64`` or ``hebrew``."""


@dataclass(frozen=True, slots=True)
class Document:
    """One source text."""

    id: str
    """Unique within a corpus and the same on every machine, such as ``rich/console.py``."""
    text: str
    """The text, decoded as UTF-8."""
    source: str
    """The corpus source it came from: ``local``, ``generated`` or ``files``."""
    spans: tuple[Span, ...] = ()
    """Known truth per character span, in order and disjoint; empty for text found elsewhere."""
