"""Parts that the tests of batch mode share."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from autointerp.llm import journal
from autointerp.llm.batch_provider import RemoteBatch
from autointerp.llm.client import Client
from autointerp.llm.faults import Fault
from autointerp.llm.journal import Batch
from autointerp.llm.prices import OVERHEAD
from autointerp.llm.provider import Body, Sent
from autointerp.records.call import Reply
from tests.autointerp.llm_parts import MODEL, open_client, read_store, request

BOUND = (len("unit0") + OVERHEAD) * 1000 + 10 * 2000
"""Bound of a request of `ask`."""
Said = Callable[[Body], Sent | Fault | None]
"""What a request comes to; None: the provider forgets it."""


def echo(body: Body) -> Sent:
    """Says what it hears, as `ScriptedProvider` reads it."""
    return Sent({"text": body["user"], "status": "answered", "tokens": (10, 5), "model": MODEL}, "")


def empty(body: Body) -> Sent:
    """Says nothing."""
    return Sent({"text": "", "status": "empty", "tokens": (10, 5), "model": MODEL}, "")


async def some_turns(_: float) -> None:
    """Waits made short, but long enough for whoever is ready to go on."""
    for _ in range(20):
        await asyncio.sleep(0)


@dataclass(eq=False)
class FakeBatches:
    """A provider's batch API in memory; outlives the clients that talk to it."""

    said: Said = echo
    """What each request comes to when its batch ends."""
    looks: int = 2
    """Polls that find a batch running before it has ended."""
    names: bool = True
    """Whether it keeps our name for a batch, as OpenAI does."""
    before: list[Fault] = field(default_factory=list[Fault])
    """Faults of the next submissions that do not arrive."""
    after: list[Fault] = field(default_factory=list[Fault])
    """Faults of the next submissions that do arrive."""
    silent: bool = False
    """Whether a submission arrives, but is never confirmed."""
    broken: list[Fault] = field(default_factory=list[Fault])
    """Faults of the next polls."""
    whole: list[Fault | None] = field(default_factory=list[Fault | None])
    """Why the next batches are refused as a whole after they were taken."""
    made: dict[str, tuple[str, Mapping[str, Body], Fault | None]] = field(default_factory=dict)
    """Batches by remote name: our name, requests, refusal."""
    polls: dict[str, int] = field(default_factory=dict[str, int])
    """Looks at each."""
    gone: set[str] = field(default_factory=set[str])
    """Batches whose results were deleted."""

    async def submit(self, submission: str, bodies: Mapping[str, Body]) -> str:
        """Take a batch."""
        if self.before:
            raise self.before.pop(0)
        remote = f"batch{len(self.made)}"
        self.made[remote] = submission, dict(bodies), self.whole.pop(0) if self.whole else None
        if self.after:
            raise self.after.pop(0)
        if self.silent:
            await asyncio.Event().wait()
        return remote

    async def status(self, remote: str) -> RemoteBatch:
        """Ended after `looks` polls."""
        if self.broken:
            raise self.broken.pop(0)
        self.polls[remote] = self.polls.get(remote, 0) + 1
        return self._standing(remote)

    async def results(self, remote: str) -> Sequence[tuple[str, Sent | Fault]]:
        """In the reverse of the order of asking."""
        said = [(name, self.said(body)) for name, body in self.made[remote][1].items()]
        return [(name, each) for name, each in reversed(said) if each is not None]

    async def recent(self, since: float) -> Sequence[RemoteBatch]:
        """All of them; to look is a poll."""
        for remote in self.made:
            self.polls[remote] = self.polls.get(remote, 0) + 1
        return [self._standing(remote) for remote in reversed(self.made)]

    async def aclose(self) -> None:
        """Nothing to close."""

    def sizes(self) -> list[int]:
        """Requests per batch, in the order of submission."""
        return [len(bodies) for _, bodies, _ in self.made.values()]

    def asked(self) -> list[str]:
        """What was asked, batch after batch."""
        return [body["user"] for _, bodies, _ in self.made.values() for body in bodies.values()]

    def _standing(self, remote: str) -> RemoteBatch:
        submission, bodies, fault = self.made[remote]
        name = submission if self.names else ""
        if remote in self.gone:
            return RemoteBatch(remote, "gone", len(bodies), submission=name)
        ended = self.polls.get(remote, 0) > self.looks
        standing, done = ("ended", len(bodies)) if ended else ("running", min(self.polls.get(remote, 0), len(bodies)))
        return RemoteBatch(remote, standing, len(bodies), done, name, fault if ended else None)


def open_batching(folder: Path, api: FakeBatches, **changes: object) -> AbstractAsyncContextManager[Client]:
    """A client in batch mode with a scripted model."""
    return open_client(folder, **({"batch_providers": {MODEL: api}, "sleep": some_turns} | changes))


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function to its end."""
    asyncio.run(main())  # type: ignore[arg-type]


async def ask(client: Client, units: Sequence[int]) -> list[object]:
    """Ask for all of `units` at once; what each comes to, `Stop` included."""
    return await asyncio.gather(*(client.answer(request(f"unit{i}")) for i in units), return_exceptions=True)


def texts(said: Sequence[object]) -> list[str]:
    """The answers, in order."""
    assert all(isinstance(each, Reply) for each in said), said
    return [each.text for each in said if isinstance(each, Reply)]


def journalled(folder: Path) -> list[tuple[str, str, int]]:
    """State, remote name and number of attempts of every batch."""
    with read_store(folder) as store:
        rows = store._connection.execute(
            "SELECT state, remote, count(*) FROM batch JOIN batch_attempt ON batch_id = id GROUP BY id ORDER BY id"
        )
        return rows.fetchall()


def still_open(folder: Path) -> list[Batch]:
    """Batches of the scripted model that are not ingested."""
    with read_store(folder) as store:
        return journal.find_open(store._connection, {MODEL: "scripted"})
