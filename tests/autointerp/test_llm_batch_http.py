"""Batch mode over HTTP: the real SDKs against a server that keeps its own bill."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from autointerp.llm.batch_provider import BatchProvider
from autointerp.llm.catalog import make_batch_providers, make_providers
from autointerp.llm.client import Client
from autointerp.llm.prices import Prices
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Failure
from autointerp.seams import BudgetReached, Refused
from sae.errors import UserError
from tests.autointerp.batch_parts import journalled
from tests.autointerp.llm_parts import attempts, budget
from tests.servers.loopback import ROOT, Server, serve

HAIKU, LUNA = "anthropic/claude-haiku-5-5", "openai/gpt-6-luna"
KEYS = {"ANTHROPIC_API_KEY": "sk-ant-loopback-key", "OPENAI_API_KEY": "sk-loopback-key"}


@pytest.fixture(params=[HAIKU, LUNA])
def model(request: pytest.FixtureRequest) -> str:
    """One model of each provider."""
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Both providers on loopback, with a bill and a log; what they bill never exceeds what the run has committed."""
    with serve(bill=tmp_path / "bill.jsonl", log=tmp_path / "log.jsonl") as running:
        for name, value in environment(running.url).items():
            monkeypatch.setenv(name, value)
        yield running
        billed = sum(line["nano"] for line in running.billed())
        assert billed <= budget(tmp_path).committed


def environment(url: str) -> dict[str, str]:
    """What leads both SDKs to `url`."""
    return {"ANTHROPIC_BASE_URL": url, "OPENAI_BASE_URL": f"{url}/v1", **KEYS}


def open_http(folder: Path, model: str, **changes: Any) -> AbstractAsyncContextManager[Client]:
    """A client in batch mode whose waits are short."""
    settings = {"cap_nano": 10**9, "batch_providers": make_batch_providers([model])}
    return Client.open(
        folder / "answers.sqlite",
        run="run",
        providers=make_providers([model]),
        sleep=lambda seconds: asyncio.sleep(seconds / 1000),
        **(settings | changes),
    )


def unit(i: int, model: str, **changes: Any) -> Request:
    """One of a run's requests; the system text is long enough to be cached."""
    return Request(**({"model": model, "system": "Be brief. " * 20, "user": f"unit {i}", "schema": None,
                       "max_tokens": 50, "stage": "explain", "arm": "features"} | changes))  # fmt: skip


async def ask(client: Client, model: str, units: Sequence[int]) -> list[object]:
    """Ask for all of `units` at once; what each comes to, `Stop` included."""
    return await asyncio.gather(*(client.answer(unit(i, model)) for i in units), return_exceptions=True)


def submissions(server: Server) -> int:
    """Batches that were sent."""
    names = Counter(line["request"] for line in server.requests())
    return names["POST /v1/messages/batches"] + names["POST /v1/batches"]


def test_both_apis_are_batch_providers() -> None:
    """The protocol is met; a key is asked for like everywhere."""
    with pytest.raises(UserError, match="ANTHROPIC_API_KEY"):
        make_batch_providers([HAIKU])
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        make_batch_providers([LUNA])
    [local] = make_batch_providers(["openai/mine"], "http://127.0.0.1:9/v1").values()
    assert isinstance(local, BatchProvider)


def test_a_batch_is_answered_at_half_price(server: Server, model: str, tmp_path: Path) -> None:
    """One submission, one answer each, the provider's bill to the nano-dollar but for rounding."""

    async def main() -> None:
        async with open_http(tmp_path, model) as client:
            said = await ask(client, model, range(20))
            assert all(isinstance(each, Reply) and each.text.startswith("answer ") for each in said)
            assert len({each.text for each in said if isinstance(each, Reply)}) == 20

    asyncio.run(main())
    assert submissions(server) == 1
    bill = server.billed()
    assert len(bill) == 20 and all(line["batch"] for line in bill)
    assert sum(line["nano"] for line in bill) == budget(tmp_path).committed
    assert budget(tmp_path).committed <= 20 * Prices().bound(unit(0, model), batch=True)


