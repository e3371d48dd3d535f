"""The path of a call: store, single flight, limits, reservation, provider, retries, settlement."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from autointerp.llm.answers import above_bound, as_cached, charge, outcome, pack, recall
from autointerp.llm.batch_provider import BatchProvider
from autointerp.llm.batches import Batches, open_batches
from autointerp.llm.faults import Fault, Sleep, retrying
from autointerp.llm.flights import Flights
from autointerp.llm.lane import Lane
from autointerp.llm.prefixes import Prefixes
from autointerp.llm.prices import NANO, Prices
from autointerp.llm.progress import Progress, Tally
from autointerp.llm.provider import Answer, Provider, Sent, answer_key
from autointerp.llm.purse import Purse
from autointerp.llm.store import Store
from autointerp.llm.tables import Account, Budget
from autointerp.llm.thinking import Thinkers
from autointerp.records.call import Reply, Request, Usage
from autointerp.records.explanation import Failure
from autointerp.seams import BudgetReached, Interrupted, Refused, Stop
from sae.errors import UserError, nearest

_DRAWN_AGAIN = ("refusal", "truncated", "empty")
"""Kinds of failure that were paid for and stored."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A request on its way."""

    request: Request
    provider: Provider
    key: bytes
    """Of the answer."""
    item: bytes
    """Of what is asked: the same for all draws."""


