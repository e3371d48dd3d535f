"""Parts that the tests of the language-model layer share."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from autointerp.llm.client import Client
from autointerp.llm.ledger import LedgerRow
from autointerp.llm.prices import OVERHEAD, GivenPrice, Prices
from autointerp.llm.scripted import ScriptedProvider
from autointerp.llm.store import StoreReader
from autointerp.llm.tables import Budget
from autointerp.records.call import Request

MODEL = "scripted/parrot"
CHEAP = Prices(GivenPrice(Decimal(1), Decimal(2)))
"""A thousand nano-dollars per input token, two thousand per output token."""
SCHEMA = '{"additionalProperties":false,"properties":{"explanation":{"type":"string"}},"type":"object"}'
COST = 10 * 1000 + 5 * 2000
"""What a scripted answer costs at `CHEAP`: 10 tokens read, 5 written."""
BOUND = (len("hello") + OVERHEAD) * 1000 + 10 * 2000
"""Bound of `request()` at `CHEAP`."""


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function to its end."""
    asyncio.run(main())


def request(user: str = "hello", **changes: Any) -> Request:
    """A small request to the scripted model."""
    return Request(
        **({"model": MODEL, "system": "", "user": user, "schema": None, "max_tokens": 10, "stage": "explain"} | changes)
    )


async def parrot(asked: Request) -> str:
    """Says what it hears."""
    return asked.user


async def no_sleep(_: float) -> None:
    """Waits made instant."""
    await asyncio.sleep(0)


def open_client(
    folder: Path, reply: Callable[[Request], Awaitable[str]] = parrot, **changes: Any
) -> AbstractAsyncContextManager[Client]:
    """A client with a scripted provider on the store in `folder`."""
    provider = changes.pop("provider", None) or ScriptedProvider(reply)
    settings = {"run": "run", "cap_nano": None, "providers": {MODEL: provider}, "prices": CHEAP, "sleep": no_sleep}
    return Client.open(folder / "answers.sqlite", **(settings | changes))


@contextmanager
def read_store(folder: Path) -> Iterator[StoreReader]:
    """The store in `folder`, for looking into."""
    reader = StoreReader.open(folder / "answers.sqlite")
    try:
        yield reader
    finally:
        reader.close()


def attempts(folder: Path) -> list[tuple[str, str, int]]:
    """State, kind and charge in nano-dollars of every attempt, in order."""
    with read_store(folder) as store:
        rows = store._connection.execute("SELECT state, kind, coalesce(actual, reserved) FROM attempt ORDER BY id")
        return rows.fetchall()


def ledger_row(folder: Path) -> LedgerRow:
    """The only row of the ledger of the run."""
    with read_store(folder) as store:
        [row] = store.ledger("run")
    return row


def budget(folder: Path) -> Budget:
    """The money of the run."""
    with read_store(folder) as store:
        found = store.budget("run")
    assert found is not None
    return found
