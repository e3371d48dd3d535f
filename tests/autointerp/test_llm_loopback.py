"""A run over real HTTP: faults, and a kill in the middle."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from autointerp.llm import openai
from autointerp.llm.catalog import make_providers
from autointerp.llm.client import Client
from autointerp.llm.provider import answer_key
from autointerp.records.call import Reply
from autointerp.records.explanation import Failure
from tests.autointerp.llm_parts import attempts, budget, no_sleep, read_store
from tests.autointerp.provider_cases import SECRET
from tests.servers import worker
from tests.servers.loopback import request_hash, serve

ROOT = Path(__file__).parents[2]


def test_a_faulty_server_is_got_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real HTTP, each kind of fault once: all requests are answered or named failures, and the bill is covered."""
    faults = ["429", "429:1", "529", "500", "reset", "reset-billed", "truncated", "refusal", "malformed", "empty"]
    with serve(bill=tmp_path / "bill.jsonl", faults=faults) as server:
        monkeypatch.setenv(openai.KEY, SECRET)
        providers = make_providers([worker.MODEL], server.url + "/v1")

        async def main() -> list[Reply | Failure]:
            store = tmp_path / "answers.sqlite"
            async with Client.open(store, run="run", cap_nano=10**9, providers=providers, sleep=no_sleep) as client:
                return await asyncio.gather(*(client.answer(asked) for asked in worker.work(20)))

        said = asyncio.run(main())
        billed = sum(line["nano"] for line in server.billed())
    failures = sorted(one.kind for one in said if isinstance(one, Failure))
    assert failures == ["refusal", "truncated"]
    assert 0 < billed <= budget(tmp_path).committed


def test_a_killed_run_goes_on_without_paying_twice(tmp_path: Path) -> None:
    """SIGKILL in the middle: billed <= committed <= cap then and at the end, and no settled call is asked for again."""
    cap, calls = 20_000_000, 60
    with serve(bill=tmp_path / "bill.jsonl") as server:

        def start(*more: str) -> "subprocess.CompletedProcess[str]":
            place = ["--store", str(tmp_path / "answers.sqlite"), "--url", server.url + "/v1"]
            size = ["--calls", str(calls), "--cap", str(cap), *more]
            command = [sys.executable, "-m", "tests.servers.worker", *place, *size]
            return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

        def audit() -> set[str]:
            billed = sum(line["nano"] for line in server.billed())
            money = budget(tmp_path)
            assert billed <= money.committed <= cap
            assert money.committed == sum(charge for _, _, charge in attempts(tmp_path))
            return _settled(tmp_path, server.url + "/v1", calls)

        assert start("--die-after", "20").returncode == -9
        paid_before, settled = [line["request"] for line in server.billed()], audit()
        assert len(settled) >= 20
        done = start()
        assert done.stdout.strip() == str(calls), done.stderr
        paid_after = {line["request"] for line in server.billed()[len(paid_before) :]}
        assert not paid_after & settled
        assert len(audit()) == calls


def _settled(folder: Path, url: str, calls: int) -> set[str]:
    """Hashes, as the server writes them, of the requests whose answers are stored."""
    provider = openai.OpenAIProvider(None, url)
    with read_store(folder) as store:
        asked = [one for one in worker.work(calls) if store.answer(answer_key(provider, one))]
    return {request_hash(provider.render(one)) for one in asked}
