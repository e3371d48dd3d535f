"""The journal of batches, as SQL."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.llm import journal, tables
from autointerp.llm.journal import Ask, State
from autointerp.llm.store import Store
from autointerp.llm.tables import Account, Ending, Reservation
from tests.autointerp.llm_parts import MODEL

ACCOUNT = Account("run", "explain", MODEL, "features")


def asks(count: int, bound: int = 10) -> list[Ask]:
    """Requests that differ."""
    return [Ask(ACCOUNT, bytes([i]), bytes([i]), bound) for i in range(count)]


@pytest.fixture
def db() -> sqlite3.Connection:
    """An empty store in memory with a run that may spend 100."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(tables.SCHEMA)
    tables.open_run(connection, "run", 100)
    return connection


def committed(db: sqlite3.Connection) -> int:
    """What the run has committed, which is always the sum over its attempts."""
    budget = tables.read_budget(db, "run")
    [total] = db.execute("SELECT coalesce(sum(coalesce(actual, reserved)), 0) FROM attempt").fetchone()
    assert budget is not None and budget.committed == total
    return total


def test_as_much_is_planned_as_the_budget_admits(db: sqlite3.Connection) -> None:
    """From the front; nothing is journalled where not one request fits."""
    batch = journal.plan(db, MODEL, "here", "name", asks(3, bound=40))
    assert batch is not None and list(batch.held) == [b"\0", b"\1"]
    assert committed(db) == 80
    assert journal.plan(db, MODEL, "here", "name", asks(1, bound=40)) is None
    assert journal.find_open(db, {MODEL: "here"}) == [batch]
    assert journal.count_open(db, "run") == 1
    assert journal.count_open(db, "another") == 0


def test_only_batches_of_the_same_model_and_address_are_found(db: sqlite3.Connection) -> None:
    """A batch at another server stays where it is."""
    assert journal.plan(db, MODEL, "here", "name", asks(1)) is not None
    assert journal.find_open(db, {MODEL: "there"}) == []
    assert journal.find_open(db, {"scripted/other": "here"}) == []


@given(
    states=st.lists(st.sampled_from(["planned", "submitting", "submitted", "ended", "ingested"]), max_size=5),
    settled=st.integers(0, 3),
)
def test_recovery_keeps_live_batches_reserved(states: list[State], settled: int) -> None:
    """What was never sent is released; what may be at the provider stays reserved; what belongs to no batch is
    charged."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.executescript(tables.SCHEMA)
        tables.open_run(db, "run", None)
        loose = tables.reserve(db, [Reservation(ACCOUNT, b"loose", 7)])[0]
        live = 0
        for state in states:
            batch = journal.plan(db, MODEL, "here", "name", asks(3))
            assert batch is not None
            for held in list(batch.held.values())[:settled]:
                tables.end(db, [Ending.released(held.attempt, "expired")])
            if state == "ingested":
                journal.close(db, batch, "expired", billed=False)
            batch.state = state
            journal.advance(db, batch, state)
            live += (3 - settled) * 10 if state in ("submitting", "submitted", "ended") else 0
        assert tables.recover(db) == 1
        assert committed(db) == live + 7
        assert db.execute("SELECT state FROM attempt WHERE id = ?", (loose,)).fetchone() == ("unknown",)
        found = journal.find_open(db, {MODEL: "here"})
        assert [batch.state for batch in found] == [s for s in states if s not in ("planned", "ingested")]
        assert sum(held.bound for batch in found for held in batch.held.values()) == live
        assert tables.recover(db) == 0


def test_closing_charges_or_releases_what_is_open(db: sqlite3.Connection) -> None:
    """Attempts that have ended already keep what they cost."""
    for billed, total in ((False, 0), (True, 30)):
        batch = journal.plan(db, MODEL, "here", "name", asks(3))
        assert batch is not None
        journal.close(db, batch, "expired", billed=billed)
        assert committed(db) == total
    assert journal.find_open(db, {MODEL: "here"}) == []


def test_a_store_from_before_batches_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its answers stay; the journal is added."""
    path = tmp_path / "answers.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(tables.SCHEMA)
        old.executescript("DROP TABLE batch; DROP TABLE batch_attempt; PRAGMA user_version = 1;")
        old.execute("INSERT INTO budget VALUES('run', NULL, 5)")
        old.commit()

    async def main() -> None:
        store = Store.open(path)
        found = store.budget("run")
        assert found is not None and found.committed == 5
        assert await store.write(lambda db: journal.plan(db, MODEL, "here", "name", asks(1))) is not None
        store.close()

    asyncio.run(main())
    with closing(sqlite3.connect(path)) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (tables.VERSION,)
