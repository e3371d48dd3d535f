"""Both providers through their real SDKs: every answer and every fault, over a mocked or a loopback network."""

import asyncio
import json
import subprocess
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import respx

from autointerp.llm import anthropic, openai
from autointerp.llm.catalog import make_providers
from autointerp.llm.client import Client
from autointerp.llm.provider import Provider, answer_key
from autointerp.records.call import Reply, Request, Usage
from autointerp.records.explanation import Failure
from autointerp.seams import Refused
from tests.autointerp.llm_parts import SCHEMA, attempts, budget, no_sleep, read_store, request
from tests.servers import worker
from tests.servers.loopback import request_hash, serve

ROOT = Path(__file__).parents[2]
SECRET = "unmistakable-secret-9876543210"
USAGE = Usage(30, 10, 0, 7)


@dataclass(frozen=True)
class Case:
    """A provider and how it says things."""

    model: str
    url: str
    provider: Provider
    error: Mapping[str, Any]
    request_id: str

    def reopened(self) -> "Case":
        """The same with new connections: a client closes those that it was given."""
        return replace(self, provider=type(self.provider)(SECRET))  # type: ignore[call-arg]

    def body(self, text: str = "hello", stop: str = "end") -> dict[str, Any]:
        """A success."""
        if self.model.startswith("anthropic"):
            stops = {"end": "end_turn", "truncated": "max_tokens", "refusal": "refusal"}
            usage = {"input_tokens": 20, "cache_read_input_tokens": 10, "output_tokens": 7}
            content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}]
            return {"content": content, "stop_reason": stops[stop], "model": "served", "usage": usage}
        message = {"content": text, "refusal": "no" if stop == "refusal" else None}
        finish = "length" if stop == "truncated" else "stop"
        details = {"prompt_tokens_details": {"cached_tokens": 10}}
        usage = {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37, **details}
        return {"choices": [{"message": message, "finish_reason": finish}], "model": "served", "usage": usage}


CASES = [
    Case(
        "anthropic/claude-haiku-5-5",
        "https://api.anthropic.com/v1/messages",
        anthropic.AnthropicProvider(SECRET),
        {"type": "error", "error": {"type": "some_error", "message": "told you"}},
        "request-id",
    ),
    Case(
        "openai/gpt-6-luna",
        "https://api.openai.com/v1/chat/completions",
        openai.OpenAIProvider(SECRET),
        {"error": {"type": "some_error", "code": "some_error", "message": "told you"}},
        "x-request-id",
    ),
]


@pytest.fixture(params=CASES, ids=["anthropic", "openai"])
def case(request: pytest.FixtureRequest) -> Case:
    """Each provider in turn, with connections of its own."""
    chosen: Case = request.param
    return chosen.reopened()


async def _ask(case: Case, folder: Path, asked: Request, sleep: Any) -> Reply | Failure:
    store = folder / "answers.sqlite"
    async with Client.open(
        store, run="run", cap_nano=10**9, providers={case.model: case.provider}, sleep=sleep
    ) as client:
        return await client.answer(asked)


def ask(case: Case, folder: Path, *, sleep: Any = no_sleep, **changes: Any) -> Reply | Failure:
    """One request through the whole client."""
    return asyncio.run(_ask(case, folder, request(model=case.model, **changes), sleep))


def test_an_answer_is_read_with_its_usage(case: Case, tmp_path: Path, httpx2_mock: respx.Router) -> None:
    """Text without the thinking, tokens with the cached ones, the served model, the price of all that."""
    httpx2_mock.post(case.url).respond(json=case.body(), headers={case.request_id: "req_1"})
    said = ask(case, tmp_path)
    assert said == Reply("hello", USAGE, 20 * 100 + 10 * 10 + 7 * 500, "served", cached=False)
    with read_store(tmp_path) as store:
        assert store._connection.execute("SELECT request_id FROM answer").fetchall() == [("req_1",)]


def test_what_is_sent_to_anthropic(tmp_path: Path, httpx2_mock: respx.Router) -> None:
    """The schema as output format, the system block marked for caching, no temperature."""
    case = CASES[0].reopened()
    route = httpx2_mock.post(case.url).respond(json=case.body())
    ask(case, tmp_path, system="be brief", schema=SCHEMA)
    assert json.loads(route.calls[0].request.content) == {
        "model": "claude-haiku-5-5",
        "max_tokens": 10,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "hello"}],
        "output_config": {"format": {"type": "json_schema", "schema": json.loads(SCHEMA)}},
    }


