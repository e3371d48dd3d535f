"""A run whose process is killed again and again, and what can be said of it afterwards."""

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from autointerp.llm import openai
from autointerp.llm.answers import recall
from autointerp.llm.prices import Prices
from autointerp.llm.provider import answer_key
from autointerp.llm.store import StoreReader
from autointerp.llm.tables import Budget
from autointerp.records.call import Reply
from tests.servers import worker
from tests.servers.faults import even
from tests.servers.loopback import Server, request_hash, serve

CONCURRENCY = 64
AMPLE = 10**12
"""Nano-dollars that no storm can spend."""
NETWORK = ("429", "500", "529", "reset", "reset-billed", "cut", "malformed")
"""Faults that leave no answer: what is asked again gets the same answer in the end."""
_HASTE = 1000.0
_SLEEPY = 0.1
"""Share of lives that end at any moment, be it in the start or in the end, and not at some call."""
_LIVES_AT_THE_END = 3


@dataclass(frozen=True, slots=True)
class Storm:
    """What befalls a run."""

    calls: int
    """Requests of the run."""
    kills: int
    """Lives that SIGKILL ends."""
    tight: bool
    """Whether each life may spend only so much more that its calls wait for each other's money."""
    faults: float = 0.1
    """Share of requests that a fault befalls besides."""
    seed: int = 0
    delay: float = 0.005
    """Seconds that the server takes."""


@dataclass(slots=True)
class Toll:
    """What a storm did; money in nano-dollars."""

    lives: int = 0
    """Processes before the one that was left to finish."""
    killed: int = 0
    """Those that SIGKILL ended; the others reached their budget, or the end, before it came."""
    checks: int = 0
    """Times that the bill was compared with the store and the cap."""
    breaches: int = 0
    """Times that not billed <= committed <= cap."""
    billed: int = 0
    committed: int = 0
    requests: int = 0
    """Requests that the server received."""
    paid_twice: int = 0
    """Billed answers beyond one per request: under way at a kill, or lost on the network."""
    asked_again: int = 0
    """Requests whose answer had been settled before. Must be none."""
    missing: int = 0
    """Requests without an answer at the end. Must be none."""
    different: int = 0
    """Answers unlike those of an undisturbed run. Must be none."""
    injected: Counter[str] = field(default_factory=Counter)
    """Faults, by name."""


