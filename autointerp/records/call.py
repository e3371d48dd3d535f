"""A language-model call, whoever the provider is."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Thinking: TypeAlias = Literal["off", "between_tools", "least", "free"]
"""How much a model that can think before it answers may do so: not at all; only between calls of tools, of which there
are none; as little as it can; as it likes. In this order, since a model may refuse the stricter ones."""
THINKING: tuple[Thinking, ...] = get_args(Thinking)


@dataclass(frozen=True, slots=True)
class Request:
    """A request, fully rendered: of a chat, or (of models ``slots/`` and ``local/``) of one text to be read."""

    model: str
    """``provider/name``, such as ``anthropic/claude-sonnet-5-5``."""
    system: str
    """Instructions and demonstrations: the prefix that all calls of a stage share, marked for prompt caching."""
    user: str
    """What this call asks."""
    schema: str | None
    """JSON schema of the answer, as canonical JSON text; None for free text."""
    max_tokens: int
    """Hard limit of the answer, thinking included."""
    thinking: Thinking = "off"
    """How much the model may think, within `max_tokens`."""
    replicate: int = 0
    """Which repeated draw this is; part of the key."""
    stage: str = ""
    """``explain`` or ``simulate``: for the ledger, not part of the key."""
    arm: str = ""
    """The arm it is paid for: for the ledger, not part of the key."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider reports them."""

    input_tokens: int
    """All input, cached input included."""
    cache_read_tokens: int
    """Input read from the provider's prompt cache."""
    cache_write_tokens: int
    """Input written to it."""
    output_tokens: int
    """Output, thinking included."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was paid for and stored."""

    text: str
    """The answer's text."""
    usage: Usage
    """Tokens."""
    cost: int
    """Nano-dollars that this answer cost when it was made."""
    served: str
    """Model that the provider says answered."""
    cached: bool
    """Whether it came from the store of answers, at no cost now."""
