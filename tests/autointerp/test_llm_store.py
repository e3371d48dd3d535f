"""The store of answers: exact money, durable answers, one writer."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.llm import tables
from autointerp.llm.ledger import read_ledger
from autointerp.llm.store import Store, StoreReader
from autointerp.llm.tables import Account, Ending, Reservation, Stored
from autointerp.llm.writer import Writer
from autointerp.records.call import Usage
from autointerp.seams import Stop
from sae.errors import UserError

ACCOUNT = Account("run", "explain", "scripted/parrot", "features")
USAGE = Usage(10, 0, 0, 5)


def stored(cost: int, status: str = "answered") -> Stored:
    """An answer that cost `cost`."""
    return Stored(status, b"body", cost, "parrot", "id", "prices")


def memory() -> sqlite3.Connection:
    """Empty tables."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(tables.SCHEMA)
    return db


@given(
    cap=st.integers(0, 3000),
    steps=st.lists(st.tuples(st.sampled_from(["reserve", "settle", "release", "unknown", "die"]), st.integers(0, 999))),
)
def test_no_interleaving_exceeds_the_cap(cap: int, steps: list[tuple[str, int]]) -> None:
    """Billed <= committed <= cap, and committed is the sum over attempts, after every step of any interleaving."""
    db = memory()
    tables.open_run(db, "run", cap)
    bounds: dict[int, int] = {}
    billed = 0
    for n, (step, number) in enumerate(steps):
        attempt = list(bounds)[number % len(bounds)] if bounds else 0
        match step:
            case "reserve":
                if made := tables.reserve(db, [Reservation(ACCOUNT, b"%d" % n, number)])[0]:
                    bounds[made] = number
            case "settle":
                actual = bounds.get(attempt, 0) * (number % 11) // 10
                is_open = db.execute("SELECT state FROM attempt WHERE id = ?", (attempt,)).fetchone() == ("reserved",)
                billed += actual if is_open else 0
                tables.end(db, [Ending.settled(attempt, b"%d" % n, stored(actual), USAGE)])
            case "release":
                tables.end(db, [Ending.released(attempt, "rate_limited")])
            case "unknown":
                tables.end(db, [Ending.unknown(attempt, "timeout")])
            case _:
                tables.recover(db)
        budget = tables.read_budget(db, "run")
        assert budget is not None
        total = db.execute("SELECT coalesce(sum(coalesce(actual, reserved)), 0) FROM attempt").fetchone()[0]
        assert billed <= budget.committed == total <= cap
    db.close()


@given(cap=st.none() | st.integers(0, 3000), bounds=st.lists(st.integers(0, 999), max_size=12), data=st.data())
def test_together_is_as_one_after_the_other(cap: int | None, bounds: list[int], data: st.DataObject) -> None:
    """Attempts that one transaction reserves, and ends, leave what they would have left each in its own."""
    other = Account("without a budget", "explain", "scripted/parrot", "features")
    asked = [
        Reservation(data.draw(st.sampled_from([ACCOUNT, ACCOUNT, other])), b"%d" % n, bound)
        for n, bound in enumerate(bounds)
    ]
    ends = [Ending.settled(1, b"k", stored(7), USAGE), Ending.released(2, "late"), Ending.unknown(3, "timeout")]
    ends = data.draw(st.lists(st.sampled_from([*ends, Ending.released(1, "late"), Ending.unknown(99, "never")])))
    left: list[object] = []
    for size in (1, len(bounds) + len(ends) + 1):
        db = memory()
        tables.open_run(db, "run", cap)
        ids = [each for i in range(0, len(asked), size) for each in tables.reserve(db, asked[i : i + size])]
        for i in range(0, len(ends), size):
            tables.end(db, ends[i : i + size])
        attempts = db.execute("SELECT id, run, key, state, kind, reserved, actual, output_tokens FROM attempt")
        answers = db.execute("SELECT key, status, cost FROM answer")
        left.append((ids, attempts.fetchall(), answers.fetchall(), tables.read_budget(db, "run")))
        db.close()
    assert left[0] == left[1]


def test_a_second_settlement_is_harmless() -> None:
    """An attempt that was settled twice is charged once, and the first answer stays."""
    db = memory()
    tables.open_run(db, "run", 1000)
    attempt = tables.reserve(db, [Reservation(ACCOUNT, b"k", 600)])[0]
    assert attempt is not None
    tables.end(db, [Ending.settled(attempt, b"k", stored(100), USAGE)])
    tables.end(db, [Ending.settled(attempt, b"k", stored(300), USAGE)])
    tables.end(db, [Ending.released(attempt, "late")])
    budget, answer = tables.read_budget(db, "run"), tables.find_answer(db, b"k")
    assert budget is not None and budget.committed == 100
    assert answer is not None and answer.cost == 100
    db.close()


def test_the_ledger_tells_what_each_arm_cost() -> None:
    """Rows have calls, attempts, hits, tokens, money and the kind of each item's last failure."""
    db = memory()
    tables.open_run(db, "run", None)
    first = tables.reserve(db, [Reservation(ACCOUNT, b"retried", 50)])[0] or 0
    tables.end(db, [Ending.released(first, "rate_limited")])
    second = tables.reserve(db, [Reservation(ACCOUNT, b"retried", 50)])[0] or 0
    tables.end(db, [Ending.settled(second, b"retried", stored(20), USAGE)])
    third = tables.reserve(db, [Reservation(ACCOUNT, b"lost", 50)])[0] or 0
    tables.end(db, [Ending.unknown(third, "timeout")])
    tables.add_hits(db, {ACCOUNT: 2})
    tables.add_hits(db, {ACCOUNT: 1})
    [row] = read_ledger(db, "run")
    assert (row.stage, row.model, row.arm) == ("explain", "scripted/parrot", "features")
    assert (row.calls, row.attempts, row.cached, row.cost) == (1, 3, 3, 70)
    assert row.usage == USAGE
    assert row.failures == {"timeout": 1}
    assert read_ledger(db, "another") == []
    db.close()


