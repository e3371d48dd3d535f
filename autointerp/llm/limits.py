"""How fast a model may be called: requests and tokens per minute, given or learnt from the provider."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from asyncio_throttle.throttler import Throttler

from autointerp.llm.prices import expected_input, expected_output
from autointerp.records.call import Request, Usage

LEARNT_SHARE = 0.8
"""Share of a limit that a provider announces which is used: others may use the same account."""
_MINUTE = 60.0
_MARGIN = 1.005
"""A minute's requests are spread over slightly more, since the way to the provider takes one longer than another."""
_LONGEST_NAP = 0.1
"""Seconds between two looks at a full window: a correction may free a part of it before the oldest entry leaves."""
_HEADERS = {
    "anthropic-ratelimit-requests-limit": "requests",
    "anthropic-ratelimit-input-tokens-limit": "input",
    "anthropic-ratelimit-output-tokens-limit": "output",
    "x-ratelimit-limit-requests": "requests",
    "x-ratelimit-limit-tokens": "tokens",
}
"""Headers with limits per minute, and what they limit."""


@dataclass(slots=True, eq=False)
class Entry:
    """What one call takes of a window."""

    at: float
    """When, in seconds of the monotonic clock."""
    weight: int
    """How much."""


class WeightedThrottler(Throttler):
    """At most `rate_limit` units in any `period` seconds; what a call took can be corrected afterwards.

    A call that is larger than the window takes the whole window. One caller at a time may acquire.
    """

    def __init__(self, rate_limit: int, period: float) -> None:
        super().__init__(rate_limit, period)
        self._entries: deque[Entry] = deque()
        self._used = 0

    def flush(self) -> None:
        """Forget what is older than the window."""
        oldest = time.monotonic() - self.period
        while self._entries and self._entries[0].at < oldest:
            self._used -= self._entries.popleft().weight

    async def acquire(  # pyright: ignore[reportIncompatibleMethodOverride] - the parent returns nothing
        self, weight: int = 1
    ) -> Entry:
        """Wait until `weight` units are free, and take them."""
        weight = min(weight, self.rate_limit)
        while True:
            self.flush()
            if self._used + weight <= self.rate_limit:
                break
            expires = self._entries[0].at + self.period - time.monotonic()
            await asyncio.sleep(min(max(self.retry_interval, expires), _LONGEST_NAP))
        self._entries.append(entry := Entry(time.monotonic(), weight))
        self._used += weight
        return entry

    def settle(self, entry: Entry, weight: int) -> None:
        """Let `entry` weigh what the call really took, where it is still in the window."""
        self.flush()
        if self._entries and entry.at >= self._entries[0].at:
            self._used += weight - entry.weight
            entry.weight = weight


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one attempt took of the windows for tokens."""

    entries: Mapping[str, Entry]
    """By what is limited."""


class RateLimits:
    """The limits of one model. Attempts pass in the order in which they came; only the first in line ever polls."""

    def __init__(self, requests_per_minute: int | None = None, tokens_per_minute: int | None = None) -> None:
        self._first_in_line = asyncio.Lock()
        self._requests: Throttler | None = None
        self._tokens: dict[str, WeightedThrottler] = {}
        self._given: set[str] = set()
        self._learnt = False
        for name, per_minute in (("requests", requests_per_minute), ("tokens", tokens_per_minute)):
            if per_minute is not None:
                self._given.add(name)
                self._set(name, per_minute)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take over the limits that are not given from the first `headers` (lower-case names) that have any."""
        if self._learnt:
            return
        for header, name in _HEADERS.items():
            value = headers.get(header, "")
            if value.isdigit() and int(value) > 0:
                self._learnt = True
                if name not in self._given:
                    self._set(name, max(1, int(int(value) * LEARNT_SHARE)))

    async def acquire(self, request: Request) -> Ticket:
        """Wait for leave to send `request` once; its tokens are estimated.

        Tokens come first, so that between the leave of the requests' throttle and the sending nothing is waited for.
        """
        async with self._first_in_line:
            windows = list(self._tokens.items())  # a response may add some meanwhile
            usage = Usage(expected_input(request), 0, 0, expected_output(request))
            entries = {name: await window.acquire(_weight(name, usage)) for name, window in windows}
            if self._requests is not None:
                await self._requests.acquire()
            return Ticket(entries)

    def settle(self, ticket: Ticket, usage: Usage | None) -> None:
        """Correct the tokens of `ticket` to what was used; None for an attempt that the provider turned away."""
        for name, entry in ticket.entries.items():
            self._tokens[name].settle(entry, _weight(name, usage) if usage else 0)

    def _set(self, name: str, per_minute: int) -> None:
        if name == "requests":
            self._requests = spread(per_minute)
        else:
            self._tokens[name] = WeightedThrottler(per_minute, _MINUTE)


def spread(per_minute: int) -> Throttler:
    """A throttle that lets a second's worth pass at once, and no more than `per_minute` in any minute.

    A window of a whole minute would let all of them pass at once, which servers with token buckets refuse.
    """
    at_once = max(1, per_minute // 60)
    return Throttler(at_once, period=_MARGIN * _MINUTE / (per_minute // at_once))


def _weight(name: str, usage: Usage) -> int:
    """What a call counts for: Anthropic leaves input that was read from its prompt cache out, OpenAI does not."""
    match name:
        case "input":
            return usage.input_tokens - usage.cache_read_tokens
        case "output":
            return usage.output_tokens
        case _:
            return usage.input_tokens + usage.output_tokens
