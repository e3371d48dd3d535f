"""Single flight: identical requests under way share one call."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from autointerp.records.call import Reply
from autointerp.records.explanation import Failure
from autointerp.seams import Interrupted


@dataclass(eq=False, slots=True)
class _Flight:
    """One request under way, for everyone who asked it."""

    task: "asyncio.Task[Reply | Failure]"
    waiters: int = 0


class Flights:
    """Requests under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight] = {}
        self._tasks: set[asyncio.Task[Reply | Failure]] = set()

    def __contains__(self, key: bytes) -> bool:
        """Whether `key` is under way."""
        return key in self._flights

    async def join(self, key: bytes) -> Reply | Failure:
        """The outcome of the flight of `key`, which is under way.

        A caller that is cancelled leaves without disturbing the others; the last to leave ends the flight. Raises
        what the call raises, and `Interrupted` where `abort` ended it.
        """
        flight = self._flights[key]
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if flight.task.cancelled() and me and not me.cancelling():
                raise Interrupted("The client is closed.") from None
            raise
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                flight.task.cancel()
                self._forget(key, flight)

    async def start(self, key: bytes, call: Callable[[], Coroutine[Any, Any, Reply | Failure]]) -> Reply | Failure:
        """Begin the flight of `key` and join it."""
        flight = self._flights[key] = _Flight(asyncio.create_task(call()))
        self._tasks.add(flight.task)

        def land(task: "asyncio.Task[Reply | Failure]") -> None:
            self._tasks.discard(task)
            self._forget(key, flight)
            if not task.cancelled():
                task.exception()  # it may be that nobody waits for it any more

        flight.task.add_done_callback(land)
        return await self.join(key)

    async def abort(self) -> None:
        """End every flight, and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget(self, key: bytes, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
