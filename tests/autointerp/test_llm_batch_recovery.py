"""Batches across sessions: whatever a dead client left behind is found, fetched and never paid twice."""

import asyncio
from pathlib import Path

import pytest

from autointerp.llm import courier, journal
from autointerp.llm.faults import Fault
from autointerp.llm.journal import Ask
from autointerp.llm.provider import answer_key
from autointerp.llm.scripted import ScriptedProvider
from autointerp.llm.store import Store
from autointerp.llm.tables import Account
from autointerp.seams import Refused
from sae.errors import UserError
from tests.autointerp.batch_parts import (
    BOUND,
    FakeBatches,
    ask,
    journalled,
    open_batching,
    run,
    still_open,
    texts,
)
from tests.autointerp.llm_parts import COST, MODEL, attempts, budget, open_client, parrot, request

DOUBTFUL = Fault("timeout", "silence", again=True, billed=True)
"""What a client sees of a submission that may or may not have arrived."""


async def drop(folder: Path, api: FakeBatches, units: range) -> None:
    """A session that ends as soon as the provider has taken a batch, whatever was written of that."""
    made = len(api.made)
    async with open_batching(folder, api) as client:
        waiting = asyncio.create_task(ask(client, units))
        while len(api.made) == made:
            await asyncio.sleep(0)
    await waiting


@pytest.mark.parametrize("names", [True, False])
def test_an_orphan_is_found_again_and_never_sent_twice(tmp_path: Path, names: bool) -> None:
    """Dropped between submission and journal: found by our name, or by its results where the provider keeps none.

    A stranger's batch of the same size is not taken for it.
    """
    api = FakeBatches(names=names, silent=True)

    async def main() -> None:
        await drop(tmp_path, api, range(3))
        assert [state for state, _, _ in journalled(tmp_path)] == ["submitting"]
        assert budget(tmp_path).reserved == 3 * BOUND
        api.made["stranger"] = "theirs" if names else "", {name: {"user": "not ours"} for name in "abc"}, None
        api.silent = False
        async with open_batching(tmp_path, api) as client:
            assert texts(await ask(client, range(3))) == ["unit0", "unit1", "unit2"]

    run(main)
    assert list(api.made) == ["batch0", "stranger"]
    assert journalled(tmp_path) == [("ingested", "batch0", 3)]
    assert budget(tmp_path).committed == 3 * COST


@pytest.mark.parametrize("names", [True, False])
def test_two_stores_in_one_workspace_keep_their_batches_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: bool
) -> None:
    """The same questions, asked by both at once: what one sent is never taken for what the other is in doubt about."""
    api = FakeBatches(names=names)
    monkeypatch.setattr(courier, "LOST_AFTER", -1.0)

    async def main() -> None:
        async with open_batching(tmp_path / "one", api) as client:
            assert len(texts(await ask(client, range(3)))) == 3
        api.before.append(DOUBTFUL)
        async with open_batching(tmp_path / "two", api) as client:
            assert len(texts(await ask(client, range(3)))) == 3

    run(main)
    assert api.sizes() == [3, 3]
    assert [remote for _, remote, _ in journalled(tmp_path / "one")] == ["batch0"]
    assert [remote for _, remote, _ in journalled(tmp_path / "two")] == ["", "batch1"]
    assert all(len(name) <= 64 for _, bodies, _ in api.made.values() for name in bodies)


def test_a_doubtful_submission_is_looked_for_before_anything_else(tmp_path: Path) -> None:
    """A time-out after the batch has arrived costs no second batch, in the same session."""
    api = FakeBatches(after=[DOUBTFUL])

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            assert len(texts(await ask(client, range(3)))) == 3

    run(main)
    assert api.sizes() == [3]
    assert budget(tmp_path).committed == 3 * COST


