"""A server that speaks for both providers and for vLLM over HTTP, and keeps its own bill.

Messages, Message Batches and token counts (Anthropic); Chat Completions, Responses, Files and Batches (OpenAI);
completions with log-probabilities (vLLM). As a process, ``python -m tests.servers.loopback --bill bill.jsonl`` prints
its port, then serves until it is killed; or ``with launch(...) as url``. Inside a test, ``with serve(...) as server``.
Point the SDKs at it with ``ANTHROPIC_BASE_URL=server.url`` and ``OPENAI_BASE_URL=server.url + "/v1"``.
"""

import argparse
import asyncio
import importlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.answers import default_answer, request_hash
from tests.servers.app import App
from tests.servers.faults import even
from tests.servers.limit import RateLimit
from tests.servers.state import Answers, Server
from tests.servers.wire import converse

__all__ = ["Server", "default_answer", "launch", "request_hash", "run", "serve"]

ROOT = Path(__file__).parents[2]
_BACKLOG = 1024


async def run(state: Server, started: Callable[[], None], stop: asyncio.Event) -> None:
    """Listen on `state.port` (0: any), call `started`, and serve until `stop`."""
    app = App(state)
    talks: set[asyncio.Task[None]] = set()

    def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(converse(reader, writer, app.handle, lambda: state.silence))
        talks.add(talk)
        talk.add_done_callback(talks.discard)

    server = await asyncio.start_server(meet, "127.0.0.1", state.port, backlog=_BACKLOG)
    state.port = server.sockets[0].getsockname()[1]
    started()
    await stop.wait()
    server.close()
    for talk in talks:
        talk.cancel()
    await asyncio.gather(*talks, return_exceptions=True)


@contextmanager
def serve(
    *,
    bill: Path | None = None,
    answers: Answers = default_answer,
    faults: Sequence[str] = (),
    delay: float = 0.0,
    **more: Any,
) -> Iterator[Server]:
    """A server in a thread of this process, for as long as the block lasts; `more` as the fields of `Server`."""
    state = Server(bill=bill, answers=answers, faults=list(faults), delay=delay, **more)
    ready, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(run(state, ready.set, stop),), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield state
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def launch(*flags: str | Path) -> Iterator[str]:
    """A server process with the command line's `flags`, killed at the end; gives its URL."""
    command = [sys.executable, "-m", "tests.servers.loopback", *map(str, flags)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bill", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--answers", help="MODULE:FUNCTION that makes a reply's text from the request's body")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before every reply")
    parser.add_argument("--faults", default="", help="comma-separated, for the first calls")
    parser.add_argument("--chaos", type=float, default=0.0, help="share of requests that a fault befalls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rpm", type=int, help="requests per window")
    parser.add_argument("--tpm", type=int, help="tokens per window")
    parser.add_argument("--window", type=float, default=60.0, help="seconds")
    parser.add_argument("--caching", action="store_true", help="cache prompts")
    parser.add_argument("--batch-seconds", type=float, default=0.0)
    given = parser.parse_args()
    module, _, function = (given.answers or "tests.servers.answers:default_answer").partition(":")
    state = Server(
        port=given.port,
        bill=given.bill,
        log=given.log,
        answers=getattr(importlib.import_module(module), function),
        faults=[fault for fault in given.faults.split(",") if fault],
        shares=even(given.chaos) if given.chaos else {},
        seed=given.seed,
        delay=given.delay,
        limit=RateLimit(given.rpm, given.tpm, given.window) if given.rpm or given.tpm else None,
        caching=given.caching,
        batch_seconds=given.batch_seconds,
    )
    asyncio.run(run(state, lambda: print(state.port, flush=True), asyncio.Event()))  # noqa: T201


if __name__ == "__main__":
    main()
