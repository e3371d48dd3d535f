"""A small run against a loopback server that may kill itself in the middle: the other half of the crash tests.

``python -m tests.servers.worker --store FILE --url URL --calls N --cap NANO --die-after K``: asks N requests, and sends
itself SIGKILL when K of them are answered.
"""

import argparse
import asyncio
import os
import signal
from pathlib import Path

from autointerp.llm.catalog import make_providers
from autointerp.llm.client import Client
from autointerp.records.call import Request
from autointerp.records.explanation import Failure
from autointerp.seams import BudgetReached

MODEL = "openai/gpt-6-luna"


def work(calls: int) -> list[Request]:
    """The requests of a run, the same every time."""
    return [Request(MODEL, "", f"unit {i}", None, 50, stage="explain", arm="features") for i in range(calls)]


async def run(
    store: Path, url: str, calls: int, cap: int, die_after: int = -1, concurrency: int = 16, haste: float = 1.0
) -> int:
    """Ask everything; returns how many requests were answered. Waits between attempts are shortened by `haste`."""
    answered = 0
    providers = make_providers([MODEL], url)
    async with Client.open(
        store,
        run="run",
        cap_nano=cap,
        providers=providers,
        concurrency=concurrency,
        sleep=lambda seconds: asyncio.sleep(seconds / haste),
    ) as client:

        async def ask(request: Request) -> None:
            nonlocal answered
            try:
                outcome = await client.answer(request)
            except BudgetReached:
                return
            answered += not isinstance(outcome, Failure)
            if answered == die_after:
                os.kill(os.getpid(), signal.SIGKILL)

        await asyncio.gather(*(ask(request) for request in work(calls)))
    return answered


def main() -> None:
    """Run once and print how many requests were answered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--cap", type=int, required=True)
    parser.add_argument("--die-after", type=int, default=-1)
    given = parser.parse_args()
    print(asyncio.run(run(given.store, given.url, given.calls, given.cap, given.die_after)))  # noqa: T201


if __name__ == "__main__":
    main()