def endure(storm: Storm, folder: Path) -> Toll:
    """Run `storm` on a new store in `folder`."""
    toll, chance = Toll(), np.random.default_rng(storm.seed)
    shares = even(storm.faults, NETWORK)
    bill, log = folder / "bill.jsonl", folder / "log.jsonl"
    with serve(bill=bill, log=log, shares=shares, seed=storm.seed, delay=storm.delay) as server:
        store = folder / "answers.sqlite"
        while toll.killed < storm.kills and toll.lives < 3 * storm.kills:
            before, seen = _settled(store, server, storm.calls), len(server.requests())
            if len(before) == storm.calls:
                break
            toll.lives += 1
            room = int(chance.integers(1, CONCURRENCY // 2))
            cap = _cap(store, room) if storm.tight else AMPLE
            latest = min(4 * room if storm.tight else 2 * CONCURRENCY, storm.calls - len(before))
            doom = int(chance.integers(1, max(2, latest)))
            with _life(store, server, storm.calls, cap) as process:
                _await_death(doom, server, process, chance, lambda cap=cap: _check(toll, server, store, cap))
                toll.killed += process.is_alive()
            _wait_for_quiet(server)
            _check(toll, server, store, cap)
            _compare(toll, server, before, seen)
        for _ in range(_LIVES_AT_THE_END):  # the network may fail one request all the times that it is tried
            before, seen = _settled(store, server, storm.calls), len(server.requests())
            asyncio.run(worker.run(store, f"{server.url}/v1", storm.calls, AMPLE, -1, CONCURRENCY, _HASTE))
            _check(toll, server, store, AMPLE)
            _compare(toll, server, before, seen)
            if len(after := _settled(store, server, storm.calls)) == storm.calls:
                break
        toll.injected, toll.requests = server.injected, server.calls
        toll.billed, toll.committed = _billed(server), _money(store).committed
        toll.paid_twice = len(server.billed()) - len({line["request"] for line in server.billed()})
    calm = undisturbed(storm.calls, folder / "calm")
    toll.missing = storm.calls - len(after)
    toll.different = sum(calm[name] != text for name, text in after.items())
    return toll


def undisturbed(calls: int, folder: Path) -> Mapping[str, str]:
    """The answers of the same run without faults and kills, by the server's hash of the request."""
    folder.mkdir()
    with serve() as server:
        asyncio.run(worker.run(folder / "answers.sqlite", f"{server.url}/v1", calls, AMPLE, -1, CONCURRENCY, _HASTE))
        return _settled(folder / "answers.sqlite", server, calls)


@contextmanager
def _life(store: Path, server: Server, calls: int, cap: int) -> Iterator[BaseProcess]:
    """A process at work; it is killed at the end, whatever it does."""
    context = multiprocessing.get_context("forkserver")  # which imports once, and not once per life
    context.set_forkserver_preload(["tests.servers.warm"])
    process = context.Process(target=_work, args=(store, f"{server.url}/v1", calls, cap))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def _work(store: Path, url: str, calls: int, cap: int) -> None:
    asyncio.run(worker.run(store, url, calls, cap, -1, CONCURRENCY, _HASTE))


def _cap(store: Path, room: int) -> int:
    """A budget in which `room` calls have room at a time."""
    committed = _money(store).committed if store.exists() else 0
    return committed + room * Prices().bound(worker.work(1)[0])


def _await_death(
    doom: int, server: Server, process: BaseProcess, chance: np.random.Generator, check: Callable[[], None]
) -> None:
    """Return a moment after the life's call number `doom`, or at any moment, or at its end; `check` all the while."""
    born, calls = time.monotonic(), server.calls
    sleepy = chance.random() < _SLEEPY
    last = chance.random() * (0.3 if sleepy else 0.02)
    while process.is_alive() and (time.monotonic() - born < last if sleepy else server.calls - calls < doom):
        check()
        time.sleep(0.005)
    if not sleepy:
        time.sleep(last)


def _wait_for_quiet(server: Server) -> None:
    while server.in_flight:
        time.sleep(0.001)


def _check(toll: Toll, server: Server, store: Path, cap: int) -> None:
    """Compare bill, store and cap. The bill is read first: what it says then must be committed ever after."""
    if not store.exists():
        return
    billed = _billed(server)
    toll.checks += 1
    toll.breaches += not billed <= _money(store).committed <= cap


def _compare(toll: Toll, server: Server, before: Mapping[str, str], seen: int) -> None:
    """Count requests after the first `seen` whose answers were in the store `before`."""
    toll.asked_again += sum(line["request"] in before for line in server.requests()[seen:])


def _billed(server: Server) -> int:
    return sum(line["nano"] for line in server.billed())


def _money(store: Path) -> Budget:
    reader = StoreReader.open(store)
    try:
        return reader.budget("run") or Budget(None, 0, 0)
    finally:
        reader.close()


def _settled(store: Path, server: Server, calls: int) -> Mapping[str, str]:
    """The answers in `store`, by the server's hash of the request."""
    if not store.exists():
        return {}
    provider, found = openai.OpenAIProvider(None, f"{server.url}/v1"), dict[str, str]()
    reader = StoreReader.open(store)
    try:
        for asked in worker.work(calls):
            if stored := reader.answer(answer_key(provider, asked)):
                said = recall(provider, asked, stored)
                assert isinstance(said, Reply)
                found[request_hash(provider.render(asked))] = said.text
    finally:
        reader.close()
    return found
