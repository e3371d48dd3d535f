"""One thread that writes, many callers that wait: everything queued meanwhile is committed together."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from autointerp.seams import Stop

T = TypeVar("T")
_AT_ONCE = 256
"""Operations per commit, at most."""


@dataclass(frozen=True, slots=True)
class _Operation:
    run: Callable[[sqlite3.Connection], Any]
    done: "Future[Any]"


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
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # cancelling the waiter must not cancel the write
        self._queue.put(_Operation(operation, done))
        waiter = asyncio.wrap_future(done)
        waiter.add_done_callback(lambda future: future.cancelled() or future.exception())
        return waiter

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
        results: list[tuple[_Operation, Any, Exception | None]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [self._attempt(operation) for operation in batch]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            stop = Stop(f"The store of answers cannot be written: {error}.")
            results = [(operation, None, stop) for operation in batch]
        for operation, result, error in results:
            if error is None:
                operation.done.set_result(result)
            else:
                operation.done.set_exception(error)

    def _attempt(self, operation: _Operation) -> tuple[_Operation, Any, Exception | None]:
        """Inside a savepoint, so that a failed operation leaves no half of itself."""
        self._connection.execute("SAVEPOINT operation")
        try:
            result = operation.run(self._connection)
        except sqlite3.OperationalError:
            raise  # the file's fault, not the operation's
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller
            self._connection.execute("ROLLBACK TO operation")
            self._connection.execute("RELEASE operation")
            return operation, None, error
        self._connection.execute("RELEASE operation")
        return operation, result, None
