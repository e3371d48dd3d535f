"""How fast a run may call."""

import asyncio

from asyncio_throttle.throttler import Throttler

_WINDOW = 2.0
"""Seconds over which requests are counted: short, because servers with token buckets dislike a minute's burst."""


class RequestsPerMinute:
    """A sliding window behind one lock: first come, first served, and only the first in line ever polls."""

    def __init__(self, limit: int | None) -> None:
        self._first_in_line = asyncio.Lock()
        self._throttler: Throttler | None = None
        if limit is not None:
            at_once = max(1, int(limit * _WINDOW / 60))
            self._throttler = Throttler(at_once, period=60 * at_once / limit)

    async def acquire(self) -> None:
        """Wait for leave to send one request."""
        if self._throttler is not None:
            async with self._first_in_line:
                await self._throttler.acquire()
