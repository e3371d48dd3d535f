"""What ends a run, and what it has cost by then."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.llm.faults import Fault
from autointerp.llm.scripted import ScriptedProvider
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Failure
from autointerp.seams import BudgetReached, Interrupted, Refused
from tests.autointerp.llm_parts import (
    BOUND,
    COST,
    attempts,
    budget,
    open_client,
    parrot,
    request,
    run,
)


def test_the_budget_stops_the_run_before_it_is_exceeded(tmp_path: Path) -> None:
    """The call that could exceed the cap is not sent; stored answers still come; a higher cap goes on."""
    sent: list[str] = []

    async def reply(asked: Request) -> str:
        sent.append(asked.user)
        return asked.user

    async def main() -> None:
        async with open_client(tmp_path, reply, cap_nano=BOUND + COST - 1) as client:
            await client.answer(request())
            with pytest.raises(BudgetReached, match="budget is reached"):
                await client.answer(request("world"))
            assert isinstance(await client.answer(request()), Reply)
            with pytest.raises(BudgetReached):
                await client.answer(request("a"))
        async with open_client(tmp_path, reply, cap_nano=BOUND + COST) as client:
            await client.answer(request("world"))
            assert client.progress().spent == 2 * COST

    run(main)
    assert sent == ["hello", "world"]


def test_a_near_cap_lowers_concurrency_instead_of_stopping(tmp_path: Path) -> None:
    """Calls wait for money that calls under way will give back; all are answered although one bound fits at a time."""

    async def main() -> None:
        cap = BOUND + 9 * COST
        async with open_client(tmp_path, cap_nano=cap) as client:
            said = await asyncio.gather(*(client.answer(request(f"unit{i}")) for i in range(10)))
            assert all(isinstance(one, Reply) for one in said)
            assert client.progress().spent == 10 * COST <= cap

    run(main)


def test_a_tight_budget_holds_at_the_highest_concurrency(tmp_path: Path) -> None:
    """With 256 calls in flight no more are sent at a time than the cap has room for, and every one is answered."""
    now = most = 0

    async def reply(asked: Request) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return asked.user

    cap = 10 * BOUND + 300 * COST

    async def main() -> None:
        async with open_client(tmp_path, reply, cap_nano=cap, concurrency=256) as client:
            said = await asyncio.gather(*(client.answer(request(f"u{i:03}")) for i in range(300)))
            assert all(isinstance(one, Reply) for one in said)
            progress = client.progress()
            assert progress.limit == 256
            assert progress.spent == 300 * COST <= cap

    run(main)
    assert most <= cap // BOUND


@settings(max_examples=10)
@given(data=st.data(), cap=st.integers(0, 6 * BOUND), concurrency=st.integers(1, 6))
def test_no_schedule_of_calls_exceeds_the_cap(
    data: st.DataObject, cap: int, concurrency: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever each attempt comes to and however long it takes: billed <= committed <= cap, and nothing hangs."""
    fates = data.draw(st.lists(st.sampled_from(["ok", "limit", "reset", "billed reset", "bad"]), max_size=12))
    turns = data.draw(st.lists(st.integers(0, 4), max_size=12))
    billed = 0

    async def reply(asked: Request) -> str:
        nonlocal billed
        fate = fates.pop() if fates else "ok"
        for _ in range(turns.pop() if turns else 0):
            await asyncio.sleep(0)
        billed += COST if fate in ("ok", "billed reset") else 0
        match fate:
            case "ok":
                return asked.user
            case "limit":
                raise Fault("rate_limited", "", again=True)
            case "bad":
                raise Fault("bad_request", "")
            case _:
                raise Fault("connection", "", again=True, billed=True)

    folder = tmp_path_factory.mktemp("store")

    async def main() -> None:
        async with open_client(folder, reply, cap_nano=cap, concurrency=concurrency) as client:
            calls = (client.answer(request(f"unit{i}")) for i in range(6))
            said = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
            assert all(isinstance(one, Reply | Failure | BudgetReached) for one in said)

    run(main)
    money = budget(folder)
    assert billed <= money.committed <= cap
    assert money.reserved == 0


def test_a_bill_above_its_bound_stops_the_run(tmp_path: Path) -> None:
    """The answer is kept and charged in full; then nothing more is sent, because no budget can hold."""

    async def main() -> None:
        greedy = ScriptedProvider(parrot, tokens=(10**6, 10**6))
        async with open_client(tmp_path, provider=greedy, cap_nano=10**9) as client:
            assert isinstance(await client.answer(request()), Reply)
            with pytest.raises(BudgetReached, match="no budget can hold"):
                await client.answer(request("more"))
            assert client.progress().spent == 3 * 10**9

    run(main)


def test_a_terminal_fault_stops_every_other_call(tmp_path: Path) -> None:
    """A refused key is met once, not four thousand times; nothing is charged."""
    calls = 0

    async def reply(asked: Request) -> str:
        nonlocal calls
        calls += 1
        raise Fault("bad_request", "HTTP 401: invalid key", stop=True)

    async def main() -> None:
        async with open_client(tmp_path, reply, concurrency=1) as client:
            said = await asyncio.gather(*(client.answer(request(f"{i}")) for i in range(5)), return_exceptions=True)
            assert all(isinstance(one, Refused) for one in said)
            assert "401" in str(said[0])
            assert client.progress().spent == 0

    run(main)
    assert calls == 1


def test_a_cancelled_call_stays_charged(tmp_path: Path) -> None:
    """It may have been billed; the next session asks again."""

    async def main() -> None:
        sent = asyncio.Event()

        async def silent(asked: Request) -> str:
            sent.set()
            await asyncio.Event().wait()
            return ""

        async with open_client(tmp_path, silent) as client:
            task = asyncio.create_task(client.answer(request()))
            await sent.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with open_client(tmp_path) as client:
            assert client.progress().spent == BOUND
            assert isinstance(await client.answer(request()), Reply)

    run(main)
    assert attempts(tmp_path)[0] == ("unknown", "interrupted", BOUND)


def test_one_cancelled_waiter_does_not_cancel_the_others(tmp_path: Path) -> None:
    """The call goes on for whoever still wants it."""

    async def main() -> None:
        sent, leave = asyncio.Event(), asyncio.Event()

        async def slow(asked: Request) -> str:
            sent.set()
            await leave.wait()
            return asked.user

        async with open_client(tmp_path, slow) as client:
            first, second = (asyncio.create_task(client.answer(request())) for _ in range(2))
            await sent.wait()
            first.cancel()
            await asyncio.wait([first])
            leave.set()
            assert isinstance(await second, Reply)
            assert first.cancelled()

    run(main)


def test_closing_interrupts_who_still_waits(tmp_path: Path) -> None:
    """They get `Interrupted`, a `Stop`; what was under way stays charged, what was not sent costs nothing."""

    async def main() -> None:
        sent = asyncio.Event()

        async def silent(asked: Request) -> str:
            sent.set()
            await asyncio.Event().wait()
            return ""

        async with open_client(tmp_path, silent, concurrency=1) as client:
            tasks = [asyncio.create_task(client.answer(request(user))) for user in ("hello", "later")]
            await sent.wait()
        said = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, Interrupted) for one in said)
        with pytest.raises(Interrupted):
            await client.answer(request())
        assert client.progress().spent == BOUND

    run(main)
    assert attempts(tmp_path) == [("unknown", "interrupted", BOUND)]
