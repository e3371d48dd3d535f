"""The path of a call."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from asyncio_throttle.throttler import Throttler
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.llm.faults import ATTEMPTS, Fault
from autointerp.llm.limits import RequestsPerMinute
from autointerp.llm.prices import OVERHEAD
from autointerp.llm.provider import answer_key
from autointerp.llm.scripted import ScriptedProvider
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Failure
from autointerp.seams import BudgetReached, Interrupted, Refused
from sae.errors import UserError
from tests.autointerp.llm_parts import COST, MODEL, attempts, budget, ledger_row, open_client, parrot, request

BOUND = (len("hello") + OVERHEAD) * 1000 + 10 * 2000
"""Bound of `request()`."""


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function to its end."""
    asyncio.run(main())  # type: ignore[arg-type]


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

    async def reply(asked: Request) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(5):
            await asyncio.sleep(0)
        now -= 1
        return asked.user

    async def main() -> None:
        async with open_client(tmp_path, reply, concurrency=3) as client:
            await asyncio.gather(*(client.answer(request(f"{i}")) for i in range(12)))

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


@given(st.dictionaries(st.sampled_from(["system", "user", "schema", "max_tokens", "replicate"]), st.integers(1, 3)))
def test_everything_that_changes_the_answer_is_in_the_key(changes: dict[str, int]) -> None:
    """Keys are equal where, and only where, these fields are; Unicode is taken as it is."""
    provider = ScriptedProvider(parrot)
    texts = {"system", "user", "schema"}
    values = {name: f"{'é' * n}" if name in texts else 10 + n for name, n in changes.items()}
    plain, changed = request(), request(**values)
    assert answer_key(provider, changed) == answer_key(provider, replace(changed, stage="x", arm="y"))
    assert (answer_key(provider, plain) == answer_key(provider, changed)) == (plain == changed)
    assert answer_key(provider, changed) != answer_key(provider, changed, fresh=True)


def test_only_the_first_in_line_polls_the_throttle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave is given in order, to one at a time; at the rate that was asked, not above it."""
    inside = most = 0
    order: list[int] = []

    async def acquire(self: Throttler) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1

    async def main() -> None:
        rate = RequestsPerMinute(4000)

        async def one(number: int) -> None:
            await rate.acquire()
            order.append(number)

        await asyncio.gather(*(one(i) for i in range(20)))

    monkeypatch.setattr(Throttler, "acquire", acquire)
    run(main)
    assert most == 1
    assert order == list(range(20))


@pytest.mark.parametrize("limit", [1, 7, 60, 4000])
def test_the_window_allows_exactly_the_limit(limit: int) -> None:
    """Requests per window over its length is the limit per minute, whatever the rounding."""
    throttler = RequestsPerMinute(limit)._throttler
    assert throttler is not None
    assert throttler.rate_limit / throttler.period * 60 == pytest.approx(limit)
