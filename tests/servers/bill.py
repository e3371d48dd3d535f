"""What the server charges, written durably before it answers."""

import asyncio
import json
import math
import os
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import genai_prices


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one answer is billed for."""

    read: int
    """Input, cached input included."""
    written: int
    """Output."""
    cache_read: int = 0
    cache_write: int = 0


@lru_cache(maxsize=4096)
def price(model: str, tokens: Tokens, *, batch: bool = False) -> int:
    """Nano-dollars; nothing for a model that the price table lacks."""
    usage = genai_prices.Usage(
        input_tokens=tokens.read,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write,
        output_tokens=tokens.written,
    )
    provider = "anthropic" if model.startswith("claude") else "openai"
    try:
        dollars = genai_prices.calc_price(usage, model, provider_id=provider).total_price
    except LookupError:
        return 0
    return math.ceil(dollars * 10**9 / (Decimal(2) if batch else Decimal(1)))


class Bill:
    """Appends lines of JSON; whoever comes while one fsync runs shares the next."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: list[str] = []
        self._writing = asyncio.Lock()

    async def charge(self, request: str, model: str, nano: int, *, batch: bool = False) -> None:
        """Return when the charge is on the disk."""
        if self._path is None:
            return
        self._lines.append(json.dumps({"request": request, "model": model, "nano": nano, "batch": batch}) + "\n")
        async with self._writing:
            lines, self._lines = self._lines, []
            if lines:
                await asyncio.to_thread(_append, self._path, "".join(lines))


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path | None) -> list[dict[str, Any]]:
    """The whole lines of a bill or a log that may still be written."""
    if path is None or not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