def test_a_submission_that_never_arrived_is_given_up_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only after a time in which it would have had to arrive; its money is given back then."""
    api, looks = FakeBatches(before=[DOUBTFUL]), 0
    recent = api.recent

    async def look(since: float) -> object:
        nonlocal looks
        looks += 1
        assert budget(tmp_path).reserved == 3 * BOUND
        if looks == 5:
            monkeypatch.setattr(courier, "LOST_AFTER", -1.0)
        return await recent(since)

    api.recent = look  # type: ignore[method-assign]

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            assert len(texts(await ask(client, range(3)))) == 3
            assert client.progress().retries == {"connection": 3}

    run(main)
    assert looks == 5
    assert api.sizes() == [3]
    assert [state for state, _, _ in attempts(tmp_path)] == ["released"] * 3 + ["settled"] * 3
    assert budget(tmp_path).committed == 3 * COST


def test_new_questions_do_not_wait_for_old_batches(tmp_path: Path) -> None:
    """A later session polls what is journalled and sends only what it does not hold."""
    api = FakeBatches(looks=50)

    async def main() -> None:
        await drop(tmp_path, api, range(3))
        async with open_batching(tmp_path, api) as client:
            assert len(texts(await ask(client, range(5)))) == 5

    run(main)
    assert api.asked() == [f"unit{i}" for i in range(5)]
    assert api.sizes() == [3, 2]


def test_a_batch_is_fetched_even_where_nobody_asks(tmp_path: Path) -> None:
    """Its answers are stored for whoever asks later."""
    api = FakeBatches()

    async def main() -> None:
        await drop(tmp_path, api, range(3))
        async with open_batching(tmp_path, api):
            while still_open(tmp_path):
                await asyncio.sleep(0)
        async with open_client(tmp_path) as client:
            assert len(texts(await ask(client, range(3)))) == 3
            assert client.progress().cached == 3

    run(main)
    assert budget(tmp_path).committed == 3 * COST


def test_a_half_ingested_batch_goes_on_where_it_stood(tmp_path: Path) -> None:
    """What was settled before the crash is neither settled nor charged again."""
    provider, api = ScriptedProvider(parrot), FakeBatches()
    keys = [answer_key(provider, request(f"unit{i}")) for i in range(3)]

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            await ask(client, [0])
        store = Store.open(tmp_path / "answers.sqlite")
        account = Account("run", "explain", MODEL, "")
        asks = [Ask(account, key, key, BOUND) for key in keys]
        batch = await store.write(lambda db: journal.plan(db, MODEL, "scripted", "name", asks))
        assert batch is not None
        stored = store.answer(keys[0])
        assert stored is not None
        await store.release(batch.held[keys[0]].attempt, "expired")
        batch.state, batch.remote = "ended", "half"
        await store.write(lambda db: journal.advance(db, batch, "ended"))
        store.close()
        api.made["half"] = "name", {batch.name(key): {"user": f"unit{i}"} for i, key in enumerate(keys)}, None
        async with open_batching(tmp_path, api) as client:
            assert texts(await ask(client, range(3))) == ["unit0", "unit1", "unit2"]

    run(main)
    assert list(api.made) == ["batch0", "half"]
    assert [state for state, _, _ in attempts(tmp_path)] == ["settled", "released", "settled", "settled"]
    assert budget(tmp_path).committed == 3 * COST


def test_a_batch_that_was_deleted_stays_charged_and_is_asked_again(tmp_path: Path) -> None:
    """Its requests may have been billed."""
    api = FakeBatches(gone={"batch0"})

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            assert len(texts(await ask(client, range(2)))) == 2

    run(main)
    assert api.sizes() == [2, 2]
    assert budget(tmp_path).committed == 2 * BOUND + 2 * COST


def test_a_batch_survives_whatever_befalls_its_polls(tmp_path: Path) -> None:
    """Faults that pass are waited out; a refused key stops the run, and the next session fetches the same batch."""
    passing = [Fault("server_error", "", again=True, billed=True), Fault("rate_limited", "", again=False)]
    api = FakeBatches(broken=[*passing, Fault("bad_request", "HTTP 401", stop=True)])

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            assert [type(each) for each in await ask(client, range(2))] == [Refused, Refused]
        assert budget(tmp_path).reserved == 2 * BOUND
        async with open_batching(tmp_path, api) as client:
            assert len(texts(await ask(client, range(2)))) == 2

    run(main)
    assert api.sizes() == [2]


def test_a_run_with_batches_under_way_does_not_go_on_without_them(tmp_path: Path) -> None:
    """Synchronous mode would pay their requests twice; another run may have it."""
    api = FakeBatches()

    async def main() -> None:
        await drop(tmp_path, api, range(2))
        with pytest.raises(UserError, match="Go on with --batch"):
            async with open_client(tmp_path):
                pass
        async with open_client(tmp_path, run="another") as client:
            assert len(texts(await ask(client, [5]))) == 1
        assert len(still_open(tmp_path)) == 1

    run(main)


def test_another_run_waits_for_the_same_batch(tmp_path: Path) -> None:
    """Neighbours that share the store share its batches: the one that sent it pays."""
    api = FakeBatches()

    async def main() -> None:
        await drop(tmp_path, api, range(2))
        async with open_batching(tmp_path, api, run="another") as client:
            assert len(texts(await ask(client, range(2)))) == 2
            assert client.progress().spent == 0

    run(main)
    assert api.sizes() == [2]
    assert budget(tmp_path).committed == 2 * COST


def test_what_was_planned_but_never_sent_costs_nothing(tmp_path: Path) -> None:
    """A session that dies between reservation and submission."""

    async def main() -> None:
        async with open_client(tmp_path) as client:
            await ask(client, [7])
        store = Store.open(tmp_path / "answers.sqlite")
        asks = [Ask(Account("run", "explain", MODEL, ""), b"item", b"key", BOUND)]
        await store.write(lambda db: journal.plan(db, MODEL, "scripted", "name", asks))
        store.close()
        assert budget(tmp_path).committed == COST + BOUND
        api = FakeBatches()
        async with open_batching(tmp_path, api) as client:
            assert texts(await ask(client, [7])) == ["unit7"]
        assert api.made == {}

    run(main)
    assert budget(tmp_path).committed == COST
