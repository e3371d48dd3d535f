"""How many calls to a model may be in flight: found by trying, cut by rate limits."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

START = 8
"""Calls in flight at first."""
SHORTEST_ROUND = 4
"""Successes that make a round, at least: a round is as many as the limit."""
SATURATED = 0.8
"""Share of the limit that must have been in flight for a round to say anything about it."""
GROWTH, CUT = 0.05, 0.8
"""What a clean round adds once a limit has been met; what a rate limit leaves."""
COOLDOWN = 15.0
"""Seconds after a cut without another and without growth, at least."""
RECENT, BURST = 20, 0.2
"""Last attempts that are looked at for overload; the share of overloaded ones that counts as a rate limit."""


@dataclass(slots=True)
class Pace:
    """The limit as a state machine: it is told what happens, and when; it never looks at a clock.

    It doubles per clean saturated round until the first rate limit, and then grows slowly. Only rate limits (and
    bursts of overload) cut it, once per episode; other faults of the server stop the growth of their round.
    """

    most: int
    """The limit never exceeds it."""
    limit: int = field(init=False)
    """Calls that may be in flight now."""
    _steep: bool = field(init=False, default=True)
    _good: int = field(init=False, default=0)
    _peak: int = field(init=False, default=0)
    _cool_until: float = field(init=False, default=float("-inf"))
    _overloads: deque[bool] = field(init=False, default_factory=lambda: deque[bool](maxlen=RECENT))

    def __post_init__(self) -> None:
        self.limit = min(START, self.most)

    def begun(self, in_flight: int) -> None:
        """A call has begun; with it so many are in flight."""
        self._peak = max(self._peak, in_flight)

    def succeeded(self, now: float) -> None:
        """An attempt was answered."""
        self._overloads.append(False)
        if now < self._cool_until:
            return
        self._good += 1
        if self._good < max(self.limit, SHORTEST_ROUND):
            return
        if self._peak >= SATURATED * self.limit:
            more = self.limit if self._steep else max(1, int(self.limit * GROWTH))
            self.limit = min(self.most, self.limit + more)
        self._new_round()

    def troubled(self) -> None:
        """An attempt met a server error or a timeout: its round does not count."""
        self._overloads.append(False)
        self._new_round()

    def overloaded(self, now: float, retry_after: float = 0.0) -> None:
        """An attempt met an overloaded server."""
        self.troubled()
        self._overloads[-1] = True
        if sum(self._overloads) > BURST * RECENT:
            self._cut(now, retry_after)

    def limited(self, now: float, retry_after: float = 0.0) -> None:
        """An attempt met a rate limit, to be tried again after `retry_after` seconds."""
        self.troubled()
        self._cut(now, retry_after)

    def _cut(self, now: float, retry_after: float) -> None:
        if now < self._cool_until:
            self._cool_until = max(self._cool_until, now + retry_after)
            return
        self._steep = False
        self.limit = max(1, int(self.limit * CUT))
        self._cool_until = now + max(COOLDOWN, retry_after)
        self._overloads.clear()

    def _new_round(self) -> None:
        self._good = self._peak = 0


class Slots:
    """``async with`` a slot: first come, first served, as many at once as the pace allows."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.pace = Pace(most)
        self.in_flight = 0
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the slot was given in the same moment
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def succeeded(self) -> None:
        """An attempt was answered."""
        self.pace.succeeded(self._clock())
        self._admit()

    def limited(self, retry_after: float) -> None:
        """An attempt met a rate limit."""
        self.pace.limited(self._clock(), retry_after)

    def overloaded(self, retry_after: float) -> None:
        """An attempt met an overloaded server."""
        self.pace.overloaded(self._clock(), retry_after)

    def troubled(self) -> None:
        """An attempt met a server error or a timeout."""
        self.pace.troubled()

    def _leave(self) -> None:
        self.in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.in_flight < self.pace.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                self.pace.begun(self.in_flight)
                turn.set_result(None)
