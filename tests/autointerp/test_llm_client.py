"""The path of a call."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from autointerp.llm.faults import ATTEMPTS, Fault
from autointerp.llm.scripted import ScriptedProvider
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Failure
from sae.errors import UserError
from tests.autointerp.llm_parts import (
    BOUND,
    COST,
    MODEL,
    attempts,
    ledger_row,
    open_client,
    parrot,
    request,
    run,
)


def test_an_answer_is_paid_once_in_a_lifetime(tmp_path: Path) -> None:
    """A second session answers from the store: no call, no money, the same text."""
    calls = Counter[str]()

    async def reply(asked: Request) -> str:
        calls[asked.user] += 1
        return asked.user

    async def session(*, cached: bool) -> None:
        async with open_client(tmp_path, reply) as client:
            said = await client.answer(request())
            assert isinstance(said, Reply)
            assert (said.text, said.cost, said.served, said.cached) == ("hello", COST, MODEL, cached)
            progress = client.progress()
            assert (progress.done, progress.cached, progress.spent) == (1, int(cached), COST)

    run(lambda: session(cached=False))
    run(lambda: session(cached=True))
    assert calls == {"hello": 1}
    row = ledger_row(tmp_path)
    assert (row.calls, row.cached, row.cost) == (1, 1, COST)


def test_identical_requests_in_flight_share_one_call(tmp_path: Path) -> None:
    """Whoever asks the same meanwhile waits for the same answer, and pays nothing."""
    calls = 0

    async def reply(asked: Request) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return asked.user

    async def main() -> None:
        async with open_client(tmp_path, reply) as client:
            said = await asyncio.gather(*(client.answer(request(arm=arm)) for arm in "abc"))
            assert [isinstance(one, Reply) and one.cached for one in said] == [False, True, True]
            assert client.progress().cached == 2

    run(main)
    assert calls == 1


def test_at_most_so_many_calls_are_in_flight(tmp_path: Path) -> None:
    """`concurrency` is a ceiling, and it is reached."""
    now = most = 0

    async def main() -> None:
        reached = asyncio.Event()

        async def reply(asked: Request) -> str:
            nonlocal now, most
            now += 1
            most = max(most, now)
            if now == 3:
                reached.set()
            await reached.wait()
            now -= 1
            return asked.user

        async with open_client(tmp_path, reply, concurrency=3) as client:
            await asyncio.gather(*(client.answer(request(f"{i}")) for i in range(12)))

    run(main)
    assert most == 3


def test_models_share_what_may_be_in_flight(tmp_path: Path) -> None:
    """`concurrency` holds for all of them together; a rate limit slows down only the model that met it."""
    other = "scripted/crow"
    now = most = 0

    async def main() -> None:
        reached = asyncio.Event()
        faults = [Fault("rate_limited", "slow down", again=True)]

        async def reply(asked: Request) -> str:
            nonlocal now, most
            if faults and asked.model == other:
                raise faults.pop()
            now += 1
            most = max(most, now)
            if now == 3:
                reached.set()
            await reached.wait()
            now -= 1
            return asked.user

        provider = ScriptedProvider(reply)
        async with open_client(tmp_path, providers={MODEL: provider, other: provider}, concurrency=3) as client:
            asked = [request(f"{i}", model=model) for i in range(6) for model in (MODEL, other)]
            await asyncio.gather(*(client.answer(one) for one in asked))
            assert client._lanes[MODEL].slots.pace.limit == 3
            assert client._lanes[other].slots.pace.limit == 2
            assert client.progress().limit == 3

    run(main)
    assert most == 3


def test_transient_faults_are_retried_and_charged_by_their_kind(tmp_path: Path) -> None:
    """A rate limit costs nothing, a broken connection stays charged, the answer costs what it costs."""
    faults = [Fault("rate_limited", "slow down", again=True), Fault("timeout", "silence", again=True, billed=True)]

    async def reply(asked: Request) -> str:
        if faults:
            raise faults.pop(0)
        return asked.user

    async def main() -> None:
        async with open_client(tmp_path, reply) as client:
            assert isinstance(await client.answer(request()), Reply)
            assert client.progress().retries == {"rate_limited": 1, "timeout": 1}

    run(main)
    assert attempts(tmp_path) == [
        ("released", "rate_limited", 0),
        ("unknown", "timeout", BOUND),
        ("settled", "answered", COST),
    ]


@pytest.mark.parametrize(
    ("fault", "tries"),
    [
        (Fault("rate_limited", "slow down", again=True), ATTEMPTS),
        (Fault("connection", "reset", again=True, billed=True), 3),
        (Fault("bad_request", "no such field"), 1),
    ],
)
def test_a_fault_that_stays_becomes_a_failure(tmp_path: Path, fault: Fault, tries: int) -> None:
    """After the attempts that its kind is worth; the run goes on, and a later session asks again."""

    async def reply(asked: Request) -> str:
        raise replace(fault)

    async def main() -> None:
        async with open_client(tmp_path, reply) as client:
            said = await client.answer(request())
            assert said == Failure("explain", fault.kind, fault.message)
            assert client.progress().failed == {fault.kind: 1}
        async with open_client(tmp_path) as client:
            assert isinstance(await client.answer(request()), Reply)

    run(main)
    assert len(attempts(tmp_path)) == tries + 1


def test_waits_grow_and_respect_retry_after(tmp_path: Path) -> None:
    """Exponential back-off, never shorter than what the provider asks."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def reply(asked: Request) -> str:
        raise Fault("rate_limited", "", again=True, retry_after=120.0 if len(waits) == 1 else 0.0)

    async def main() -> None:
        async with open_client(tmp_path, reply, sleep=sleep) as client:
            await client.answer(request())

    run(main)
    assert len(waits) == ATTEMPTS - 1
    assert 120 <= waits[1] <= 121
    assert waits[0] < waits[2] < waits[4]


