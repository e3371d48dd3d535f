"""One thread that writes, many callers that wait: everything queued meanwhile is committed together."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from autointerp.seams import Stop

T = TypeVar("T")
_AT_ONCE = 256
"""Operations per commit, at most."""


@dataclass(frozen=True, slots=True)
class _Operation:
    run: Callable[[sqlite3.Connection], Any]
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
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Queue `operation` at once; it runs even where nobody awaits the future any more.

        The future raises what the operation raised, or `Stop` where the file cannot be written.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Operation(operation, done))
        return done

    def close(self) -> None:
        """Write what is queued, end the thread and close the connection."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        closing = False
        while not closing:
            batch = [self._queue.get()]
            while len(batch) < _AT_ONCE and not self._queue.empty():
                batch.append(self._queue.get())
            closing = None in batch
            self._commit([operation for operation in batch if operation is not None])
        self._connection.close()

    def _commit(self, batch: list[_Operation]) -> None:
        if not batch:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [self._attempt(operation) for operation in batch]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            stop = Stop(f"The store of answers cannot be written: {error}.")
            results = [_Result(operation.done, None, stop) for operation in batch]
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            batch[0].done.get_loop().call_soon_threadsafe(_deliver, results)

    def _attempt(self, operation: _Operation) -> _Result:
        """Inside a savepoint, so that a failed operation leaves no half of itself."""
        self._connection.execute("SAVEPOINT operation")
        try:
            value = operation.run(self._connection)
        except sqlite3.OperationalError:
            raise  # the file's fault, not the operation's
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller
            self._connection.execute("ROLLBACK TO operation")
            self._connection.execute("RELEASE operation")
            return _Result(operation.done, None, error)
        self._connection.execute("RELEASE operation")
        return _Result(operation.done, value)


def _deliver(results: list[_Result]) -> None:
    """On the loop's thread, all results of a commit at once: waking the loop is dear."""
    for result in results:
        result.deliver()
