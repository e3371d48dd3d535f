"""A run's money as its calls wait for it: reserved before an attempt, waited for where the cap is near."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import NoReturn

from autointerp.llm.store import Store
from autointerp.llm.tables import Account


class Purse:
    """Reserves in `store`; `check` raises where nothing may be sent, `exhausted` where no call under way holds money
    that could come back."""

    def __init__(self, store: Store, check: Callable[[], None], exhausted: Callable[[int], NoReturn]) -> None:
        self._store, self._check, self._exhausted = store, check, exhausted
        self._lines: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._holding = 0
        self._freed = asyncio.Event()

    async def reserve(self, account: Account, item: bytes, bound: int) -> int:
        """Hold `bound` nano-dollars, durably, for one attempt: its id. `let_go` must follow.

        Where the cap is too near, waits in line for the money of calls under way. Each stage of a model has its own
        line, whose first asks the store: dear calls do not stand in cheap ones' way.
        """
        freed = self._freed
        attempt = await self._try(account, item, bound)
        if attempt is None:
            async with self._lines[account.stage, account.model]:
                while attempt is None:
                    await freed.wait()
                    freed = self._freed
                    attempt = await self._try(account, item, bound)
        return attempt

    def let_go(self) -> None:
        """An attempt has ended: its money may be free again."""
        self._holding -= 1
        self.wake()

    def wake(self) -> None:
        """Let everyone who waits look again."""
        self._freed.set()
        self._freed = asyncio.Event()

    async def _try(self, account: Account, item: bytes, bound: int) -> int | None:
        self._check()
        freed = self._freed
        self._holding += 1
        try:
            attempt = await self._store.reserve(account, item, bound)
        except BaseException:
            self.let_go()
            raise
        if attempt is None:
            self._holding -= 1
            if not self._holding and not freed.is_set():
                self._exhausted(bound)
        return attempt
