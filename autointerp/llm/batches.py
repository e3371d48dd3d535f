"""Batch mode: requests are collected, reserved, journalled and sent together; whoever asked waits."""

import asyncio
import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from autointerp.llm import journal
from autointerp.llm.answers import outcome
from autointerp.llm.batch_provider import BatchProvider
from autointerp.llm.courier import LONGEST_POLL, Courier, Paid
from autointerp.llm.faults import Fault, Sleep
from autointerp.llm.journal import Ask, Batch
from autointerp.llm.prices import Prices
from autointerp.llm.progress import AtProvider
from autointerp.llm.provider import Body, Provider
from autointerp.llm.store import Store
from autointerp.llm.tables import Account
from autointerp.llm.thinking import Thinkers
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Failure
from autointerp.seams import BudgetReached, Interrupted
from sae.errors import UserError

QUIET = 2.0
"""Seconds without a new request after which those that wait are sent."""
MOST_REQUESTS = 10_000
"""Requests per batch, at most: a tenth of what Anthropic takes, a fifth of what OpenAI takes."""
MOST_BYTES = 100_000_000
"""Bytes of requests per batch, at most."""
SUBMISSIONS = 3
"""Batches that a request goes into, at most, where they fail, expire or forget it."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that is in no batch yet."""

    ask: Ask
    """What is journalled of it."""
    body: Body
    """What is sent."""
    size: int
    """Bytes of that."""


