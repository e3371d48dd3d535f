"""OpenAI's models and any server that speaks Chat Completions."""

import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from autointerp.llm.faults import malformed, sdk_fault
from autointerp.llm.provider import (
    TIMEOUT,
    Answer,
    Body,
    Sent,
    Status,
    address_of,
    error_inside,
    model_name,
    parse_body,
    reported_usage,
)
from autointerp.records.call import Request

if TYPE_CHECKING:
    import openai

KEY = "OPENAI_API_KEY"
URL = "OPENAI_BASE_URL"
DEFAULT_URL = "https://api.openai.com/v1"
_NEW_LIMIT = re.compile(r"(ft:)?(gpt-(?!oss)|o\d|chatgpt)")
"""Models that only know `max_completion_tokens`; other servers may only know the older `max_tokens`."""


class OpenAIProvider:
    """Sends with the official SDK, its own retries off."""

    def __init__(self, key: str | None, base_url: str = DEFAULT_URL, timeout: float = TIMEOUT) -> None:
        self.address = address_of(base_url)
        self._key, self._base_url, self._timeout = key, base_url, timeout

    @cached_property
    def _client(self) -> "openai.AsyncOpenAI":
        from openai import AsyncOpenAI

        return AsyncOpenAI(api_key=self._key, base_url=self._base_url, max_retries=0, timeout=self._timeout)

    def render(self, request: Request) -> Body:
        """Everything that is sent and can change the answer."""
        name = model_name(request)
        messages = [{"role": "system", "content": request.system}] if request.system else []
        body: Body = {
            "model": name,
            "messages": [*messages, {"role": "user", "content": request.user}],
            "max_completion_tokens" if _NEW_LIMIT.match(name) else "max_tokens": request.max_tokens,
        }
        if request.schema:
            schema = {"name": "answer", "strict": True, "schema": json.loads(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    async def send(self, request: Request) -> Sent:
        """Send once. Raises `Fault`."""
        from openai import APIError

        body: dict[str, Any] = self.render(request)
        if self.address == address_of(DEFAULT_URL):
            body["service_tier"] = "default"  # a project set to the priority tier would pay twice what was reserved
        try:
            raw = await self._client.chat.completions.with_raw_response.create(**body)
        except APIError as error:
            raise sdk_fault(error) from None
        return Sent(parse_body(raw.text), raw.headers.get("x-request-id", ""))

    def read(self, body: Body) -> Answer:
        """What `body` says. Raises `Fault` where it says nothing."""
        if fault := error_inside(body):
            raise fault
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0].get("message"), dict):
            raise malformed("no choices")
        message, stop = choices[0]["message"], choices[0].get("finish_reason")
        text = str(message.get("content") or "")
        status: Status = "answered" if text.strip() else "empty"
        if message.get("refusal") or stop == "content_filter":
            status, text = "refusal", str(message.get("refusal") or stop)
        elif stop == "length":
            status = "truncated"
        return Answer(status, text, reported_usage(body, "openai", "chat"), str(body.get("model", "")))

    async def aclose(self) -> None:
        """Close connections."""
        if "_client" in self.__dict__:
            await self._client.close()
