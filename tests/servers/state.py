"""A server's settings, and what it has seen."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.answers import default_answer, request_hash
from tests.servers.bill import read_lines
from tests.servers.faults import BAD_ANSWERS, BAD_ITEMS, Lots
from tests.servers.limit import RateLimit

Answers = Callable[[dict[str, Any]], str]


@dataclass
class Server:
    """A running server. What is no result may be changed while it runs."""

    port: int = 0
    """Where it listens, on 127.0.0.1."""
    bill: Path | None = None
    """File to which every billed call is appended, durably."""
    log: Path | None = None
    """File to which every request is appended as it comes: ``request`` (hash of its body, or method and path) and
    ``fault``."""
    answers: Answers = default_answer
    """The reply's text, from the request's body."""
    faults: list[str] = field(default_factory=list)
    """What befalls the next requests, one each: ``ok`` or a name from `tests.servers.faults`, such as ``429:2`` (with
    Retry-After). Then `shares` decide."""
    batch_faults: list[str] = field(default_factory=list)
    """The same for the items of batches: of `BAD_ITEMS` and `BAD_ANSWERS`."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Share of requests, and of the items of batches, that each fault befalls; drawn with `seed`."""
    seed: int = 0
    delay: float = 0.0
    """Seconds before every reply."""
    silence: float = 0.5
    """Seconds between the halves of a slow body."""
    echo: bool = False
    """Whether errors quote the key that was sent, as some servers do."""
    limit: RateLimit | None = None
    """Rate limit of all calls for an answer together."""
    context: int | None = None
    """Tokens of a prompt and the room for its answer above which both are refused; None for no limit."""
    thinking: Collection[str] | None = None
    """Ways to ask for less thinking that are not refused: types of `thinking`, or efforts; None for all."""
    caching: bool = False
    """Whether prompts are cached: a marked system block (Anthropic), one of 1,024 tokens or more (OpenAI)."""
    batch_seconds: float = 0.0
    """Time that a batch takes."""
    calls: int = 0
    """Requests received."""
    in_flight: int = 0
    """Requests not yet answered."""
    limited: int = 0
    """Requests refused by `limit`."""
    injected: Counter[str] = field(default_factory=Counter)
    """Faults so far, by name; those of the items of batches too."""

    def __post_init__(self) -> None:
        self._lots = Lots(self.shares, self.seed)
        item_shares = {kind: share for kind, share in self.shares.items() if kind in (*BAD_ITEMS, *BAD_ANSWERS)}
        self._item_lots = Lots(item_shares, self.seed)

    @property
    def url(self) -> str:
        """Base URL for Anthropic; OpenAI's has ``/v1`` after it."""
        return f"http://127.0.0.1:{self.port}"

    def billed(self) -> list[dict[str, Any]]:
        """Every billed call: ``request`` (hash of its body), ``model``, ``nano`` (nano-dollars) and ``batch``."""
        return read_lines(self.bill)

    def requests(self) -> list[dict[str, Any]]:
        """The lines of `log`."""
        return read_lines(self.log)

    def next_fault(self, name: str) -> str:
        """What befalls the request called `name` that has just come in."""
        self.calls += 1
        fault = self.faults.pop(0) if self.faults else self._lots.draw(name)
        fault = "ok" if fault in BAD_ITEMS else fault
        self._count(name, fault)
        return fault

    def next_item_fault(self, body: dict[str, Any]) -> str:
        """What befalls an item of a batch."""
        name = request_hash(body)
        fault = self.batch_faults.pop(0) if self.batch_faults else self._item_lots.draw(name)
        self._count(name, fault)
        return fault

    def _count(self, name: str, fault: str) -> None:
        if fault != "ok":
            self.injected[fault] += 1
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"request": name, "fault": fault}) + "\n")
