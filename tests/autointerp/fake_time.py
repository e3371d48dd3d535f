"""An event loop whose time is a number: sleeping costs nothing, and nothing depends on the machine's speed."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import patch


class _Clock(selectors.DefaultSelector):
    """Instead of waiting, the loop's selector moves the time on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


def run_in_fake_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` to its end; `time.monotonic` is the loop's time meanwhile. Not for code that waits for threads."""
    clock = _Clock()
    with (
        patch("time.monotonic", lambda: clock.now),
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(clock)) as runner,
    ):
        runner.run(main())
