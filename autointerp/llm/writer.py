"""One thread that writes, many callers that wait: everything queued meanwhile is committed together."""

import asyncio
import queue
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from autointerp.seams import Stop

A = TypeVar("A")
T = TypeVar("T")
_AT_ONCE = 256
"""Operations per commit, at most."""


_Together: TypeAlias = Callable[[sqlite3.Connection, Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class _Operation:
    together: _Together
    item: Any
    done: "asyncio.Future[Any]"


@dataclass(frozen=True, slots=True)
class _Result:
    done: "asyncio.Future[Any]"
    value: Any
    error: Exception | None = None

    def deliver(self) -> None:
        if self.done.cancelled():
            return
        if self.error is None:
            self.done.set_result(self.value)
        else:
            self.done.set_exception(self.error)
            self.done.exception()  # it may be that nobody waits for it any more


class Writer:
    """Owns `connection` from now on. An operation's result is delivered only after its commit is durable."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[list[_Operation] | None] = queue.SimpleQueue()
        self._next: list[_Operation] = []
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Queue `operation` at once; it runs even where nobody awaits the future any more.

        The future raises what the operation raised, or `Stop` where the file cannot be written.
        """
        return self.join(_each, operation)

    def join(self, operation: Callable[[sqlite3.Connection, Sequence[A]], Sequence[T]], item: A) -> "asyncio.Future[T]":
        """The same for `item`, together with the other items of the same `operation` that its commit has.

        `operation` gives a result per item. Items of another operation may be written before earlier ones of this.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        if not self._next:
            loop.call_soon(self._hand_over)  # all that this turn of the loop queues: waking the thread is dear
        self._next.append(_Operation(operation, item, done))
        return done

    def close(self) -> None:
        """Write what is queued, end the thread and close the connection."""
        self._hand_over()
        self._queue.put(None)
        self._thread.join()

    def _hand_over(self) -> None:
        if self._next:
            self._queue.put(self._next)
            self._next = []

    def _work(self) -> None:
        closing = False
        while not closing:
            queued, batch = self._queue.get(), list[_Operation]()
            while queued is not None:
                batch += queued
                if len(batch) >= _AT_ONCE or self._queue.empty():
                    break
                queued = self._queue.get()
            closing = queued is None
            self._commit(batch)
        self._connection.close()

    def _commit(self, batch: list[_Operation]) -> None:
        if not batch:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            groups: defaultdict[_Together, list[_Operation]] = defaultdict(list)
            for operation in batch:
                groups[operation.together].append(operation)
            results = [result for group in groups.values() for result in self._run(group)]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            stop = Stop(f"The store of answers cannot be written: {error}.")
            results = [_Result(operation.done, None, stop) for operation in batch]
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            batch[0].done.get_loop().call_soon_threadsafe(_deliver, results)

    def _run(self, group: list[_Operation]) -> list[_Result]:
        """Inside a savepoint, so that what fails leaves no half of itself; then each operation runs alone."""
        self._connection.execute("SAVEPOINT operation")
        try:
            values = group[0].together(self._connection, [operation.item for operation in group])
            results = [_Result(operation.done, value) for operation, value in zip(group, values, strict=True)]
        except sqlite3.OperationalError:
            raise  # the file's fault, not the operation's
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller
            self._connection.execute("ROLLBACK TO operation")
            results = [_Result(group[0].done, None, error)] if len(group) == 1 else []
        self._connection.execute("RELEASE operation")
        return results or [result for operation in group for result in self._run([operation])]


def _each(db: sqlite3.Connection, operations: Sequence[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
    return [operation(db) for operation in operations]


def _deliver(results: list[_Result]) -> None:
    """On the loop's thread, all results of a commit at once: waking the loop is dear."""
    for result in results:
        result.deliver()
