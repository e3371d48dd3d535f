"""The provider's prompt cache: warm one, wait, fan out; and look whether it works."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from autointerp.llm.prices import BYTES_PER_TOKEN
from autointerp.records.call import Request, Usage

SHORTEST = 1024
"""Tokens of system text, at four bytes each, below which a provider may not cache it and then says nothing."""
PROOF = 5
"""Answers of one prefix by which one of them must have been read from the cache."""


@dataclass(slots=True)
class _Prefix:
    """A model's system text, shared by many calls."""

    warm: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the first call has ended, however it ended."""
    answers: int = 0
    """Paid answers so far."""
    cached: int = 0
    """Tokens read from the cache so far."""


class Prefixes:
    """Every prefix that a provider might cache, by model and system text."""

    def __init__(self) -> None:
        self._prefixes: dict[tuple[str, str], _Prefix] = {}
        self.warnings: list[str] = []

    @asynccontextmanager
    async def turn(self, request: Request) -> AsyncGenerator[None]:
        """Alone for the first call of a prefix; the others wait for its end, then all may go."""
        if len(request.system.encode()) < SHORTEST * BYTES_PER_TOKEN:
            yield
            return
        name = request.model, request.system
        prefix = self._prefixes.get(name)
        if prefix is not None:
            await prefix.warm.wait()
            yield
            return
        prefix = self._prefixes[name] = _Prefix()
        try:
            yield
        finally:
            prefix.warm.set()

    def count(self, request: Request, usage: Usage, cost: int) -> None:
        """A paid answer; warns once per prefix where the cache is not used though it would save money."""
        prefix = self._prefixes.get((request.model, request.system))
        if prefix is None:
            return
        prefix.answers += 1
        prefix.cached += usage.cache_read_tokens
        if prefix.answers == PROOF and not prefix.cached and cost:
            self.warnings.append(
                f"{request.model}: none of {PROOF} calls with the same instructions read them from the prompt cache;"
                " input costs full price."
            )
