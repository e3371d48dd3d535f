"""The way of one batch: submitted, or found again where that is in doubt; polled; its results settled one by one."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeAlias, TypeVar

from autointerp.llm import journal
from autointerp.llm.answers import above_bound, charge, pack
from autointerp.llm.batch_provider import BatchProvider
from autointerp.llm.faults import Fault, Sleep, retrying
from autointerp.llm.journal import Batch, State
from autointerp.llm.prices import Prices
from autointerp.llm.provider import Answer, Body, Provider, Sent
from autointerp.llm.store import Store
from autointerp.records.call import Usage
from autointerp.seams import Refused, Stop

T = TypeVar("T")
Paid: TypeAlias = tuple[Answer, int]
"""An answer and its nano-dollars."""

FIRST_POLL = 10.0
"""Seconds before a batch is looked at again for the first time; half as much more each time."""
LONGEST_POLL = 120.0
"""Seconds between two looks, at most."""
LOST_AFTER = 1200.0
"""Seconds after which a submission in doubt cannot arrive any more: twice the longest that a call may last."""
CLOCK_SKEW = 300.0
"""Seconds by which the provider's clock may differ from ours."""
_AT_ONCE = 256
"""Results settled together: as many as one commit takes."""


class Courier:
    """Carries batches for `Batches`; `deliver` hands over what a request came to, once that is durable."""

    def __init__(
        self,
        store: Store,
        providers: Mapping[str, Provider],
        batch_providers: Mapping[str, BatchProvider],
        prices: Prices,
        *,
        deliver: Callable[[bytes, Paid | Fault], None],
        retries: Counter[str],
        sleep: Sleep,
    ) -> None:
        self._store, self._providers, self._batch_providers = store, providers, batch_providers
        self._prices, self._deliver, self._retries = prices, deliver, retries
        self._sleep = sleep
        self.sending: set[int] = set()
        """Rows of batches whose submission is on the wire: to break it off would leave it in doubt."""

    async def carry(self, batch: Batch, bodies: Mapping[str, Body], halted: Callable[[], bool]) -> None:
        """Bring `batch` from where it stands to `ingested`, or as far as it is when `halted`.

        Raises `Fault` where the batch as a whole came to nothing, `Refused` where every other would, too.
        """
        try:
            if batch.state == "planned" and not halted():
                await self._submit(batch, bodies, halted)
            if batch.state == "submitting" and not halted():
                await self._seek(batch)
            if batch.state == "submitted" and not halted():
                await self._poll(batch)
            if batch.state == "ended" and not halted():
                await self._ingest(batch)
        except Fault as fault:
            if fault.stop:
                raise Refused(f"{batch.model}: {fault.message}") from None
            raise

    async def _submit(self, batch: Batch, bodies: Mapping[str, Body], halted: Callable[[], bool]) -> None:
        """Send it once; where it cannot be known whether it arrived, it stays `submitting`."""

        async def once() -> None:
            if halted():
                raise Fault("connection", "The run was stopped before the batch was sent.")
            batch.began = time.time()
            self.sending.add(batch.id)
            try:
                await self._advance(batch, "submitting")
                batch.remote = await self._batch_providers[batch.model].submit(batch.submission, bodies)
                await self._advance(batch, "submitted")
            except Fault as fault:
                raise replace(fault, again=fault.again and not fault.billed) from None
            finally:
                self.sending.discard(batch.id)

        try:
            await self._retrying(once)
        except Fault as fault:
            if not fault.billed:
                await self._close(batch, fault, billed=False)
                raise

    async def _seek(self, batch: Batch) -> None:
        """Find the batch of a submission in doubt: by our name for it, else by the names of its requests.

        The latter are seen only in results, so batches of the same size that still run are waited for.
        """
        provider, ours = self._batch_providers[batch.model], set(map(batch.name, batch.held))
        others = await self._store.write(journal.known)
        while True:
            perhaps = False
            for found in await self._reach(batch, lambda: provider.recent(batch.began - CLOCK_SKEW)):
                same = found.submission == batch.submission
                if not same and (found.submission or found.requests != len(ours) or found.id in others):
                    continue
                if not same and found.standing == "ended":
                    results = await self._reach(batch, lambda remote=found.id: provider.results(remote))
                    same = {name for name, _ in results} == ours
                    others.add(found.id)
                if same:
                    batch.remote = found.id
                    await self._advance(batch, "submitted")
                    return
                perhaps = perhaps or found.standing == "running"
            if not perhaps and time.time() > batch.began + LOST_AFTER:
                lost = Fault("connection", "The batch never reached the provider.", again=True)
                await self._close(batch, lost, billed=False)
                raise lost
            await self._sleep(LONGEST_POLL)

    async def _poll(self, batch: Batch) -> None:
        """Wait until it has ended, however long that takes."""
        provider, wait = self._batch_providers[batch.model], FIRST_POLL
        while (now := await self._reach(batch, lambda: provider.status(batch.remote))).standing == "running":
            batch.done = now.done
            await self._sleep(wait)
            wait = min(wait * 1.5, LONGEST_POLL)
        gone = Fault("server_error", f"The provider no longer has batch {batch.remote}.", again=True)
        fault = gone if now.standing == "gone" else now.fault
        if fault is not None:
            await self._close(batch, fault, billed=fault is gone)
            raise fault
        await self._advance(batch, "ended")

    async def _ingest(self, batch: Batch) -> None:
        """Settle every result; requests without one may have been billed. Raises `Stop` after all are settled."""
        provider, names = self._batch_providers[batch.model], {batch.name(key): key for key in batch.held}
        results = iter(await self._reach(batch, lambda: provider.results(batch.remote)))
        stops: list[Stop] = []
        while some := list(itertools.islice(results, _AT_ONCE)):
            ours = [(key, said) for name, said in some if (key := names.pop(name, None))]
            stops += filter(None, await asyncio.gather(*(self._take(batch, key, said) for key, said in ours)))
        missing = Fault("server_error", "The batch ended without a word on the request.", again=True)
        left = list(batch.held)
        await self._close(batch, missing, billed=True)
        for key in left:
            self._deliver(key, missing)
        if stops:
            raise stops[0]

    async def _take(self, batch: Batch, key: bytes, said: Sent | Fault) -> Stop | None:
        """Settle one result and hand it over; why nothing more may be sent, if that is what it means."""
        held, model = batch.held[key], batch.model
        try:
            if isinstance(said, Fault):
                raise said
            answer = self._providers[model].read(said.body)
        except Fault as fault:
            await (self._store.mark_unknown if fault.billed else self._store.release)(held.attempt, fault.kind)
            del batch.held[key]
            self._deliver(key, fault)
            return Refused(f"{model}: {fault.message}") if fault.stop else None
        cost = charge(self._prices, model, answer, held.bound, batch=True)
        await self._store.settle(held.attempt, key, pack(said, answer, cost), answer.usage or Usage(0, 0, 0, 0))
        del batch.held[key]
        self._deliver(key, (answer, cost))
        return above_bound(model, cost, held.bound)

    async def _reach(self, batch: Batch, action: Callable[[], Awaitable[T]]) -> T:
        """What `action` brings, however long the provider is out of reach: a batch that was sent is never given up."""

        async def once() -> T:
            return await action()

        while True:
            try:
                return await self._retrying(once)
            except Fault as fault:
                if fault.stop or fault.kind == "bad_request":
                    raise Refused(f"{batch.model}: {fault.message}") from None
            await self._sleep(LONGEST_POLL)

    async def _retrying(self, once: Callable[[], Awaitable[T]]) -> T:
        return await retrying(lambda fault: self._retries.update([fault.kind]), self._sleep)(once)

    async def _advance(self, batch: Batch, state: State) -> None:
        """Journal first, know afterwards."""
        await self._store.write(lambda db: journal.advance(db, batch, state))
        batch.state = state

    async def _close(self, batch: Batch, fault: Fault, *, billed: bool) -> None:
        """End what is still open, charged at its bound where it may have been `billed`."""
        await self._store.write(lambda db: journal.close(db, batch, fault.kind, billed=billed))
        batch.state, batch.held = "ingested", {}
