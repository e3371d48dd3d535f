"""The tables of the store of answers, as pure SQL over a connection; money in whole nano-dollars.

Invariant: billed <= committed <= cap at all times, as long as no bill exceeds its bound; and committed is the sum of
coalesce(actual, reserved) over a run's attempts.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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
_END = (
    "UPDATE attempt SET state = ?, kind = ?, actual = coalesce(?, reserved), input_tokens = ?, cache_read_tokens = ?,"
    " cache_write_tokens = ?, output_tokens = ? WHERE id = ? AND state = 'reserved' RETURNING run, actual - reserved"
)
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
class Reservation:
    """Money that is asked for, for one attempt."""

    account: Account
    """Who pays."""
    key: bytes
    """Of what is asked."""
    bound: int
    """The most that the attempt can cost, in nano-dollars."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended."""

    attempt: int
    """Its id."""
    state: Literal["settled", "released", "unknown"]
    """Answered; certainly not billed; perhaps billed."""
    kind: str
    """Status of the answer, or kind of the fault."""
    cost: int | None
    """Nano-dollars; None where the attempt stays charged at its bound."""
    usage: Usage = Usage(0, 0, 0, 0)  # noqa: RUF009 - frozen
    """Tokens as reported."""
    answer: tuple[bytes, Stored] | None = None
    """What was paid for, with its key."""

    @classmethod
    def settled(cls, attempt: int, key: bytes, answer: Stored, usage: Usage) -> "Ending":
        """Answered, and charged at what it cost."""
        return cls(attempt, "settled", answer.status, answer.cost, usage, (key, answer))

    @classmethod
    def released(cls, attempt: int, kind: str) -> "Ending":
        """The provider certainly did not bill: the money comes back."""
        return cls(attempt, "released", kind, 0)

    @classmethod
    def unknown(cls, attempt: int, kind: str) -> "Ending":
        """The provider may have billed: the attempt stays charged at its bound."""
        return cls(attempt, "unknown", kind, None)


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
        end(db, [Ending.released(attempt, "interrupted")])
    db.execute("UPDATE batch SET state = 'ingested' WHERE state = 'planned'")
    changed = db.execute(
        "UPDATE attempt SET state = 'unknown', kind = 'interrupted', actual = reserved"
        f" WHERE state = 'reserved' AND id NOT IN ({_BATCHED} != 'ingested')"
    )
    return changed.rowcount


def reserve(db: sqlite3.Connection, asked: Sequence[Reservation]) -> list[int | None]:
    """Hold money for attempts, first come, first served: their ids, None where the cap does not allow one."""
    (last,) = db.execute("SELECT coalesce(max(id), 0) FROM attempt").fetchone()
    budgets = {run: _open_budget(db, run) for run in {each.account.run for each in asked}}
    ids: list[int | None] = []
    held: list[tuple[object, ...]] = []
    now = time.time()
    for each in asked:
        account = each.account
        budget = budgets[account.run]
        if budget is None or not budget.take(each.bound):
            ids.append(None)
            continue
        ids.append(attempt := last + len(held) + 1)
        held.append((attempt, account.run, each.key, account.stage, account.model, account.arm, each.bound, now))
    db.executemany(
        "INSERT INTO attempt(id, run, key, stage, model, arm, state, reserved, at)"
        " VALUES(?, ?, ?, ?, ?, ?, 'reserved', ?, ?)",
        held,
    )
    _correct(db, {run: budget.taken for run, budget in budgets.items() if budget})
    return ids


def end(db: sqlite3.Connection, endings: Sequence[Ending]) -> list[None]:
    """Store answers, end their attempts and correct the budgets; harmless where an attempt has ended already."""
    now, corrections = time.time(), Counter[str]()
    answers = [each.answer for each in endings if each.answer]
    db.executemany(
        "INSERT OR IGNORE INTO answer VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        [(key, a.status, a.body, a.cost, a.served, a.request_id, a.prices, now) for key, a in answers],
    )
    for each in endings:
        used = each.usage
        tokens = used.input_tokens, used.cache_read_tokens, used.cache_write_tokens, used.output_tokens
        for run, change in db.execute(_END, (each.state, each.kind, each.cost, *tokens, each.attempt)).fetchall():
            corrections[run] += change
    _correct(db, corrections)
    return [None] * len(endings)


@dataclass(slots=True)
class _OpenBudget:
    """A budget while money is taken from it."""

    left: int | None
    taken: int = 0

    def take(self, bound: int) -> bool:
        """Whether there is as much, which then is taken."""
        if self.left is not None and self.taken + bound > self.left:
            return False
        self.taken += bound
        return True


def _open_budget(db: sqlite3.Connection, run: str) -> _OpenBudget | None:
    row = db.execute("SELECT cap - committed FROM budget WHERE run = ?", (run,)).fetchone()
    return _OpenBudget(*row) if row else None


def _correct(db: sqlite3.Connection, changes: Mapping[str, int]) -> None:
    """Add what was taken or came back to what the runs have committed."""
    db.executemany(
        "UPDATE budget SET committed = committed + ? WHERE run = ?", [(by, run) for run, by in changes.items()]
    )


def reject(db: sqlite3.Connection, run: str, key: bytes) -> None:
    """The answer that the run paid for could not be read: `invalid` by kind, charged and stored as before."""
    db.execute(
        "UPDATE attempt SET kind = 'invalid' WHERE run = ? AND key = ? AND state = 'settled' AND kind = 'answered'",
        (run, key),
    )


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
