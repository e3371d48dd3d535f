"""The server that stands in for the providers, spoken to by their real SDKs."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anthropic
import openai
import pytest

from tests.servers.faults import BAD_ANSWERS, Lots, even
from tests.servers.limit import RateLimit
from tests.servers.loopback import Server, launch, request_hash, serve
from tests.servers.replies import OTHER_MODEL

T = TypeVar("T")
CLAUDE, GPT = "claude-haiku-5-5", "gpt-6-luna"


def as_claude(url: str, talk: Callable[[anthropic.AsyncAnthropic], Awaitable[T]]) -> T:
    """What `talk` finds out with Anthropic's SDK; its retries are off."""

    async def main() -> T:
        async with anthropic.AsyncAnthropic(api_key="x", base_url=url, max_retries=0) as client:
            return await talk(client)

    return asyncio.run(main())


def as_gpt(url: str, talk: Callable[[openai.AsyncOpenAI], Awaitable[T]]) -> T:
    """The same with OpenAI's."""

    async def main() -> T:
        async with openai.AsyncOpenAI(api_key="x", base_url=f"{url}/v1", max_retries=0) as client:
            return await talk(client)

    return asyncio.run(main())


def asked(text: str = "hello") -> dict[str, Any]:
    """The body of a Messages call; a Chat Completion's has another model."""
    return {"model": CLAUDE, "max_tokens": 20, "messages": [{"role": "user", "content": text}]}


def test_messages_and_token_counts(tmp_path: Path) -> None:
    """An answer with usage, and a bill of what the usage costs."""

    async def talk(client: anthropic.AsyncAnthropic) -> tuple[Any, int]:
        counted = await client.messages.count_tokens(model=CLAUDE, messages=asked()["messages"])
        return await client.messages.create(**asked()), counted.input_tokens

    with serve(bill=tmp_path / "bill") as server:
        said, counted = as_claude(server.url, talk)
    assert (said.model, said.stop_reason, said.usage.input_tokens) == (CLAUDE, "end_turn", counted)
    nano = 100 * said.usage.input_tokens + 500 * said.usage.output_tokens
    assert server.billed() == [{"request": request_hash(asked()), "model": CLAUDE, "nano": nano, "batch": False}]


def test_chat_and_responses_say_the_same_in_their_own_shapes(tmp_path: Path) -> None:
    """One text, two dialects, one price."""

    async def talk(client: openai.AsyncOpenAI) -> tuple[Any, Any]:
        chat = await client.chat.completions.create(model=GPT, messages=[{"role": "user", "content": "hello"}])
        return chat, await client.responses.create(model=GPT, input=[{"role": "user", "content": "hello"}])

    with serve(bill=tmp_path / "bill") as server:
        chat, response = as_gpt(server.url, talk)
    assert chat.choices[0].message.content == response.output_text
    assert chat.usage.prompt_tokens == response.usage.input_tokens > 0
    first, second = server.billed()
    assert first == second


@pytest.mark.parametrize("fault", BAD_ANSWERS)
def test_bad_answers_are_well_formed_and_billed(tmp_path: Path, fault: str) -> None:
    """Empty, cut, refused, of the wrong length, by another model: each as the provider would say it."""

    async def talk(client: openai.AsyncOpenAI) -> Any:
        return await client.chat.completions.create(model=GPT, messages=[{"role": "user", "content": "hello"}])

    with serve(bill=tmp_path / "bill", faults=[fault, "ok"]) as server:
        bad, good = (as_gpt(server.url, talk) for _ in range(2))
    assert len(server.billed()) == 2
    texts = [said.choices[0].message.content for said in (bad, good)]
    match fault:
        case "empty":
            assert texts[0] == ""
        case "truncated":
            assert bad.choices[0].finish_reason == "length" and texts[1].startswith(texts[0])
        case "refusal":
            assert bad.choices[0].message.refusal
        case "wrong-length":
            assert len(texts[0]) > 400
        case "other-model":
            assert bad.model == OTHER_MODEL


