"""A small run in batch mode that may kill itself where it hurts: the other half of a crash test.

``python -m tests.servers.batch_worker --store FILE --model MODEL --calls N [--die]``: with ``--die`` it sends itself
SIGKILL as soon as the provider has taken its batch, before anything of that is written.
"""

import argparse
import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from autointerp.llm.batch_provider import BatchProvider
from autointerp.llm.catalog import make_batch_providers, make_providers
from autointerp.llm.client import Client
from autointerp.llm.provider import Body
from autointerp.records.call import Reply, Request


def dies(api: BatchProvider) -> BatchProvider:
    """`api`, deadly once a batch has arrived."""
    submit = api.submit

    async def last(submission: str, bodies: Mapping[str, Body]) -> str:
        await submit(submission, bodies)
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    api.submit = last  # type: ignore[method-assign]
    return api


async def run(store: Path, model: str, calls: int, *, die: bool) -> int:
    """Ask everything in batches; returns how many requests were answered."""
    apis = make_batch_providers([model])
    async with Client.open(
        store,
        run="run",
        cap_nano=10**9,
        providers=make_providers([model]),
        batch_providers={name: dies(api) if die else api for name, api in apis.items()},
        sleep=lambda seconds: asyncio.sleep(seconds / 100),
    ) as client:
        requests = [Request(model, "", f"unit {i}", None, 50, stage="explain", arm="features") for i in range(calls)]
        return sum(isinstance(each, Reply) for each in await asyncio.gather(*map(client.answer, requests)))


def main() -> None:
    """Run once and print how many requests were answered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--die", action="store_true")
    given = parser.parse_args()
    print(asyncio.run(run(given.store, given.model, given.calls, die=given.die)))  # noqa: T201


if __name__ == "__main__":
    main()