def test_a_dead_process_leaves_its_attempts_charged(tmp_path: Path) -> None:
    """What was reserved when the process died becomes unknown at its bound when the store is opened again."""

    async def die() -> None:
        store = Store.open(tmp_path / "a.sqlite")
        await store.open_run("run", 1000)
        await store.reserve(ACCOUNT, b"k", 400)
        store.close()

    asyncio.run(die())
    store = Store.open(tmp_path / "a.sqlite")
    budget = store.budget("run")
    assert budget is not None
    assert (budget.committed, budget.reserved) == (400, 0)
    [row] = store.ledger("run")
    assert row.failures == {"interrupted": 1}
    store.close()


def test_a_settled_answer_is_on_the_disk_at_once(tmp_path: Path) -> None:
    """A reader beside the writer sees the answer as soon as the writer says so."""

    async def main() -> None:
        store = Store.open(tmp_path / "a.sqlite")
        await store.open_run("run", 1000)
        attempt = await store.reserve(ACCOUNT, b"k", 400)
        assert attempt is not None
        await store.settle(attempt, b"k", stored(100), USAGE)
        reader = StoreReader.open(tmp_path / "a.sqlite")
        assert reader.answer(b"k") == stored(100)
        assert reader.answer(b"other") is None
        reader.close()
        store.close()

    asyncio.run(main())


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """Two runs on one store could pay twice; the second is told so, and may start when the first has ended."""
    path = tmp_path / "a.sqlite"
    first = Store.open(path)
    with pytest.raises(UserError, match="Another run is using"):
        Store.open(path)
    first.close()
    Store.open(path).close()


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like some file" * 20, None])
def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path, content: bytes | None) -> None:
    """Neither text nor somebody else's database is written to."""
    path = tmp_path / "a.sqlite"
    if content is None:
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE theirs(x)")
        other.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(UserError, match="no store of answers"):
        Store.open(path)
    if content is not None:
        assert path.read_bytes() == before
    path.unlink()
    Store.open(path).close()


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """Its tables may mean something else."""
    path = tmp_path / "a.sqlite"
    Store.open(path).close()
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {tables.VERSION + 1}")
    newer.close()
    with pytest.raises(UserError, match="newer version"):
        StoreReader.open(path)


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    """Reading what does not exist makes nothing."""
    with pytest.raises(UserError, match="no store of answers at"):
        StoreReader.open(tmp_path / "a.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_operation_leaves_no_half_and_disturbs_no_other(tmp_path: Path) -> None:
    """Operations that share a commit succeed and fail on their own."""

    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO t VALUES(1)")
        raise ValueError("half way")

    def whole(db: sqlite3.Connection) -> int:
        return db.execute("INSERT INTO t VALUES(2)").rowcount

    async def main() -> tuple[Any, Any]:
        db = sqlite3.connect(tmp_path / "t.sqlite", isolation_level=None, check_same_thread=False)
        db.execute("CREATE TABLE t(x)")
        writer = Writer(db)
        results = await asyncio.gather(writer.submit(half), writer.submit(whole), return_exceptions=True)
        writer.close()
        return results

    failed, done = asyncio.run(main())
    assert isinstance(failed, ValueError)
    assert done == 1
    check = sqlite3.connect(tmp_path / "t.sqlite")
    assert check.execute("SELECT x FROM t").fetchall() == [(2,)]
    check.close()


def test_what_cannot_be_reserved_disturbs_no_other(tmp_path: Path) -> None:
    """A bound that no column holds fails alone; those that were to be written with it are."""

    async def main() -> tuple[Any, ...]:
        store = Store.open(tmp_path / "a.sqlite")
        await store.open_run("run", None)
        asked = [store.reserve(ACCOUNT, b"%d" % n, bound) for n, bound in enumerate((5, 2**70, 7))]
        results = await asyncio.gather(*asked, return_exceptions=True)
        budget = store.budget("run")
        store.close()
        assert budget is not None
        return (*results, budget.committed)

    first, failed, last, committed = asyncio.run(main())
    assert isinstance(failed, OverflowError)
    assert (first, last, committed) == (1, 2, 12)


def test_a_file_that_cannot_be_written_stops_the_run() -> None:
    """A full or read-only disk is a `Stop`, not a crash."""

    async def main() -> None:
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA query_only = ON")
        writer = Writer(db)
        try:
            with pytest.raises(Stop, match="cannot be written"):
                await writer.submit(lambda db: db.execute("CREATE TABLE t(x)").rowcount)
        finally:
            writer.close()

    asyncio.run(main())


def test_a_cancelled_caller_does_not_cancel_the_write(tmp_path: Path) -> None:
    """What was queued is written, whoever still waits for it."""

    async def main() -> None:
        store = Store.open(tmp_path / "a.sqlite")
        store.open_run("run", 7).cancel()
        store.close()

    asyncio.run(main())
    reader = StoreReader.open(tmp_path / "a.sqlite")
    budget = reader.budget("run")
    reader.close()
    assert budget is not None and budget.cap == 7