class Batches:
    """Answers requests out of batches; a `Courier` carries each.

    A batch that an earlier session sent is waited for like one of ours, and none is ever cancelled.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        providers: Mapping[str, Provider],
        batch_providers: Mapping[str, BatchProvider],
        prices: Prices,
        thinkers: Thinkers,
        budget_message: Callable[[int], str],
        retries: Counter[str],
        sleep: Sleep,
    ) -> None:
        self._store, self._run, self._providers, self._prices = store, run, providers, prices
        self._batch_providers, self._budget_message = batch_providers, budget_message
        self._thinkers, self._retries, self._sleep = thinkers, retries, sleep
        self._waiting: dict[bytes, asyncio.Future[Paid]] = {}
        self._queue: list[_Asked] = []
        self._stirred = 0
        self._live: dict[int, Batch] = {}
        self._ended = asyncio.Event()
        self._most: dict[str, int] = defaultdict(lambda: MOST_REQUESTS)
        self._misses: Counter[bytes] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sender: asyncio.Task[None] | None = None
        self._stop: Exception | None = None
        self._courier = Courier(
            store, providers, batch_providers, prices, deliver=self._deliver, retries=retries, sleep=sleep
        )

    async def resume(self) -> None:
        """Go on with the journalled batches of these models, of any run: what they hold is not sent again."""
        addresses = {model: provider.address for model, provider in self._providers.items()}
        for batch in await self._store.write(lambda db: journal.find_open(db, addresses)):
            for key in batch.held:
                self._wait_for(key)
            self._carry(batch, {})

    async def answer(self, request: Request, key: bytes, item: bytes) -> Reply | Failure:
        """The answer, out of whichever batch it comes; `key` and `item` as `Client` makes them. Raises `Stop`."""
        while True:
            if self._stop:
                raise self._stop
            sent = self._thinkers.as_sent(request)
            waiter = self._waiting.get(key) or self._enqueue(sent, key, item)
            try:
                answer, cost = await asyncio.shield(waiter)
            except Fault as fault:
                if self._thinkers.learns(self._providers[request.model], sent, fault):
                    continue
                if not fault.again or self._misses[key] >= SUBMISSIONS:
                    return Failure(request.stage, fault.kind, fault.message)
                self._retries[fault.kind] += 1
            else:
                return outcome(request, answer, cost)

    def at_provider(self) -> AtProvider | None:
        """What is under way there; None where nothing is."""
        sent = [batch for batch in self._live.values() if batch.state in ("submitting", "submitted")]
        if not sent:
            return None
        age = time.time() - min(batch.began for batch in sent)
        return AtProvider(len(sent), age, sum(each.done for each in sent), sum(len(each.held) for each in sent))

    def stop(self, stop: Exception) -> None:
        """Send nothing more and let everybody go, except who waits for a submission that is on the wire."""
        self._stop = self._stop or stop
        sending = {key for row in self._courier.sending for key in self._live[row].held}
        for key in self._waiting.keys() - sending:
            self._deliver(key, self._stop)

    async def aclose(self) -> None:
        """Break off waiting; what is journalled stays journalled."""
        self._stop = self._stop or Interrupted("The client is closed.")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.stop(self._stop)
        for provider in set(self._batch_providers.values()):
            with suppress(OSError, RuntimeError):
                await provider.aclose()

    def _enqueue(self, request: Request, key: bytes, item: bytes) -> "asyncio.Future[Paid]":
        account = Account(self._run, request.stage, request.model, request.arm)
        body = self._providers[request.model].render(request)
        size = len(json.dumps(body, ensure_ascii=False).encode())
        self._queue.append(_Asked(Ask(account, item, key, self._prices.bound(request, batch=True)), body, size))
        self._stirred += 1
        if self._sender is None or self._sender.done():
            self._sender = self._start(self._send())
        return self._wait_for(key)

    def _wait_for(self, key: bytes) -> "asyncio.Future[Paid]":
        waiter = self._waiting[key] = asyncio.get_running_loop().create_future()
        waiter.add_done_callback(lambda future: future.cancelled() or future.exception())  # perhaps nobody waits
        return waiter

    def _deliver(self, key: bytes, said: Paid | Exception, *, counts: bool = True) -> None:
        """Hand over what a request came to; a fault `counts` as one of its `SUBMISSIONS`."""
        waiter = self._waiting.pop(key, None)
        if waiter is None:
            return
        if isinstance(said, Exception):
            self._misses[key] += counts
            waiter.set_exception(said)
        else:
            waiter.set_result(said)

    def _start(self, work: "Coroutine[Any, Any, None]") -> "asyncio.Task[None]":
        """Do `work` aside; what it raises goes to everybody who waits."""

        def end(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                self.stop(error)

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(end)
        return task

    async def _send(self) -> None:
        """Plan batches until nothing waits.

        What the budget does not admit goes behind what is asked meanwhile: units that have begun end before others
        begin.
        """
        left: list[_Asked] = []
        while self._queue or left:
            await self._quiet()
            waiting, self._queue, ended = [*self._queue, *left], [], self._ended
            left = [asked for part in self._parts(waiting) for asked in await self._plan(part)]
            if left and not self._live and not ended.is_set():
                raise BudgetReached(self._budget_message(left[0].ask.bound))
            if left:
                await ended.wait()

    async def _quiet(self) -> None:
        """Wait until nobody has asked for a moment, and no results are coming in that could make somebody ask."""
        seen = -1
        while seen != self._stirred or any(batch.state == "ended" for batch in self._live.values()):
            seen = self._stirred
            await self._sleep(QUIET)

    def _parts(self, waiting: Sequence[_Asked]) -> Iterator[list[_Asked]]:
        """Split by model and into what one batch may hold, in the order of asking."""
        models = dict.fromkeys(asked.ask.account.model for asked in waiting)
        for model in models:
            part: list[_Asked] = []
            size = 0
            for asked in (asked for asked in waiting if asked.ask.account.model == model):
                if part and (len(part) == self._most[model] or size + asked.size > MOST_BYTES):
                    yield part
                    part, size = [], 0
                part.append(asked)
                size += asked.size
            yield part

    async def _plan(self, part: Sequence[_Asked]) -> Sequence[_Asked]:
        """Reserve, journal and send as much of `part` as the budget admits from its front; returns the rest."""
        if self._stop:
            raise self._stop
        model, asks = part[0].ask.account.model, [asked.ask for asked in part]
        address, submission = self._providers[model].address, uuid.uuid4().hex
        batch = await self._store.write(lambda db: journal.plan(db, model, address, submission, asks))
        if batch is None:
            return part
        admitted = len(batch.held)
        self._carry(batch, {batch.name(asked.ask.key): asked.body for asked in part[:admitted]})
        return part[admitted:]

    def _carry(self, batch: Batch, bodies: Mapping[str, Body]) -> None:
        self._live[batch.id] = batch
        self._start(self._carried(batch, bodies))

    async def _carried(self, batch: Batch, bodies: Mapping[str, Body]) -> None:
        """One batch from here to its end, and what follows if it came to nothing."""
        keys, refused = list(batch.held), None
        try:
            await self._courier.carry(batch, bodies, lambda: self._stop is not None)
        except Fault as fault:
            refused = fault
        finally:
            del self._live[batch.id]
            self._stirred += 1
            self._ended.set()
            self._ended = asyncio.Event()
        if refused is not None:
            helps = await self._make_room(batch, len(keys), refused)
            said = replace(refused, again=refused.again or helps)
            for key in keys:
                self._deliver(key, said, counts=not helps)
        if self._stop:
            for key in keys:
                self._deliver(key, self._stop)

    async def _make_room(self, batch: Batch, requests: int, refused: Fault) -> bool:
        """A batch was too long, or above a quota of the provider's: send less at once, or wait for another to end.

        Whether that can help.
        """
        if refused.kind == "too_long":
            self._most[batch.model] = max(1, requests // 2)
            return requests > 1
        if refused.kind != "rate_limited" or not refused.again:
            return False
        if any(other.model == batch.model for other in self._live.values()):
            await self._ended.wait()
            return True
        self._most[batch.model] = max(1, requests // 2)
        await self._sleep(LONGEST_POLL)
        return requests > 1


async def open_batches(
    store: Store,
    run: str,
    providers: Mapping[str, Provider],
    batch_providers: Mapping[str, BatchProvider] | None,
    prices: Prices,
    thinkers: Thinkers,
    budget_message: Callable[[int], str],
    retries: Counter[str],
    sleep: Sleep,
) -> Batches | None:
    """Batch mode, its journalled batches being polled; None without `batch_providers`.

    `budget_message` words why a bound does not fit; `retries` counts by kind of fault. Raises `UserError` where a run
    with batches at the provider would go on without them.
    """
    if batch_providers is not None:
        batches = Batches(store, run, providers, batch_providers, prices, thinkers, budget_message, retries, sleep)
        await batches.resume()
        return batches
    if count := store.open_batches(run):
        why = f"Of its batches, {count} are at the provider: what they hold would be paid twice."
        raise UserError("The run was begun with --batch.", why, "Go on with --batch.")
    return None