@pytest.mark.parametrize("status", ["refusal", "truncated"])
def test_refused_and_truncated_answers_are_failures_that_were_paid(tmp_path: Path, status: str) -> None:
    """They are stored, so that a second session does not pay for them again."""

    async def main() -> None:
        for calls in (1, 0):
            provider = ScriptedProvider(parrot, status=status)  # type: ignore[arg-type]
            async with open_client(tmp_path, provider=provider) as client:
                said = await client.answer(request())
                assert isinstance(said, Failure)
                assert (said.stage, said.kind) == ("explain", status)
                assert client.progress().cached == 1 - calls

    run(main)
    assert attempts(tmp_path) == [("settled", status, COST)]


def test_an_empty_answer_is_asked_for_once_more(tmp_path: Path) -> None:
    """The second draw is paid and kept beside the first; a second session finds it."""
    said = ["", "at last"]

    async def reply(asked: Request) -> str:
        return said.pop(0)

    async def main() -> None:
        for _ in range(2):
            async with open_client(tmp_path, reply) as client:
                answer = await client.answer(request())
                assert isinstance(answer, Reply) and answer.text == "at last"

    run(main)
    assert [state[:2] for state in attempts(tmp_path)] == [("settled", "empty"), ("settled", "answered")]
    row = ledger_row(tmp_path)
    assert (row.calls, row.cached, row.failures) == (2, 1, {})


def test_two_empty_answers_are_a_failure(tmp_path: Path) -> None:
    """And no third is paid, now or later."""
    calls = 0

    async def reply(asked: Request) -> str:
        nonlocal calls
        calls += 1
        return ""

    async def main() -> None:
        for _ in range(2):
            async with open_client(tmp_path, reply) as client:
                assert await client.answer(request()) == Failure("explain", "empty", "The answer is empty.")

    run(main)
    assert calls == 2


def test_replicates_are_different_draws(tmp_path: Path) -> None:
    """The same request with another `replicate` is paid again; with another stage or arm it is not."""
    calls = 0

    async def reply(asked: Request) -> str:
        nonlocal calls
        calls += 1
        return asked.user

    async def main() -> None:
        async with open_client(tmp_path, reply) as client:
            for asked in (request(), request(replicate=1), request(stage="simulate", arm="neurons")):
                await client.answer(asked)

    run(main)
    assert calls == 2


def test_a_model_that_was_not_opened_is_named(tmp_path: Path) -> None:
    """With the nearest that was."""

    async def main() -> None:
        async with open_client(tmp_path) as client:
            with pytest.raises(UserError, match="Did you mean scripted/parrot"):
                await client.answer(request(model="scripted/parot"))

    run(main)


def test_a_key_that_a_provider_echoes_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the answer's text nor in the stored body."""
    from autointerp.llm.keys import api_key

    monkeypatch.setenv("OPENAI_API_KEY", "an-echoed-secret-key")
    api_key("OPENAI_API_KEY")

    async def reply(asked: Request) -> str:
        return "your key is an-echoed-secret-key"

    async def main() -> None:
        for _ in range(2):
            async with open_client(tmp_path, reply) as client:
                said = await client.answer(request())
                assert isinstance(said, Reply) and said.text == "your key is [key]"

    run(main)
