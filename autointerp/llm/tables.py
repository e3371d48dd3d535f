"""The tables of the store of answers, as pure SQL over a connection; money in whole nano-dollars.

Invariant: billed <= committed <= cap at all times, as long as no bill exceeds its bound; and committed is the sum of
coalesce(actual, reserved) over a run's attempts.
"""

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from autointerp.records.call import Thinking, Usage

VERSION = 2
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS answer(
  key BLOB PRIMARY KEY, status TEXT NOT NULL, body BLOB NOT NULL, cost INTEGER NOT NULL, served TEXT NOT NULL,
  request_id TEXT NOT NULL, prices TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS budget(
  run TEXT PRIMARY KEY, cap INTEGER, committed INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempt(
  id INTEGER PRIMARY KEY, run TEXT NOT NULL, key BLOB NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL,
  arm TEXT NOT NULL, state TEXT NOT NULL, kind TEXT NOT NULL DEFAULT '', reserved INTEGER NOT NULL, actual INTEGER,
  input_tokens INTEGER NOT NULL DEFAULT 0, cache_read_tokens INTEGER NOT NULL DEFAULT 0,
  cache_write_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS attempt_open ON attempt(run) WHERE state = 'reserved';
CREATE INDEX IF NOT EXISTS attempt_run ON attempt(run, key);
CREATE TABLE IF NOT EXISTS hit(
  run TEXT NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL, arm TEXT NOT NULL, calls INTEGER NOT NULL,
  PRIMARY KEY(run, stage, model, arm)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS thinking(
  model TEXT NOT NULL, address TEXT NOT NULL, level TEXT NOT NULL, PRIMARY KEY(model, address)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch(
  id INTEGER PRIMARY KEY, model TEXT NOT NULL, address TEXT NOT NULL, submission TEXT NOT NULL, state TEXT NOT NULL,
  remote TEXT NOT NULL DEFAULT '', began REAL NOT NULL);
CREATE TABLE IF NOT EXISTS batch_attempt(
  attempt_id INTEGER PRIMARY KEY, batch_id INTEGER NOT NULL, key BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS batch_attempts ON batch_attempt(batch_id);
PRAGMA user_version = {VERSION};
COMMIT;
"""
_BATCHED = "SELECT attempt_id FROM batch_attempt JOIN batch ON batch.id = batch_id WHERE batch.state"


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays for a call, and for what."""

    run: str
    """The run whose budget is charged."""
    stage: str
    """``explain`` or ``simulate``."""
    model: str
    """``provider/name``."""
    arm: str
    """Label of the arm."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer that was paid for, of whatever status."""

    status: str
    """`provider.Status`."""
    body: bytes
    """The provider's JSON, compressed by zlib."""
    cost: int
    """Nano-dollars when it was made."""
    served: str
    """Model that the provider says answered."""
    request_id: str
    """The provider's name for the call."""
    prices: str
    """Which price data the cost comes from."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A run's money, in nano-dollars."""

    cap: int | None
    """Most that may be committed; None for no limit."""
    committed: int
    """Spent and reserved."""
    reserved: int
    """Held by attempts that have not ended."""


def open_run(db: sqlite3.Connection, run: str, cap: int | None) -> None:
    """Make the run's budget, or give it a new cap; what was committed stays."""
    db.execute(
        "INSERT INTO budget VALUES(?, ?, 0) ON CONFLICT(run) DO UPDATE SET cap = excluded.cap",
        (run, cap),
    )


def recover(db: sqlite3.Connection) -> int:
    """Attempts that a dead process left open may have been billed: they stay charged. Returns how many.

    Those of a batch that was never sent are released; those of one that may be at the provider stay reserved.
    """
    for (attempt,) in db.execute(f"{_BATCHED} = 'planned'").fetchall():
        release(db, attempt, "interrupted")
    db.execute("UPDATE batch SET state = 'ingested' WHERE state = 'planned'")
    changed = db.execute(
        "UPDATE attempt SET state = 'unknown', kind = 'interrupted', actual = reserved"
        f" WHERE state = 'reserved' AND id NOT IN ({_BATCHED} != 'ingested')"
    )
    return changed.rowcount


def reserve(db: sqlite3.Connection, account: Account, key: bytes, bound: int) -> int | None:
    """Hold `bound` for one attempt: its id, or None where the cap does not allow it."""
    admitted = db.execute(
        "UPDATE budget SET committed = committed + :bound"
        " WHERE run = :run AND (cap IS NULL OR committed + :bound <= cap)",
        {"bound": bound, "run": account.run},
    )
    if not admitted.rowcount:
        return None
    return db.execute(
        "INSERT INTO attempt(run, key, stage, model, arm, state, reserved, at) VALUES(?, ?, ?, ?, ?, 'reserved', ?, ?)",
        (account.run, key, account.stage, account.model, account.arm, bound, time.time()),
    ).lastrowid


def settle(db: sqlite3.Connection, attempt: int, key: bytes, answer: Stored, usage: Usage) -> None:
    """Store the answer and charge what it cost; harmless where the attempt has ended already."""
    db.execute(
        "INSERT OR IGNORE INTO answer VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key,
            answer.status,
            answer.body,
            answer.cost,
            answer.served,
            answer.request_id,
            answer.prices,
            time.time(),
        ),
    )
    _end(db, attempt, "settled", answer.status, answer.cost)
    db.execute(
        "UPDATE attempt SET input_tokens = ?, cache_read_tokens = ?, cache_write_tokens = ?, output_tokens = ?"
        " WHERE id = ?",
        (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.output_tokens, attempt),
    )


def release(db: sqlite3.Connection, attempt: int, kind: str) -> None:
    """The provider certainly did not bill: give the money back."""
    _end(db, attempt, "released", kind, 0)


def mark_unknown(db: sqlite3.Connection, attempt: int, kind: str) -> None:
    """The provider may have billed: the attempt stays charged at its bound."""
    _end(db, attempt, "unknown", kind, None)


def reject(db: sqlite3.Connection, run: str, key: bytes) -> None:
    """The answer that the run paid for could not be read: `invalid` by kind, charged and stored as before."""
    db.execute(
        "UPDATE attempt SET kind = 'invalid' WHERE run = ? AND key = ? AND state = 'settled' AND kind = 'answered'",
        (run, key),
    )


def _end(db: sqlite3.Connection, attempt: int, state: str, kind: str, actual: int | None) -> None:
    still_open = db.execute("SELECT run, reserved FROM attempt WHERE id = ? AND state = 'reserved'", (attempt,))
    row = still_open.fetchone()
    if row is None:
        return
    run, reserved = row
    charged = reserved if actual is None else actual
    db.execute("UPDATE attempt SET state = ?, kind = ?, actual = ? WHERE id = ?", (state, kind, charged, attempt))
    db.execute("UPDATE budget SET committed = committed + ? WHERE run = ?", (charged - reserved, run))


def add_hits(db: sqlite3.Connection, hits: Mapping[Account, int]) -> None:
    """Count answers that cost nothing."""
    db.executemany(
        "INSERT INTO hit VALUES(?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET calls = calls + excluded.calls",
        [(a.run, a.stage, a.model, a.arm, count) for a, count in hits.items()],
    )


def learn_thinking(db: sqlite3.Connection, model: str, address: str, level: Thinking) -> None:
    """Keep how much `model` at `address` must be let think."""
    db.execute("INSERT OR REPLACE INTO thinking VALUES(?, ?, ?)", (model, address, level))


def find_answer(db: sqlite3.Connection, key: bytes) -> Stored | None:
    """The stored answer, whatever its status."""
    row = db.execute("SELECT status, body, cost, served, request_id, prices FROM answer WHERE key = ?", (key,))
    found = row.fetchone()
    return Stored(*found) if found else None


def read_budget(db: sqlite3.Connection, run: str) -> Budget | None:
    """The run's money, or None for a run that never called."""
    row = db.execute(
        "SELECT cap, committed, (SELECT coalesce(sum(reserved), 0) FROM attempt"
        " WHERE run = budget.run AND state = 'reserved') FROM budget WHERE run = ?",
        (run,),
    ).fetchone()
    return Budget(*row) if row else None
