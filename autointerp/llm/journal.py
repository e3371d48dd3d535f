"""The journal of batches in the store of answers, as pure SQL over a connection.

A batch goes from planned (its money is reserved) over submitting (it may be at the provider from now on), submitted
(the provider named it) and ended (its results can be fetched) to ingested (every attempt has ended). Each result is
settled by itself, so a batch that was ingested half goes on where it stood.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from autointerp.llm import tables
from autointerp.llm.tables import Account, Ending, Reservation

State: TypeAlias = Literal["planned", "submitting", "submitted", "ended", "ingested"]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that is to go into a batch."""

    account: Account
    """Who pays."""
    item: bytes
    """Of what is asked, as `tables.reserve` takes it."""
    key: bytes
    """Of the answer."""
    bound: int
    """Nano-dollars at batch price."""


@dataclass(frozen=True, slots=True)
class Held:
    """The attempt that a request of a batch is."""

    attempt: int
    """Its row."""
    bound: int
    """Nano-dollars reserved."""


@dataclass(slots=True)
class Batch:
    """A batch on its way; `state` and `remote` follow the journal."""

    id: int
    """Its row."""
    model: str
    """``provider/name``: a batch has one."""
    address: str
    """Of the provider that has it."""
    submission: str
    """Our name for it, unlike that of any other batch; told to providers that keep one."""
    state: State
    """How far it is."""
    remote: str = ""
    """The provider's name for it; empty before it is known."""
    began: float = 0.0
    """Unix time, seconds, at which its submission began."""
    held: dict[bytes, Held] = field(default_factory=dict[bytes, Held])
    """Attempts that have not ended, by key of the answer."""
    done: int = 0
    """Requests that the provider has dealt with, as it last said; not journalled."""

    def name(self, key: bytes) -> str:
        """The name of the request for `key` within the batch: at most 64 letters, digits and hyphens.

        It begins with `submission`, so that another store's batch of the same requests is never taken for this one.
        """
        return f"{self.submission[:16]}-{key.hex()[:47]}"


def plan(db: sqlite3.Connection, model: str, address: str, submission: str, asks: Sequence[Ask]) -> Batch | None:
    """Reserve for the first of `asks`, as many as the budget allows, and journal them; None where it allows none."""
    held: dict[bytes, Held] = {}
    for ask in asks:
        [attempt] = tables.reserve(db, [Reservation(ask.account, ask.item, ask.bound)])
        if attempt is None:
            break
        held[ask.key] = Held(attempt, ask.bound)
    if not held:
        return None
    row = db.execute(
        "INSERT INTO batch(model, address, submission, state, began) VALUES(?, ?, ?, 'planned', 0)",
        (model, address, submission),
    ).lastrowid
    assert row is not None
    db.executemany(
        "INSERT INTO batch_attempt VALUES(?, ?, ?)", [(each.attempt, row, key) for key, each in held.items()]
    )
    return Batch(row, model, address, submission, "planned", held=held)


def advance(db: sqlite3.Connection, batch: Batch, state: State) -> None:
    """Journal that `batch` is in `state` now, and what is known of it."""
    db.execute(
        "UPDATE batch SET state = ?, remote = ?, began = ? WHERE id = ?", (state, batch.remote, batch.began, batch.id)
    )


def close(db: sqlite3.Connection, batch: Batch, kind: str, *, billed: bool) -> None:
    """End a batch and every attempt of it that is still open: charged at its bound where `billed`, else released."""
    ended = Ending.unknown if billed else Ending.released
    tables.end(db, [ended(each.attempt, kind) for each in batch.held.values()])
    advance(db, batch, "ingested")


def find_open(db: sqlite3.Connection, addresses: Mapping[str, str]) -> list[Batch]:
    """Batches of every run that are not ingested, for the models of `addresses` at these addresses."""
    rows = db.execute(
        "SELECT id, model, address, submission, state, remote, began FROM batch WHERE state != 'ingested' ORDER BY id"
    ).fetchall()
    found = [Batch(*row) for row in rows if addresses.get(row[1]) == row[2]]
    for batch in found:
        attempts = db.execute(
            "SELECT batch_attempt.key, id, reserved FROM batch_attempt JOIN attempt ON id = attempt_id"
            " WHERE batch_id = ? AND state = 'reserved' ORDER BY id",
            (batch.id,),
        )
        batch.held = {key: Held(attempt, reserved) for key, attempt, reserved in attempts}
    return found


def known(db: sqlite3.Connection) -> set[str]:
    """The providers' names of all batches ever journalled."""
    return {row[0] for row in db.execute("SELECT remote FROM batch WHERE remote != ''")}


def count_open(db: sqlite3.Connection, run: str) -> int:
    """Batches that hold money of `run` at a provider."""
    row = db.execute(
        "SELECT count(DISTINCT batch.id) FROM batch JOIN batch_attempt ON batch_id = batch.id"
        " JOIN attempt ON attempt.id = attempt_id"
        " WHERE batch.state != 'ingested' AND run = ? AND attempt.state = 'reserved'",
        (run,),
    ).fetchone()
    return row[0]
