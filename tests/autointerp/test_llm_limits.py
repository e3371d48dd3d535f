"""The throttles, under a fake clock."""

import asyncio
import math
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.llm.limits import LEARNT_SHARE, RateLimits, WeightedThrottler
from autointerp.records.call import Usage
from tests.autointerp.fake_time import run_in_fake_time
from tests.autointerp.llm_parts import request


def most_in(seconds: float, passed: list[float]) -> int:
    """The most of the times in `passed`, which is in order, that lie within any `seconds`."""
    first = most = 0
    for last, now in enumerate(passed):
        while now - passed[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def pass_all(limits: RateLimits, calls: int) -> list[float]:
    """When each of `calls` requests that come at once may be sent."""
    passed: list[float] = []

    async def one() -> None:
        await limits.acquire(request())
        passed.append(time.monotonic())

    async def main() -> None:
        await asyncio.gather(*(one() for _ in range(calls)))

    run_in_fake_time(main)
    return passed


@pytest.mark.parametrize("limit", [1, 7, 59, 119, 4000])
def test_a_limit_is_used_to_the_full_and_never_exceeded(limit: int) -> None:
    """At least 95 % of the requests per minute, no more of them in any minute, and no second much above its share."""
    passed = pass_all(RateLimits(limit), 3 * limit + 1)
    assert most_in(60, passed) <= limit
    assert most_in(1, passed) <= math.ceil(limit / 60)
    assert 3 * limit / (passed[-1] - passed[0]) * 60 >= 0.95 * limit


def test_leave_is_given_in_order() -> None:
    """First come, first served; a call that waits for tokens holds no place in the requests' throttle."""
    limits, order = RateLimits(600, 1000), list[int]()

    async def one(number: int) -> None:
        await limits.acquire(request("x" * (3000 if number == 1 else 4), max_tokens=2))
        order.append(number)

    async def main() -> None:
        await asyncio.gather(*(one(i) for i in range(30)))

    run_in_fake_time(main)
    assert order == list(range(30))


@settings(max_examples=25)
@given(
    limit=st.integers(1, 50),
    calls=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.floats(0, 30)), min_size=1, max_size=30),
)
def test_no_window_holds_more_than_its_limit(limit: int, calls: list[tuple[int, int, float]]) -> None:
    """Whatever was estimated, used and waited for: corrected downwards, no minute has more units than the limit."""
    taken: list[tuple[float, int]] = []

    async def main() -> None:
        window, line = WeightedThrottler(limit, 60.0), asyncio.Lock()

        async def one(weight: int, used: int, pause: float) -> None:
            async with line:
                entry = await window.acquire(weight)
            assert entry.weight <= limit
            taken.append((entry.at, min(weight, used, limit)))
            await asyncio.sleep(pause)
            window.settle(entry, min(weight, used, limit))

        await asyncio.gather(*(one(*call) for call in calls))
        assert window._used == sum(entry.weight for entry in window._entries)

    run_in_fake_time(main)
    for start, _ in taken:
        assert sum(weight for at, weight in taken if start <= at < start + 60) <= limit


def test_tokens_that_were_not_used_are_given_back() -> None:
    """The next call waits for the minute to pass only where the estimate was right."""

    async def one(used: int | None) -> float:
        limits = RateLimits(tokens_per_minute=100)
        ticket = await limits.acquire(request("x" * 200, max_tokens=100))
        limits.settle(ticket, None if used is None else Usage(used, 0, 0, 0))
        await limits.acquire(request("x" * 200, max_tokens=100))
        return time.monotonic()

    async def main() -> None:
        begun = time.monotonic()
        assert await one(0) == await one(None) == begun
        assert await one(100) >= begun + 60

    run_in_fake_time(main)


def test_a_correction_wakes_who_waits() -> None:
    """Nobody sleeps a minute for tokens that were given back after a second."""

    async def main() -> None:
        limits = RateLimits(tokens_per_minute=100)
        ticket = await limits.acquire(request("x" * 200, max_tokens=100))
        second = asyncio.create_task(limits.acquire(request("x" * 200, max_tokens=100)))
        await asyncio.sleep(1)
        limits.settle(ticket, Usage(0, 0, 0, 0))
        await second
        assert time.monotonic() < 2

    run_in_fake_time(main)


ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-input-tokens-limit": "1000",
    "anthropic-ratelimit-output-tokens-limit": "200",
}


def test_limits_are_learnt_from_the_first_headers() -> None:
    """A share of what the provider announces; later headers change nothing."""
    limits = RateLimits()
    limits.learn({"date": "today"})
    limits.learn(ANTHROPIC)
    limits.learn({"x-ratelimit-limit-requests": "1"})
    passed = pass_all(limits, 41)
    assert most_in(60, passed) <= 50 * LEARNT_SHARE
    assert {name: window.rate_limit for name, window in limits._tokens.items()} == {"input": 800, "output": 160}


def test_given_limits_are_not_overruled() -> None:
    """Neither the requests nor the tokens; what is not given is learnt."""
    limits = RateLimits(600, 5000)
    limits.learn({"x-ratelimit-limit-requests": "10", "x-ratelimit-limit-tokens": "10"})
    assert [window.rate_limit for window in limits._tokens.values()] == [5000]
    assert most_in(1, pass_all(limits, 20)) == 10


def test_input_read_from_the_cache_does_not_count_where_the_provider_does_not_count_it() -> None:
    """Anthropic limits fresh input and output apart."""

    async def main() -> None:
        limits = RateLimits()
        limits.learn(ANTHROPIC)
        limits.settle(await limits.acquire(request()), Usage(700, 600, 0, 50))
        assert {name: window._used for name, window in limits._tokens.items()} == {"input": 100, "output": 50}

    run_in_fake_time(main)


def test_the_throttles_poll_one_at_a_time() -> None:
    """A thousand waiters cost as many wake-ups as one."""
    sleeps = 0
    sleep = asyncio.sleep

    async def counted(seconds: float) -> None:
        nonlocal sleeps
        sleeps += 1
        await sleep(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", counted)
        passed = pass_all(RateLimits(6000), 1000)
    assert sleeps <= 110 * (passed[-1] - passed[0])
    assert all(first <= second for first, second in pairwise(passed))