@pytest.mark.parametrize(
    ("fault", "raised", "billed"),
    [
        ("429:7", anthropic.RateLimitError, 0),
        ("500", anthropic.InternalServerError, 0),
        ("529", anthropic.InternalServerError, 0),
        ("reset", anthropic.APIConnectionError, 0),
        ("reset-billed", anthropic.APIConnectionError, 1),
        ("cut", anthropic.APIConnectionError, 1),
        ("malformed", ValueError, 1),
        ("slow", None, 1),
    ],
)
def test_faults_of_the_network(tmp_path: Path, fault: str, raised: type[Exception] | None, billed: int) -> None:
    """The SDK meets each as its own exception; only what was answered is billed."""

    async def talk(client: anthropic.AsyncAnthropic) -> Any:
        raw = await client.messages.with_raw_response.create(**asked())
        return json.loads(await raw.text())

    with serve(bill=tmp_path / "bill", faults=[fault], silence=0.01) as server:
        if raised is None:
            assert as_claude(server.url, talk)["model"] == CLAUDE
        else:
            with pytest.raises(raised) as error:
                as_claude(server.url, talk)
            if fault == "429:7":
                assert error.value.response.headers["retry-after"] == "7"  # type: ignore[attr-defined]
    assert len(server.billed()) == billed
    assert server.injected == {fault: 1}


def test_message_batches(tmp_path: Path) -> None:
    """Created, polled, listed and read; each item ends in its own way, answers at half price."""

    async def talk(client: anthropic.AsyncAnthropic) -> tuple[list[Any], Any]:
        requests: list[Any] = [{"custom_id": f"item-{i}", "params": asked(f"{i}")} for i in range(4)]
        made = [await client.messages.batches.create(requests=requests) for _ in range(3)]
        assert made[0].processing_status == "in_progress"
        server.batch_seconds = 0.0
        ended = await client.messages.batches.retrieve(made[0].id)
        assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 2)
        listed = [batch.id async for batch in client.messages.batches.list(limit=2)]
        assert listed == [batch.id for batch in reversed(made)]
        return [line async for line in await client.messages.batches.results(made[0].id)], ended

    faults = ["ok", "expired", "errored", "truncated"]
    with serve(bill=tmp_path / "bill", batch_faults=faults, batch_seconds=math.inf) as server:
        lines, _ = as_claude(server.url, talk)
        assert [line.result.type for line in lines] == ["succeeded", "expired", "errored", "succeeded"]
        assert lines[3].result.message.stop_reason == "max_tokens"
        usage = lines[0].result.message.usage
    assert usage.service_tier == "batch"
    assert server.billed()[0]["nano"] == 50 * usage.input_tokens + 250 * usage.output_tokens


def test_a_batch_can_be_canceled(tmp_path: Path) -> None:
    """Before it is due; nothing is billed."""

    async def talk(client: anthropic.AsyncAnthropic) -> list[str]:
        made = await client.messages.batches.create(requests=[{"custom_id": "a", "params": asked()}])  # type: ignore[list-item]
        await client.messages.batches.cancel(made.id)
        return [line.result.type async for line in await client.messages.batches.results(made.id)]

    with serve(bill=tmp_path / "bill", batch_seconds=math.inf) as server:
        assert as_claude(server.url, talk) == ["canceled"]
    assert not server.billed()


def test_openai_batches(tmp_path: Path) -> None:
    """A file of requests becomes a file of answers and one of errors; a batch is found again by its metadata."""
    body = asked() | {"model": GPT}
    requests = [{"custom_id": f"{i}", "method": "POST", "url": "/v1/chat/completions", "body": body} for i in range(3)]
    content = "\n".join(json.dumps(each) for each in requests).encode()

    async def talk(client: openai.AsyncOpenAI) -> tuple[Any, str, str]:
        file = await client.files.create(file=("in.jsonl", content), purpose="batch")
        with pytest.raises(openai.APIConnectionError):
            await client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"submission": "s"},
            )
        [found] = [each async for each in client.batches.list() if each.metadata == {"submission": "s"}]
        assert found.output_file_id and found.error_file_id
        files = [(await client.files.content(name)).text for name in (found.output_file_id, found.error_file_id)]
        return found, *files

    with serve(
        bill=tmp_path / "bill", faults=["ok", "reset-billed"], batch_faults=["ok", "expired", "errored"]
    ) as server:
        batch, output, errors = as_gpt(server.url, talk)
    assert (batch.status, batch.request_counts.total, batch.request_counts.completed) == ("expired", 3, 1)
    assert json.loads(output)["response"]["body"]["object"] == "chat.completion"
    first, second = map(json.loads, errors.splitlines())
    assert first["error"]["code"] == "batch_expired" and second["response"]["status_code"] == 500
    assert [line["batch"] for line in server.billed()] == [True]


