"""Where a run's calls stand."""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from autointerp.records.call import Usage

_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class AtProvider:
    """Batches that a provider has."""

    batches: int
    """How many."""
    age: float
    """Seconds since the oldest was sent."""
    done: int
    """Their requests that the provider says it has dealt with."""
    total: int
    """Their requests."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of this session, money of all sessions."""

    in_flight: int
    """Calls that have a slot: being sent, or between two attempts."""
    done: int
    """Requests answered or failed."""
    cached: int
    """Of these, how many cost nothing."""
    spent: int
    """Nano-dollars settled, by all sessions of this run; unknown bills count at their bound."""
    reserved: int
    """Nano-dollars held by requests under way."""
    cap: int | None
    """The budget in nano-dollars; None for no limit."""
    retries: Mapping[str, int]
    """Repeated attempts, by kind of fault."""
    failed: Mapping[str, int]
    """Failures returned, by kind."""
    limit: int = 0
    """Calls that may have a slot now, of all models together."""
    requests_per_minute: int = 0
    """Attempts sent in the last 60 seconds."""
    input_per_minute: int = 0
    """Input tokens answered to in the last 60 seconds, cached ones included."""
    output_per_minute: int = 0
    """Output tokens received in the last 60 seconds."""
    cached_input: int = 0
    """Input tokens of this session that were read from the provider's prompt cache."""
    served: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    """Answers paid for by this session, by the model asked and the model that the provider says answered."""
    at_provider: AtProvider | None = None
    """Batches under way; None where there is none."""
    warnings: tuple[str, ...] = ()
    """What the user should know, a sentence each, in the order in which it was noticed."""


@dataclass(slots=True)
class Tally:
    """What this session counts."""

    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    done: int = 0
    """This and the next five: as in `Progress`."""
    cached: int = 0
    cached_input: int = 0
    retries: Counter[str] = field(default_factory=Counter[str])
    failed: Counter[str] = field(default_factory=Counter[str])
    served: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    _recent: deque[tuple[float, int, int, int]] = field(default_factory=deque[tuple[float, int, int, int]])

    def sent(self) -> None:
        """One attempt was sent."""
        self._forget()
        self._recent.append((self.clock(), 1, 0, 0))

    def answered(self, asked: str, served: str, usage: Usage) -> None:
        """One answer was paid for."""
        self.cached_input += usage.cache_read_tokens
        self.served.setdefault(asked, Counter()).update((served,))
        self._recent.append((self.clock(), 0, usage.input_tokens, usage.output_tokens))

    def progress(
        self,
        *,
        in_flight: int,
        limit: int,
        spent: int,
        reserved: int,
        cap: int | None,
        at_provider: AtProvider | None,
        warnings: tuple[str, ...],
    ) -> Progress:
        """These counts, with what others know."""
        self._forget()
        return Progress(
            in_flight=in_flight,
            limit=limit,
            done=self.done,
            cached=self.cached,
            spent=spent,
            reserved=reserved,
            cap=cap,
            retries=dict(self.retries),
            failed=dict(self.failed),
            requests_per_minute=sum(sent for _, sent, _, _ in self._recent),
            input_per_minute=sum(read for _, _, read, _ in self._recent),
            output_per_minute=sum(written for _, _, _, written in self._recent),
            cached_input=self.cached_input,
            served={asked: dict(counts) for asked, counts in self.served.items()},
            at_provider=at_provider,
            warnings=warnings,
        )

    def _forget(self) -> None:
        oldest = self.clock() - _MINUTE
        while self._recent and self._recent[0][0] <= oldest:
            self._recent.popleft()
