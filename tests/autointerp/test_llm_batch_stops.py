"""Batch mode where it stops, is refused or interrupted; and what holds whatever happens."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.llm import courier
from autointerp.llm.batch_provider import never_run
from autointerp.llm.faults import Fault
from autointerp.llm.provider import Body, Sent
from autointerp.records.call import Reply
from autointerp.records.explanation import Failure
from autointerp.seams import BudgetReached, Interrupted, Refused
from tests.autointerp.batch_parts import BOUND, FakeBatches, ask, echo, empty, open_batching, run, still_open, texts
from tests.autointerp.llm_parts import COST, budget


@pytest.mark.parametrize("where", ["submission", "whole", "item"])
def test_a_terminal_refusal_stops_the_run_and_costs_nothing(tmp_path: Path, where: str) -> None:
    """No credit, at submission, as the fate of a whole batch or of one item: `Refused`, and a later session goes on."""
    fault = Fault("bad_request", "HTTP 402: no credit", stop=True)
    api = FakeBatches((lambda _: fault) if where == "item" else echo)
    if where == "submission":
        api.before = [fault]
    if where == "whole":
        api.whole = [fault]

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            said = await ask(client, range(3)) + await ask(client, [9])
            assert any(isinstance(each, Refused) and "402" in str(each) for each in said)
            assert isinstance(said[-1], Refused)
        assert budget(tmp_path).committed == 0
        api.said = echo
        async with open_batching(tmp_path, api) as client:
            assert len(texts(await ask(client, range(3)))) == 3

    run(main)


def test_a_provider_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    """A submission that was refused for the moment is repeated; nothing is doubtful, nothing charged."""
    api = FakeBatches(before=[Fault("rate_limited", "", again=True), Fault("server_error", "", again=True)])

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            assert len(texts(await ask(client, range(2)))) == 2
            assert client.progress().retries == {"rate_limited": 1, "server_error": 1}

    run(main)
    assert api.sizes() == [2]


def test_a_quota_makes_batches_smaller(tmp_path: Path) -> None:
    """A batch refused for the quota of enqueued tokens is halved until it is taken; no request fails for it."""
    api = FakeBatches(whole=[Fault("rate_limited", "token_limit_exceeded", again=True)] * 2)

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            assert len(texts(await ask(client, range(8)))) == 8

    run(main)
    assert api.sizes()[0] == 8
    assert max(api.sizes()[1:]) <= 4
    assert budget(tmp_path).committed == 8 * COST


def test_ctrl_c_lets_everybody_go_and_keeps_the_batch(tmp_path: Path) -> None:
    """`drain` interrupts who waits, cancels nothing, and the next session gets the answers without asking again."""
    api = FakeBatches(looks=10**6)

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            waiting = asyncio.create_task(ask(client, range(4)))
            while not api.polls:
                await asyncio.sleep(0)
            client.drain()
            said = await waiting
            assert all(isinstance(each, Interrupted) for each in said)
        assert [batch.state for batch in still_open(tmp_path)] == ["submitted"]
        assert budget(tmp_path).reserved == 4 * BOUND
        api.looks = 0
        async with open_batching(tmp_path, api) as client:
            assert len(texts(await ask(client, range(4)))) == 4

    run(main)
    assert api.sizes() == [4]
    assert budget(tmp_path).committed == 4 * COST


def test_requests_without_a_batch_cost_nothing_when_interrupted(tmp_path: Path) -> None:
    """Ctrl-C while requests are still collected."""
    api = FakeBatches()

    async def main() -> None:
        async with open_batching(tmp_path, api) as client:
            waiting = asyncio.create_task(ask(client, range(4)))
            await asyncio.sleep(0)
            client.drain()
            assert all(isinstance(each, Interrupted) for each in await waiting)

    run(main)
    assert (api.made, budget(tmp_path).committed) == ({}, 0)


@settings(max_examples=15)
@given(data=st.data(), cap=st.integers(0, 6 * BOUND))
def test_no_fate_of_batches_exceeds_the_cap(
    data: st.DataObject, cap: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever submissions and items come to: billed <= committed <= cap, nothing stays reserved, nothing hangs."""
    fates = data.draw(st.lists(st.sampled_from(["ok", "expired", "bad", "forgotten", "empty"]), max_size=12))
    billed = 0

    def said(body: Body) -> Sent | Fault | None:
        nonlocal billed
        fate = fates.pop() if fates else "ok"
        billed += COST if fate in ("ok", "forgotten", "empty") else 0
        match fate:
            case "ok":
                return echo(body)
            case "empty":
                return empty(body)
            case "expired":
                return never_run("expired")
            case "bad":
                return Fault("bad_request", "")
            case _:
                return None

    faults = st.sampled_from([Fault("rate_limited", "", again=True), Fault("timeout", "", again=True, billed=True)])
    api = FakeBatches(said, before=data.draw(st.lists(faults, max_size=2)), looks=1)
    folder = tmp_path_factory.mktemp("store")

    async def main() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(courier, "LOST_AFTER", -1.0)
            async with open_batching(folder, api, cap_nano=cap) as client:
                got = await asyncio.wait_for(ask(client, range(6)), 60)
                assert all(isinstance(each, Reply | Failure | BudgetReached) for each in got)

    run(main)
    money = budget(folder)
    assert billed <= money.committed <= cap
    assert money.reserved == 0
