"""Both providers as the tests see them, and one request through the whole client."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autointerp.llm import anthropic, openai
from autointerp.llm.client import Client
from autointerp.llm.provider import Provider
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Failure
from tests.autointerp.llm_parts import no_sleep, request

SECRET = "unmistakable-secret-9876543210"


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


async def _ask(case: Case, folder: Path, asked: Request, sleep: Any) -> Reply | Failure:
    store = folder / "answers.sqlite"
    async with Client.open(
        store, run="run", cap_nano=10**9, providers={case.model: case.provider}, sleep=sleep
    ) as client:
        return await client.answer(asked)


def ask(case: Case, folder: Path, *, sleep: Any = no_sleep, **changes: Any) -> Reply | Failure:
    """One request through the whole client."""
    return asyncio.run(_ask(case, folder, request(model=case.model, **changes), sleep))