def test_what_is_sent_to_openai(tmp_path: Path, httpx2_mock: respx.Router) -> None:
    """The schema strictly, the new name of the limit, the default service tier, whose price was reserved."""
    case = CASES[1].reopened()
    route = httpx2_mock.post(case.url).respond(json=case.body())
    ask(case, tmp_path, system="be brief", schema=SCHEMA)
    schema = {"name": "answer", "strict": True, "schema": json.loads(SCHEMA)}
    assert json.loads(route.calls[0].request.content) == {
        "model": "gpt-6-luna",
        "max_completion_tokens": 10,
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
        "response_format": {"type": "json_schema", "json_schema": schema},
        "service_tier": "default",
    }


def test_other_servers_get_the_limit_under_its_old_name() -> None:
    """Not all know the new one, and a limit that is ignored bounds nothing."""
    local = openai.OpenAIProvider(None, "http://127.0.0.1:8000/v1")
    assert local.render(request(model="openai/Qwen/Qwen3-8B"))["max_tokens"] == 10
    assert local.render(request(model="openai/gpt-oss-20b"))["max_tokens"] == 10


@pytest.mark.parametrize(
    ("status", "headers", "state", "kind"),
    [
        (429, {"retry-after": "30"}, "released", "rate_limited"),
        (529, {}, "released", "server_error"),
        (500, {}, "unknown", "server_error"),
        (408, {}, "unknown", "timeout"),
        (409, {}, "released", "server_error"),
    ],
)
def test_a_transient_status_is_retried(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, status: int, headers: dict[str, str], state: str, kind: str
) -> None:
    """By us, once per attempt, after the wait that was asked for; the first attempt is charged by its status."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    refusal = httpx.Response(status, json=dict(case.error), headers=headers)
    route = httpx2_mock.post(case.url).mock(side_effect=[refusal, httpx.Response(200, json=case.body())])
    assert isinstance(ask(case, tmp_path, sleep=sleep), Reply)
    assert route.call_count == 2
    assert len(waits) == 1 and waits[0] >= float(headers.get("retry-after", "0"))
    assert [attempt[:2] for attempt in attempts(tmp_path)] == [(state, kind), ("settled", "answered")]


@pytest.mark.parametrize(
    ("error", "state", "kind"),
    [
        (httpx2.ReadTimeout("silence"), "unknown", "timeout"),
        (httpx2.ReadError("reset by peer"), "unknown", "connection"),
        (httpx2.RemoteProtocolError("disconnected"), "unknown", "connection"),
        (httpx2.ConnectError("refused"), "released", "connection"),
        (httpx2.ConnectTimeout("nobody there"), "released", "timeout"),
    ],
)
def test_a_broken_connection_is_charged_only_after_sending(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, error: Exception, state: str, kind: str
) -> None:
    """Before it nothing can have been billed."""
    httpx2_mock.post(case.url).mock(side_effect=[error, httpx.Response(200, json=case.body())])
    assert isinstance(ask(case, tmp_path), Reply)
    assert attempts(tmp_path)[0][:2] == (state, kind)


@pytest.mark.parametrize("content", [b'{"content": [', b"[]", b"{}", b"<html>bad gateway</html>"])
def test_a_malformed_success_is_charged_and_retried(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, content: bytes
) -> None:
    """It may have been billed; the next attempt may be whole."""
    bad = httpx.Response(200, content=content, headers={"content-type": "application/json"})
    httpx2_mock.post(case.url).mock(side_effect=[bad, httpx.Response(200, json=case.body())])
    assert isinstance(ask(case, tmp_path), Reply)
    assert attempts(tmp_path)[0][:2] == ("unknown", "server_error")


def test_an_overload_inside_a_success_is_not_charged(case: Case, tmp_path: Path, httpx2_mock: respx.Router) -> None:
    """Some servers say so with status 200."""
    overload = httpx.Response(200, json={"type": "error", "error": {"type": "overloaded_error"}})
    httpx2_mock.post(case.url).mock(side_effect=[overload, httpx.Response(200, json=case.body())])
    assert isinstance(ask(case, tmp_path), Reply)
    assert attempts(tmp_path)[0][:2] == ("released", "server_error")


@pytest.mark.parametrize("kind", ["truncated", "refusal"])
def test_a_cut_or_refused_answer_is_a_failure(case: Case, tmp_path: Path, httpx2_mock: respx.Router, kind: str) -> None:
    """Paid, stored, named, and not asked for again."""
    route = httpx2_mock.post(case.url).respond(json=case.body("half an ans", kind))
    for _ in range(2):
        said = ask(case.reopened(), tmp_path)
        assert isinstance(said, Failure) and said.kind == kind
    assert route.call_count == 1
    assert attempts(tmp_path)[0][0] == "settled"


def test_an_empty_answer_is_drawn_twice(case: Case, tmp_path: Path, httpx2_mock: respx.Router) -> None:
    """Then it is a failure."""
    route = httpx2_mock.post(case.url).respond(json=case.body("  \n"))
    assert ask(case, tmp_path) == Failure("explain", "empty", "The answer is empty.")
    assert route.call_count == 2


def test_an_answer_without_usage_is_charged_at_its_bound(case: Case, tmp_path: Path, httpx2_mock: respx.Router) -> None:
    """What is not said is not assumed to be nothing."""
    httpx2_mock.post(case.url).respond(json=case.body() | {"usage": None})
    said = ask(case, tmp_path)
    assert isinstance(said, Reply)
    assert said.cost == (5 + 200) * 125 + 10 * 500 == budget(tmp_path).committed


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_request_fails_its_item_only(case: Case, tmp_path: Path, httpx2_mock: respx.Router, status: int) -> None:
    """Once, without charge, and the run goes on."""
    route = httpx2_mock.post(case.url).respond(status, json=dict(case.error))
    said = ask(case, tmp_path)
    assert isinstance(said, Failure) and said.kind == "bad_request" and "told you" in said.message
    assert route.call_count == 1
    assert budget(tmp_path).committed == 0


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "authentication_error", "invalid key"),
        (403, "permission_error", "not yours"),
        (402, "billing_error", "pay first"),
        (404, "not_found_error", "no such model"),
        (400, "invalid_request_error", "Your credit balance is too low"),
        (429, "insufficient_quota", "You exceeded your current quota"),
    ],
)
def test_what_every_call_would_meet_stops_the_run(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, status: int, code: str, message: str
) -> None:
    """Key, credit, model: asked once, nothing charged, the provider's words shown."""
    error = {"type": "error", "error": {"type": code, "code": code, "message": message}}
    route = httpx2_mock.post(case.url).respond(status, json=error)
    with pytest.raises(Refused, match=message):
        ask(case, tmp_path)
    assert route.call_count == 1
    assert budget(tmp_path).committed == 0


