"""What the progress line is drawn from."""

import asyncio
from pathlib import Path

from autointerp.llm.concurrency import START
from autointerp.llm.faults import Fault
from autointerp.llm.progress import Tally
from autointerp.records.call import Request, Usage
from tests.autointerp.llm_parts import MODEL, open_client, request, run


def test_rates_are_those_of_the_last_minute() -> None:
    """Requests and tokens leave after 60 seconds; totals stay."""
    now = 0.0
    tally = Tally(clock=lambda: now)

    def rates() -> tuple[int, int, int, int]:
        seen = tally.progress(in_flight=0, limit=0, spent=0, reserved=0, cap=None, at_provider=None, warnings=())
        return seen.requests_per_minute, seen.input_per_minute, seen.output_per_minute, seen.cached_input

    tally.sent()
    now = 30.0
    tally.sent()
    tally.answered("openai/m", "m-2026", Usage(100, 60, 0, 7))
    assert rates() == (2, 100, 7, 60)
    now = 60.0
    assert rates() == (1, 100, 7, 60)
    now = 90.0
    assert rates() == (0, 0, 0, 60)
    assert tally.served == {"openai/m": {"m-2026": 1}}


def test_a_run_under_way_is_counted(tmp_path: Path) -> None:
    """Calls in flight beside how many may be, attempts and retries, the model that answered; a rate limit cuts."""

    async def main() -> None:
        all_sent, leave = asyncio.Event(), asyncio.Event()
        faults = [Fault("rate_limited", "slow down", again=True), Fault("server_error", "sorry", again=True)]
        sent = 0

        async def reply(asked: Request) -> str:
            nonlocal sent
            sent += 1
            if sent == START:
                all_sent.set()
            await leave.wait()
            if faults:
                raise faults.pop(0)
            return asked.user

        async with open_client(tmp_path, reply) as client:
            calls = [asyncio.create_task(client.answer(request(f"{i}"))) for i in range(START + 2)]
            await all_sent.wait()
            progress = client.progress()
            assert (progress.in_flight, progress.limit, progress.requests_per_minute) == (START, START, START)
            leave.set()
            await asyncio.gather(*calls)
            progress = client.progress()
            assert (progress.in_flight, progress.limit, progress.done) == (0, 6, START + 2)
            assert progress.retries == {"rate_limited": 1, "server_error": 1}
            assert progress.requests_per_minute == START + 4
            assert (progress.input_per_minute, progress.output_per_minute) == (10 * progress.done, 5 * progress.done)
            assert progress.served == {MODEL: {MODEL: progress.done}}

    run(main)