def test_log_probabilities_of_a_prompt() -> None:
    """Aligned lists, none for the first token, distributions that sum to at most one, the same in both forms."""
    prompt = "the cat\t0\n sat\t7\n"

    async def talk(client: openai.AsyncOpenAI) -> Any:
        more = {"prompt_logprobs": 3}
        return await client.completions.create(
            model="fake", prompt=prompt, echo=True, logprobs=3, max_tokens=0, extra_body=more
        )

    with serve() as server:
        [choice] = as_gpt(server.url, talk).choices
    found = choice.logprobs
    assert "".join(found.tokens) == choice.text == prompt
    assert all(prompt[at:].startswith(token) for token, at in zip(found.tokens, found.text_offset, strict=True))
    assert found.token_logprobs[0] is found.top_logprobs[0] is choice.prompt_logprobs[0] is None
    triples = zip(found.tokens[1:], found.token_logprobs[1:], found.top_logprobs[1:], strict=True)
    for (token, value, top), other in zip(triples, choice.prompt_logprobs[1:], strict=True):
        assert top[token] == value < 0
        assert sum(map(math.exp, top.values())) <= 1
        assert {each["decoded_token"]: each["logprob"] for each in other.values()} == top


def test_the_rate_limit_is_announced_and_kept() -> None:
    """So many calls in any window; then 429 with Retry-After, and the headers say so."""

    async def talk(client: anthropic.AsyncAnthropic) -> list[str]:
        said = []
        for _ in range(3):
            raw = await client.messages.with_raw_response.create(**asked())
            said.append(raw.headers["anthropic-ratelimit-requests-remaining"])
        with pytest.raises(anthropic.RateLimitError) as error:
            await client.messages.create(**asked())
        return [*said, error.value.response.headers["retry-after"]]

    with serve(limit=RateLimit(requests=3)) as server:
        assert as_claude(server.url, talk) == ["2", "1", "0", "60"]
    assert server.limited == 1


def test_a_cached_prompt_is_cheaper(tmp_path: Path) -> None:
    """Written once, then read."""
    system: Any = [{"type": "text", "text": "long " * 1000, "cache_control": {"type": "ephemeral"}}]

    async def talk(client: anthropic.AsyncAnthropic) -> list[Any]:
        return [(await client.messages.create(**asked(), system=system)).usage for _ in range(2)]

    with serve(bill=tmp_path / "bill", caching=True) as server:
        first, second = as_claude(server.url, talk)
    assert first.cache_creation_input_tokens == second.cache_read_input_tokens > 1000
    assert first.input_tokens == second.input_tokens
    assert server.billed()[1]["nano"] < server.billed()[0]["nano"] / 5


def test_lots_do_not_depend_on_the_order_of_requests() -> None:
    """So that a run with faults can be repeated at any concurrency, with the shares that were asked for."""
    names = [f"request {i}" for i in range(2000)]
    forth, back = Lots(even(0.3), 1), Lots(even(0.3), 1)
    drawn = {name: forth.draw(name) for name in names}
    assert drawn == {name: back.draw(name) for name in reversed(names)}
    assert sum(fault != "ok" for fault in drawn.values()) / len(names) == pytest.approx(0.3, abs=0.03)


def test_as_a_process(tmp_path: Path) -> None:
    """It serves many calls at once, and its bill and log have each of them."""
    bill, log = tmp_path / "bill", tmp_path / "log"

    async def talk(client: anthropic.AsyncAnthropic) -> set[str]:
        said = await asyncio.gather(*(client.messages.create(**asked(f"{i}")) for i in range(50)))
        return {each.model for each in said}

    with launch("--bill", bill, "--log", log, "--delay", "0.01") as url:
        assert as_claude(url, talk) == {CLAUDE}
    seen = Server(bill=bill, log=log)
    assert {line["request"] for line in seen.billed()} == {line["request"] for line in seen.requests()}
    assert len(seen.billed()) == len(seen.requests()) == 50