@pytest.mark.parametrize("headers", [{"retry-after": "601"}, {"retry-after": "1", "x-should-retry": "false"}])
def test_a_wait_that_is_too_long_or_useless_is_not_begun(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, headers: dict[str, str]
) -> None:
    """The item fails at once, named; nobody sleeps for an hour."""
    route = httpx2_mock.post(case.url).respond(429, json=dict(case.error), headers=headers)
    said = ask(case, tmp_path)
    assert isinstance(said, Failure) and said.kind == "rate_limited"
    assert route.call_count == 1


@pytest.mark.parametrize(("year", "calls"), [(2001, 2), (2999, 1)])
def test_a_retry_date_is_a_wait(case: Case, tmp_path: Path, httpx2_mock: respx.Router, year: int, calls: int) -> None:
    """Retry-After may be a date: one that has passed asks for nothing, one far away for too much."""
    date = {"retry-after": f"Tue, 01 Jan {year} 00:00:00 GMT"}
    refusal = httpx.Response(429, json=dict(case.error), headers=date)
    route = httpx2_mock.post(case.url).mock(side_effect=[refusal, httpx.Response(200, json=case.body())])
    ask(case, tmp_path)
    assert route.call_count == calls


def test_a_key_reaches_no_file_and_no_message(
    case: Case,
    tmp_path: Path,
    httpx2_mock: respx.Router,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even where the provider echoes it in errors and answers; everything that a faulty run wrote is searched."""
    for name in (anthropic.KEY, openai.KEY):
        monkeypatch.setenv(name, SECRET)
    echo = {"error": {"type": "e", "message": f"your key {SECRET} is odd"}}
    echoes: list[Any] = [httpx.Response(status, json=echo) for status in (429, 500, 529)]
    echoes += [httpx2.ReadError("reset"), httpx.Response(200, json=case.body(f"you sent {SECRET}"))]
    httpx2_mock.post(case.url).mock(
        side_effect=[*echoes, httpx.Response(400, json=echo), httpx.Response(401, json=echo)]
    )
    caplog.set_level("DEBUG")

    async def main() -> list[str]:
        said: list[str] = []
        store, providers = tmp_path / "answers.sqlite", make_providers([case.model])
        async with Client.open(store, run="run", cap_nano=None, providers=providers, sleep=no_sleep) as client:
            for user in "abc":
                try:
                    said.append(repr(await client.answer(request(user, model=case.model))))
                except Refused as stop:
                    said.append(repr(stop))
        return said

    said = asyncio.run(main())
    assert [one.partition("(")[0] for one in said] == ["Reply", "Failure", "Refused"]
    with read_store(tmp_path) as store:
        bodies = [zlib.decompress(body) for (body,) in store._connection.execute("SELECT body FROM answer")]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert bodies and files
    texts = [*said, caplog.text]
    assert not [one for one in [*bodies, *files, *(text.encode() for text in texts)] if SECRET.encode() in one]


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