def test_only_what_failed_is_sent_again(server: Server, model: str, tmp_path: Path) -> None:
    """Expired and errored items go into the next batch alone; refusals and truncations were paid and are kept."""
    server.batch_faults = ["expired", "errored", "refusal", "truncated", "empty", "ok"]

    async def main() -> None:
        for _ in range(2):
            async with open_http(tmp_path, model) as client:
                said = await ask(client, model, range(6))
                kinds = [each.kind if isinstance(each, Failure) else type(each).__name__ for each in said]
                assert kinds == ["Reply", "Reply", "refusal", "truncated", "Reply", "Reply"]

    asyncio.run(main())
    assert [count for _, _, count in journalled(tmp_path)] == [6, 3]
    assert len(server.billed()) == 7
    states = Counter((state, kind) for state, kind, _ in attempts(tmp_path))
    assert states["released", "expired"] == states["released", "server_error"] == 1
    assert states["settled", "answered"] == 4


def test_a_submission_cut_off_after_it_arrived_is_found(server: Server, model: str, tmp_path: Path) -> None:
    """The connection breaks while the provider confirms: the batch is looked for, not sent again."""
    server.faults = ["reset-billed"] if model == HAIKU else ["ok", "reset-billed"]
    server.batch_seconds = 0.3

    async def main() -> None:
        async with open_http(tmp_path, model) as client:
            assert all(isinstance(each, Reply) for each in await ask(client, model, range(8)))

    asyncio.run(main())
    assert submissions(server) == 1
    assert len(server.billed()) == 8
    assert sum(line["nano"] for line in server.billed()) == budget(tmp_path).committed


def test_a_busy_provider_is_waited_for(server: Server, model: str, tmp_path: Path) -> None:
    """Refused submissions, broken polls and cut results cost nothing and lose nothing."""
    server.faults = ["429:1", "529", "ok", "ok", "500", "reset", "429", "malformed", "cut", "502"]

    async def main() -> None:
        async with open_http(tmp_path, model) as client:
            assert all(isinstance(each, Reply) for each in await ask(client, model, range(4)))

    asyncio.run(main())
    assert len(server.billed()) == 4
    assert sum(line["nano"] for line in server.billed()) == budget(tmp_path).committed


def test_the_budget_splits_batches_and_holds(server: Server, model: str, tmp_path: Path) -> None:
    """What does not fit waits for what the first answers leave over; then the run stops below its cap."""
    bound = Prices().bound(unit(0, model), batch=True)

    async def main() -> None:
        async with open_http(tmp_path, model, cap_nano=3 * bound) as client:
            said = await ask(client, model, range(60))
            kinds = Counter(type(each).__name__ for each in said)
            assert kinds["Reply"] > 3 and kinds["BudgetReached"] > 0
            assert kinds["Reply"] + kinds["BudgetReached"] == 60
            assert all(isinstance(each, BudgetReached) for each in said[kinds["Reply"] :])

    asyncio.run(main())
    sizes = [count for _, _, count in journalled(tmp_path)]
    assert sizes[0] == 3 and len(sizes) > 1
    assert budget(tmp_path).committed <= 3 * bound


def test_a_refused_key_stops_the_run(server: Server, model: str, tmp_path: Path) -> None:
    """Once, for everybody, at no cost; the key is in no message."""
    server.faults = ["401"]

    async def main() -> None:
        async with open_http(tmp_path, model) as client:
            for each in await ask(client, model, range(5)):
                assert isinstance(each, Refused)
                assert not any(key in str(each) for key in KEYS.values())

    asyncio.run(main())
    assert budget(tmp_path).committed == 0


@pytest.mark.slow
def test_killed_while_the_batch_is_taken_it_is_never_sent_twice(server: Server, model: str, tmp_path: Path) -> None:
    """SIGKILL between submission and journal, then another process: one batch, one bill, all answers."""
    server.batch_seconds = 1.0

    def worker(*flags: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "tests.servers.batch_worker", "--store", str(tmp_path / "answers.sqlite")]
        return subprocess.run(
            [*command, "--model", model, "--calls", "12", *flags],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    assert worker("--die").returncode == -signal.SIGKILL
    assert [state for state, _, _ in journalled(tmp_path)] == ["submitting"]
    done = worker()
    assert done.stdout.strip() == "12", done.stderr
    assert submissions(server) == 1
    assert sum(line["nano"] for line in server.billed()) == budget(tmp_path).committed
