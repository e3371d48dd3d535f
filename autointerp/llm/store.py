"""The store of answers, attempts and budgets: one SQLite file, one writing process, every result durable."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from autointerp.llm import journal, tables
from autointerp.llm.ledger import LedgerRow, read_ledger
from autointerp.llm.tables import Account, Budget, Ending, Reservation, Stored
from autointerp.llm.writer import Writer
from autointerp.records.call import Thinking, Usage
from sae.errors import UserError

T = TypeVar("T")
_BUSY_SECONDS = 30.0


class StoreReader:
    """Reads a store, also while a run writes it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> "StoreReader":
        """Open an existing store for reading; raises `UserError` where there is none."""
        if not path.is_file():
            raise UserError(f"There is no store of answers at {path}.", do="A run makes it at its first call.")
        connection = _connect(path)
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            connection.executescript(tables.SCHEMA)  # whoever began to make it died at once, or is just about to go on
        return cls(connection)

    def answer(self, key: bytes) -> Stored | None:
        """The stored answer to the request with `key`, whatever its status."""
        return tables.find_answer(self._connection, key)

    def budget(self, run: str) -> Budget | None:
        """The run's money, or None for a run that never called."""
        return tables.read_budget(self._connection, run)

    def thinking(self, addresses: Mapping[str, str]) -> Mapping[str, Thinking]:
        """How much models (at `addresses`) must be let think, where they have refused to do without."""
        rows = self._connection.execute("SELECT model, address, level FROM thinking").fetchall()
        return {model: level for model, address, level in rows if addresses.get(model) == address}

    def ledger(self, run: str) -> list[LedgerRow]:
        """What the run cost by stage, model and arm."""
        return read_ledger(self._connection, run)

    def open_batches(self, run: str) -> int:
        """Batches of the run whose results are not all here yet."""
        return journal.count_open(self._connection, run)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class Store(StoreReader):
    """Writes a store; at most one in the world per file.

    Every method that returns a future has queued its write before it returns, and the write happens even where the
    caller is cancelled; the future is done when the write is durable. Futures raise `Stop` where the file cannot be
    written.
    """

    def __init__(self, reader: sqlite3.Connection, writer: Writer, lock: sqlite3.Connection) -> None:
        super().__init__(reader)
        self._writer, self._lock = writer, lock

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open or make the store at `path`; attempts that a dead process left open become unknown.

        Raises `UserError` where another run writes it, or it is no store.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
        except OSError as error:
            raise UserError(f"The store of answers {path} cannot be made.", str(error)) from error
        opened = [lock]
        try:
            opened += [connection := _connect(path)]
            connection.executescript(tables.SCHEMA)
            tables.recover(connection)
            opened += [reader := _connect(path)]
        except (sqlite3.Error, UserError) as error:
            for each in opened:
                each.close()
            if isinstance(error, UserError):
                raise
            raise UserError(f"The store of answers {path} cannot be written.", str(error)) from error
        return cls(reader, Writer(connection), lock)

    def open_run(self, run: str, cap: int | None) -> "asyncio.Future[None]":
        """Make the run's budget with `cap` nano-dollars (None: no limit), or give it a new cap."""
        return self._writer.submit(lambda db: tables.open_run(db, run, cap))

    def reserve(self, account: Account, key: bytes, bound: int) -> "asyncio.Future[int | None]":
        """Hold `bound` for one attempt before it is sent: its id, or None where the cap does not allow it."""
        return self._writer.join(tables.reserve, Reservation(account, key, bound))

    def settle(self, attempt: int, key: bytes, answer: Stored, usage: Usage) -> "asyncio.Future[None]":
        """Store the answer, end the attempt and correct the budget, in one transaction."""
        return self._writer.join(tables.end, Ending.settled(attempt, key, answer, usage))

    def release(self, attempt: int, kind: str) -> "asyncio.Future[None]":
        """End an attempt that was certainly not billed."""
        return self._writer.join(tables.end, Ending.released(attempt, kind))

    def mark_unknown(self, attempt: int, kind: str) -> "asyncio.Future[None]":
        """End an attempt that may have been billed: it stays charged at its bound."""
        return self._writer.join(tables.end, Ending.unknown(attempt, kind))

    def reject(self, run: str, key: bytes) -> "asyncio.Future[None]":
        """Name an answer that the run paid for `invalid`; it stays charged and stored."""
        return self._writer.submit(lambda db: tables.reject(db, run, key))

    def write(self, operation: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Run `operation` of `journal` on the store, in one transaction."""
        return self._writer.submit(operation)

    def learn_thinking(self, model: str, address: str, level: Thinking) -> "asyncio.Future[None]":
        """Keep how much `model` at `address` must be let think."""
        return self._writer.submit(lambda db: tables.learn_thinking(db, model, address, level))

    def add_hits(self, hits: Mapping[Account, int]) -> "asyncio.Future[None]":
        """Count answers that cost nothing."""
        return self._writer.submit(lambda db: tables.add_hits(db, hits))

    def recover(self) -> "asyncio.Future[int]":
        """Charge what is still open; returns how many attempts that were."""
        return self._writer.submit(tables.recover)

    def close(self) -> None:
        """Write what is queued and let other processes in."""
        self._writer.close()
        super().close()
        self._lock.close()


def _lock(path: Path) -> sqlite3.Connection:
    """A lock that dies with its process: an exclusive transaction on an empty file beside the store."""
    lock = sqlite3.connect(path.with_name(path.name + ".lock"), timeout=0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        why = "Two writers could pay for the same answer, and each would think the budget its own."
        raise UserError(
            f"Another run is using the store of answers {path}.", why, "Wait for it, or give --answers another file."
        ) from error
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise UserError(f"The store of answers {path} cannot be opened.", str(error)) from error
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "temp_store = MEMORY", "wal_autocheckpoint = 2000"):
            connection.execute(f"PRAGMA {pragma}")
        both = "SELECT user_version, EXISTS(SELECT 1 FROM sqlite_master) FROM pragma_user_version"
        version, filled = connection.execute(both).fetchone()  # at once: another process may just be making the tables
        fault = "It holds other tables." if filled and not version else ""
    except sqlite3.DatabaseError as error:
        version, fault = 0, str(error)
    if version > tables.VERSION:
        fault = "A newer version of this program wrote it."
    if fault:
        connection.close()
        raise UserError(f"{path} is no store of answers.", fault, "Give --answers another file.")
    return connection
