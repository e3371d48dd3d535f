"""How many calls may be in flight, under a clock that the tests set."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from autointerp.llm.concurrency import COOLDOWN, RECENT, START, Pace, Slots


def round_of(pace: Pace, now: float, *, in_flight: int | None = None) -> None:
    """As many successes as make a round, with the limit used to the full unless told otherwise."""
    pace.begun(pace.limit if in_flight is None else in_flight)
    for _ in range(max(pace.limit, 4)):
        pace.succeeded(now)


def test_the_limit_doubles_until_the_first_rate_limit_then_creeps() -> None:
    """From eight upwards, never above the most; after a cut by a twentieth, at least one."""
    pace, limits = Pace(100), list[int]()
    for _ in range(5):
        limits.append(pace.limit)
        round_of(pace, 0.0)
    assert limits == [START, 16, 32, 64, 100]
    pace.limited(0.0)
    assert pace.limit == 80
    round_of(pace, COOLDOWN)
    assert pace.limit == 84
    assert Pace(3).limit == 3


def test_a_round_that_did_not_need_the_limit_says_nothing() -> None:
    """Below four fifths of the limit it does not grow."""
    pace = Pace(100)
    round_of(pace, 0.0, in_flight=6)
    assert pace.limit == START
    round_of(pace, 0.0, in_flight=7)
    assert pace.limit == 2 * START


def test_one_episode_cuts_once() -> None:
    """Those in flight meet the same limit: it is not their number that counts. A longer Retry-After lengthens it."""
    pace = Pace(100)
    for _ in range(3):
        pace.limited(0.0, retry_after=1.0)
    assert pace.limit == 6
    pace.limited(10.0, retry_after=30.0)
    pace.limited(39.0)
    round_of(pace, 39.0)
    assert pace.limit == 6
    round_of(pace, 40.0)
    assert pace.limit == 7
    pace.limited(41.0)
    assert pace.limit == 5


def test_server_errors_stop_growth_but_do_not_cut() -> None:
    """The round in which they happen does not count."""
    pace = Pace(100)
    pace.begun(8)
    for _ in range(3):
        for _ in range(7):
            pace.succeeded(0.0)
        pace.troubled()
    assert pace.limit == START
    round_of(pace, 0.0)
    assert pace.limit == 2 * START


def test_only_a_burst_of_overload_cuts() -> None:
    """More than a fifth of the last attempts."""
    pace = Pace(100)
    for _ in range(3 * RECENT):
        for _ in range(4):
            pace.succeeded(0.0)
        pace.overloaded(0.0)
    assert pace.limit >= START
    for _ in range(RECENT // 5 + 1):
        pace.overloaded(0.0)
    assert pace.limit < START
    for _ in range(RECENT):
        pace.overloaded(1.0)
    assert pace.limit == 6


@given(
    most=st.integers(1, 300),
    events=st.lists(
        st.tuples(st.sampled_from(["good", "limited", "trouble", "overload"]), st.floats(0, 60), st.floats(0, 100))
    ),
)
def test_the_limit_stays_within_its_bounds(most: int, events: list[tuple[str, float, float]]) -> None:
    """Between one and the most; only rate limits and overload lower it, at most once in a cooldown."""
    pace, now, last_cut = Pace(most), 0.0, float("-inf")
    for event, pause, retry_after in events:
        now += pause
        before = pace.limit
        pace.begun(before)
        match event:
            case "good":
                for _ in range(before):
                    pace.succeeded(now)
            case "limited":
                pace.limited(now, retry_after)
            case "trouble":
                pace.troubled()
            case _:
                pace.overloaded(now, retry_after)
        assert 1 <= pace.limit <= most
        if pace.limit < before:
            assert event in ("limited", "overload")
            assert now >= last_cut + COOLDOWN
            last_cut = now
        if pace.limit > before:
            assert event == "good" and now >= last_cut + COOLDOWN


def test_slots_are_given_in_order_and_follow_the_limit() -> None:
    """A cut lets nobody in until enough have left; growth lets the next in at once."""

    async def main() -> None:
        slots, inside, leave = Slots(4, clock=lambda: 0.0), list[int](), asyncio.Event()

        async def one(number: int) -> None:
            async with slots:
                inside.append(number)
                await leave.wait()

        tasks = [asyncio.create_task(one(number)) for number in range(6)]
        await asyncio.sleep(0)
        assert inside == [0, 1, 2, 3] and slots.in_flight == 4
        slots.limited(0.0)
        assert slots.pace.limit == 3
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        assert inside == [0, 1, 2, 3] and slots.in_flight == 3
        leave.set()
        await asyncio.wait(tasks)
        assert inside == list(range(6)) and slots.in_flight == 0

    asyncio.run(main())


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_a_cancelled_caller_loses_no_slot(cancelled: list[bool]) -> None:
    """Whether it still waits or has just been let in, all slots are free in the end and everybody else had one."""

    async def main() -> None:
        slots, served = Slots(2, clock=lambda: 0.0), list[int]()

        async def one(number: int) -> None:
            async with slots:
                await asyncio.sleep(0)
                served.append(number)

        tasks = [asyncio.create_task(one(number)) for number in range(len(cancelled))]
        for task, gone in zip(tasks, cancelled, strict=True):
            await asyncio.sleep(0)
            if gone:
                task.cancel()
        await asyncio.wait(tasks)
        assert slots.in_flight == 0
        done = {number for number, task in enumerate(tasks) if not task.cancelled()}
        assert set(served) == done >= {number for number, gone in enumerate(cancelled) if not gone}

    asyncio.run(main())
