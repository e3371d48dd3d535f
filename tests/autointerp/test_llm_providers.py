"""Both providers through their real SDKs: what is sent, and how every answer is read, over a mocked network."""

import asyncio
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import respx

from autointerp.llm import anthropic, openai
from autointerp.llm.catalog import make_providers
from autointerp.llm.client import Client
from autointerp.llm.provider import answer_key
from autointerp.llm.sdk import AT_ONCE, SdkProvider
from autointerp.records.call import Reply, Usage
from autointerp.records.explanation import Failure
from autointerp.seams import Refused
from tests.autointerp.llm_parts import SCHEMA, attempts, budget, no_sleep, read_store, request
from tests.autointerp.provider_cases import CASES, SECRET, Case, ask

USAGE = Usage(30, 10, 0, 7)


@pytest.fixture(params=CASES, ids=["anthropic", "openai"])
def case(request: pytest.FixtureRequest) -> Case:
    """Each provider in turn, with connections of its own."""
    chosen: Case = request.param
    return chosen.reopened()


def test_an_answer_is_read_with_its_usage(case: Case, tmp_path: Path, httpx2_mock: respx.Router) -> None:
    """Text without the thinking, tokens with the cached ones, the served model, the price of all that."""
    httpx2_mock.post(case.url).respond(json=case.body(), headers={case.request_id: "req_1"})
    said = ask(case, tmp_path)
    assert said == Reply("hello", USAGE, 20 * 100 + 10 * 10 + 7 * 500, "served", cached=False)
    with read_store(tmp_path) as store:
        assert store._connection.execute("SELECT request_id FROM answer").fetchall() == [("req_1",)]


def test_what_is_sent_to_anthropic(tmp_path: Path, httpx2_mock: respx.Router) -> None:
    """The schema as output format, the system block marked for caching, thinking off, no temperature."""
    case = CASES[0].reopened()
    route = httpx2_mock.post(case.url).respond(json=case.body())
    ask(case, tmp_path, system="be brief", schema=SCHEMA)
    assert json.loads(route.calls[0].request.content) == {
        "model": "claude-haiku-5-5",
        "max_tokens": 10,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "hello"}],
        "output_config": {"format": {"type": "json_schema", "schema": json.loads(SCHEMA)}},
        "thinking": {"type": "disabled"},
    }


def test_what_is_sent_to_openai(tmp_path: Path, httpx2_mock: respx.Router) -> None:
    """The schema strictly, the new name of the limit, thinking off, the service tier whose price was reserved.

    Calls with the same instructions are sent to the same cache.
    """
    case = CASES[1].reopened()
    route = httpx2_mock.post(case.url).respond(json=case.body())
    ask(case, tmp_path, system="be brief", schema=SCHEMA)
    schema = {"name": "answer", "strict": True, "schema": json.loads(SCHEMA)}
    sent = json.loads(route.calls[0].request.content)
    assert len(sent.pop("prompt_cache_key")) == 32
    assert sent == {
        "model": "gpt-6-luna",
        "max_completion_tokens": 10,
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
        "response_format": {"type": "json_schema", "json_schema": schema},
        "service_tier": "default",
        "reasoning_effort": "none",
    }


def test_calls_with_the_same_instructions_name_the_same_cache(tmp_path: Path, httpx2_mock: respx.Router) -> None:
    """Which is no part of the key: the answer does not depend on it."""
    names: list[str] = []
    for number, system in enumerate(("be brief", "be brief", "be long")):
        case = CASES[1].reopened()
        route = httpx2_mock.post(case.url).respond(json=case.body())
        ask(case, tmp_path, user=f"{number}", system=system)
        names.append(json.loads(route.calls[-1].request.content)["prompt_cache_key"])
        assert "prompt_cache_key" not in case.provider.render(request(model=case.model, system=system))
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("gpt-6-luna", True),
        ("gpt-6.1-sol", True),
        ("gpt-5.4-mini", True),
        ("gpt-5.1-2025-11-13", True),
        ("gpt-5-mini", False),
        ("gpt-5.2-pro", False),
        ("gpt-5.3-chat-latest", False),
        ("gpt-5.1-codex", False),
        ("gpt-4o-mini", False),
        ("o4-mini", False),
    ],
)
def test_models_are_told_not_to_think_where_they_understand_it(model: str, *, told: bool) -> None:
    """OpenAI's own, at OpenAI; other models and servers would refuse the word. A request may allow thinking."""
    asked = request(model=f"openai/{model}")
    provider, elsewhere = openai.OpenAIProvider(None), openai.OpenAIProvider(None, "http://127.0.0.1:8000/v1")
    assert provider.render(asked).get("reasoning_effort") == ("none" if told else None)
    assert "reasoning_effort" not in provider.render(replace(asked, thinking="free"))
    assert provider.render(replace(asked, thinking="least")).get("reasoning_effort") == ("low" if told else None)
    assert "reasoning_effort" not in elsewhere.render(asked)


def test_claude_thinks_only_where_it_is_allowed_to() -> None:
    """By default it is told not to, because what it thinks counts against the answer's length."""
    provider, asked = anthropic.AnthropicProvider(None), request(model="anthropic/claude-haiku-5-5")
    assert provider.render(asked)["thinking"] == {"type": "disabled"}
    assert provider.render(replace(asked, thinking="between_tools"))["thinking"] == {"type": "between_tools"}
    least = provider.render(replace(asked, thinking="least"))
    assert "thinking" not in least and least["output_config"] == {"effort": "low"}
    free = replace(asked, thinking="free")
    assert not {"thinking", "output_config"} & provider.render(free).keys()
    assert answer_key(provider, asked) != answer_key(provider, free)


def test_many_calls_share_few_sdk_clients(httpx2_mock: respx.Router) -> None:
    """One for as many calls as it can serve quickly; all are closed in the end."""
    case = CASES[1].reopened()
    leave = asyncio.Event()

    async def slow(_: object) -> httpx.Response:
        await leave.wait()
        return httpx.Response(200, json=case.body())

    httpx2_mock.post(case.url).mock(side_effect=slow)
    provider = case.provider
    assert isinstance(provider, SdkProvider)

    async def main() -> None:
        calls = [asyncio.create_task(provider.send(request(model=case.model))) for _ in range(AT_ONCE + 1)]
        await asyncio.sleep(0)
        assert [each.in_flight for each in provider._connections] == [AT_ONCE, 1]
        leave.set()
        await asyncio.gather(*calls)
        await provider.send(request(model=case.model))
        assert [each.in_flight for each in provider._connections] == [0, 0]
        await provider.aclose()
        assert all(each.client.is_closed() for each in provider._connections)

    asyncio.run(main())


def test_other_servers_get_the_limit_under_its_old_name() -> None:
    """Not all know the new one, and a limit that is ignored bounds nothing."""
    local = openai.OpenAIProvider(None, "http://127.0.0.1:8000/v1")
    assert local.render(request(model="openai/Qwen/Qwen3-8B"))["max_tokens"] == 10
    assert local.render(request(model="openai/gpt-oss-20b"))["max_tokens"] == 10


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