class Client:
    """Implements `seams.Model`. Make one with `open`; one event loop, one store, one run."""

    def __init__(
        self,
        store: Store,
        *,
        run: str,
        providers: Mapping[str, Provider],
        prices: Prices,
        lanes: Mapping[str, Lane],
        concurrency: int,
        retry_failed: bool,
        sleep: Sleep,
    ) -> None:
        self._store, self._run, self._providers, self._prices, self._sleep = store, run, providers, prices, sleep
        self._lanes, self._concurrency, self._room = lanes, concurrency, asyncio.Semaphore(concurrency)
        self._retry_failed = retry_failed
        self._flights = Flights()
        self._prefixes = Prefixes()
        addresses = {model: provider.address for model, provider in providers.items()}
        self._thinkers = Thinkers(store.thinking(addresses), store.learn_thinking)
        self._tally = Tally()
        self._stop: Stop | None = None
        self._closed_with: Budget | None = None
        self._purse = Purse(store, self._check, self._exhausted)
        self._hits: Counter[Account] = Counter()
        self._batches: Batches | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        store_path: Path,
        *,
        run: str,
        cap_nano: int | None,
        providers: Mapping[str, Provider],
        concurrency: int = 32,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        prices: Prices | None = None,
        batch_providers: Mapping[str, BatchProvider] | None = None,
        retry_failed: bool = False,
        sleep: Sleep = asyncio.sleep,
    ) -> AsyncGenerator["Client"]:
        """A client for `run` on the store at `store_path`; `providers` by model, as `make_providers` gives them.

        `cap_nano` is the most that all sessions of the run may commit together, in nano-dollars. `concurrency` is the
        most calls in flight; fewer where a provider has no room. The limits per minute are per model,
        `tokens_per_minute` for input and output together; a limit that is not given is learnt from the provider's
        headers. `batch_providers` send every request by the batch APIs instead. Raises `UserError` where a model has no
        price, where another run uses the store, or where batches of the run would be left behind.
        """
        prices = prices or Prices()
        for model in providers:
            prices.require(model)
        store = Store.open(store_path)
        client = cls(
            store,
            run=run,
            providers=providers,
            prices=prices,
            lanes={model: Lane(concurrency, requests_per_minute, tokens_per_minute) for model in providers},
            concurrency=concurrency,
            retry_failed=retry_failed,
            sleep=sleep,
        )
        try:
            await store.open_run(run, cap_nano)
            client._batches = await open_batches(
                store,
                run,
                providers,
                batch_providers,
                prices,
                client._thinkers,
                client._budget_message,
                client._tally.retries,
                sleep,
            )
            yield client
        finally:
            await client.aclose()

    async def answer(self, request: Request) -> Reply | Failure:
        """The answer, from the store or paid for now; or why there is none.

        An empty answer is asked for once more. Refused, truncated and empty answers were billed, so they are stored
        too, and are failures; with `retry_failed` the stored ones are drawn anew, once a session. Raises
        `BudgetReached` where the next attempt could exceed the budget, `Refused` where the provider refuses key, credit
        or model or was never reached, `Interrupted` where the client is closing. A caller that is cancelled leaves;
        where it was the last one, an attempt under way stays charged.
        """
        draw = 0
        said, free = await self._shared(request, draw)
        while isinstance(said, Failure) and said.kind in _DRAWN_AGAIN and self._draws_again(request, said, free, draw):
            draw += 1
            said, free = await self._shared(request, draw)
        self._tally.done += 1
        if free:
            self._tally.cached += 1
            self._hits[self._account(request)] += 1
        if isinstance(said, Failure):
            self._tally.failed[said.kind] += 1
        return said

    def reject(self, request: Request) -> None:
        """The answer could not be read: it counts as ``invalid`` in the ledger of the run that paid for it."""
        self._tally.failed["invalid"] += 1
        self._store.reject(self._run, answer_key(self._providers[request.model], request))

    def _draws_again(self, request: Request, said: Failure, free: bool, draw: int) -> bool:
        """Whether a failed draw is followed by another: by one that is stored already, or by a new one."""
        if (said.kind == "empty" and draw == 0) or (free and self._retry_failed):
            return True
        return self._store.answer(answer_key(self._providers[request.model], request, draw=draw + 1)) is not None

    def progress(self) -> Progress:
        """Where the run's calls stand, or stood when the client was closed."""
        budget = self._closed_with or self._store.budget(self._run)
        committed, reserved, cap = (budget.committed, budget.reserved, budget.cap) if budget else (0, 0, None)
        slots = [lane.slots for lane in self._lanes.values()]
        return self._tally.progress(
            in_flight=min(self._concurrency, sum(each.in_flight for each in slots)),
            limit=min(self._concurrency, sum(each.pace.limit for each in slots)),
            spent=committed - reserved,
            reserved=reserved,
            cap=cap,
            at_provider=self._batches.at_provider() if self._batches else None,
            warnings=(*self._prefixes.warnings, *self._thinkers.warnings),
        )

    def drain(self) -> None:
        """Let calls under way end, and send no other; whoever waits for a batch is let go."""
        self._stop = self._stop or Interrupted("Interrupted.")
        if self._batches is not None:
            self._batches.stop(self._stop)
        self._purse.wake()

    async def aclose(self) -> None:
        """Break off what is under way (it stays charged), write everything, close connections."""
        self._stop = self._stop or Interrupted("The client is closed.")
        try:
            await self._flights.abort()
            if self._batches is not None:
                await self._batches.aclose()
            for provider in set(self._providers.values()):
                with suppress(OSError, RuntimeError):
                    await provider.aclose()
            with suppress(Stop):
                await self._store.add_hits(dict(self._hits))
                await self._store.recover()
        finally:
            self._closed_with = self._store.budget(self._run) or Budget(None, 0, 0)
            self._store.close()

    async def _shared(self, request: Request, draw: int) -> tuple[Reply | Failure, bool]:
        """From the store; else from the flight of the same request, which is started where there is none.

        Second, whether it cost nothing now.
        """
        if self._closed_with is not None:
            raise Interrupted("The client is closed.")
        provider = self._providers.get(request.model)
        if provider is None:
            raise UserError(f"{request.model} was not opened.", do=nearest(request.model, self._providers))
        item = answer_key(provider, request)
        call = _Call(request, provider, answer_key(provider, request, draw=draw) if draw else item, item)
        if stored := self._store.answer(call.key):
            return recall(provider, request, stored), True
        if call.key in self._flights:
            return as_cached(await self._flights.join(call.key)), True
        self._check()
        return await self._flights.start(call.key, lambda: self._fly(call)), False

    async def _fly(self, call: _Call) -> Reply | Failure:
        """Attempts at one request until one is answered; each goes through the limits and the budget again."""
        if self._batches is not None:
            return await self._batches.answer(call.request, call.key, call.item)
        async with self._prefixes.turn(call.request), self._lanes[call.request.model].slots, self._room:
            try:
                retry = retrying(lambda fault: self._tally.retries.update([fault.kind]), self._sleep)
                return await retry(self._attempt, call)
            except Fault as fault:
                if fault.stop:
                    self._halt(Refused(f"{call.request.model}: {fault.message}"))
                if self._never_reached(call, fault):
                    self._halt(Refused(f"{call.provider.address} cannot be reached: {fault.message}"))
                return Failure(call.request.stage, fault.kind, fault.message)

    def _never_reached(self, call: _Call, fault: Fault) -> bool:
        """Whether nobody has ever answered at the address: then every other call would wait as long, in vain."""
        return fault.kind == "connection" and not fault.billed and call.request.model not in self._tally.served

    async def _attempt(self, call: _Call) -> Reply | Failure:
        """Pass the limits, reserve, send, settle."""
        self._check()
        lane, request = self._lanes[call.request.model], self._thinkers.as_sent(call.request)
        ticket = await lane.limits.acquire(request)
        bound = self._prices.bound(request)
        attempt = await self._purse.reserve(self._account(call.request), call.item, bound)
        try:
            self._tally.sent()
            sent = await call.provider.send(request)
            answer = call.provider.read(sent.body)
            lane.answered(ticket, sent.headers, answer.usage)
            return await self._settle(attempt, call, bound, sent, answer)
        except Fault as fault:
            lane.failed(ticket, fault)
            end = self._store.mark_unknown if fault.billed else self._store.release
            await end(attempt, fault.kind)
            if self._thinkers.learns(call.provider, request, fault):
                raise replace(fault, again=True) from None
            raise
        except BaseException:
            self._store.mark_unknown(attempt, "interrupted")
            raise
        finally:
            self._purse.let_go()

    async def _settle(self, attempt: int, call: _Call, bound: int, sent: Sent, answer: Answer) -> Reply | Failure:
        """Store the answer and pay; a bill above its bound stops the run, since no budget can hold against it."""
        cost = charge(self._prices, call.request.model, answer, bound)
        usage = answer.usage or Usage(0, 0, 0, 0)
        await self._store.settle(attempt, call.key, pack(sent, answer, cost), usage)
        self._tally.answered(call.request.model, answer.served, usage)
        self._prefixes.count(call.request, usage, cost)
        self._stop = self._stop or above_bound(call.request.model, cost, bound)
        return outcome(call.request, answer, cost)

    def _account(self, request: Request) -> Account:
        return Account(self._run, request.stage, request.model, request.arm)

    def _check(self) -> None:
        if self._stop is not None:
            raise self._stop

    def _halt(self, stop: Stop) -> NoReturn:
        """From now on nothing is sent."""
        self._stop = self._stop or stop
        self._purse.wake()
        raise self._stop

    def _exhausted(self, bound: int) -> NoReturn:
        self._halt(BudgetReached(self._budget_message(bound)))

    def _budget_message(self, bound: int) -> str:
        progress = self.progress()
        left = ((progress.cap or 0) - progress.spent) / NANO
        return (
            f"The budget is reached: {progress.spent / NANO:.6f} dollars are spent, {left:.6f} are left, and the next"
            f" call could cost {bound / NANO:.6f}."
        )
