"""OpenAI's models and any server that speaks Chat Completions."""

import hashlib
import json
import re
import ssl
from typing import TYPE_CHECKING, Any

from autointerp.llm.faults import malformed
from autointerp.llm.provider import (
    TIMEOUT,
    Answer,
    Body,
    Sent,
    Status,
    address_of,
    error_inside,
    model_name,
)
from autointerp.llm.sdk import SdkProvider
from autointerp.llm.usage import reported_usage
from autointerp.records.call import Request

if TYPE_CHECKING:
    import openai

KEY = "OPENAI_API_KEY"
URL = "OPENAI_BASE_URL"
DEFAULT_URL = "https://api.openai.com/v1"
_NEW_LIMIT = re.compile(r"(ft:)?(gpt-(?!oss)|o\d|chatgpt)")
"""Models that only know `max_completion_tokens`; other servers may only know the older `max_tokens`."""
_CAN_REST = re.compile(r"gpt-(5\.[1-9]|[6-9])(?!.*-(chat|codex|pro)\b)")
"""OpenAI's models that think, and can be told not to."""


def connect(
    key: str | None, base_url: str, timeout: float, tls: "ssl.SSLContext | None" = None
) -> "openai.AsyncOpenAI":
    """A client of the SDK, its own retries off."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    http = DefaultAsyncHttpxClient(verify=tls) if tls else None
    return AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=timeout, http_client=http)


class OpenAISdk(SdkProvider):
    """What all providers share that are called by this SDK."""

    REQUEST_ID = "x-request-id"

    def _connect(self, tls: ssl.SSLContext) -> "openai.AsyncOpenAI":
        return connect(self._key, self._base_url, self._timeout, tls)

    def _api_error(self) -> type[Exception]:
        from openai import APIError

        return APIError


class OpenAIProvider(OpenAISdk):
    """Sends with the official SDK, its own retries off."""

    def __init__(self, key: str | None, base_url: str = DEFAULT_URL, timeout: float = TIMEOUT) -> None:
        super().__init__(key, base_url, timeout)
        self._is_openai = self.address == address_of(DEFAULT_URL)

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
        if request.thinking != "free" and self._is_openai and _CAN_REST.match(name):
            body["reasoning_effort"] = "low" if request.thinking == "least" else "none"
        return body

    async def send(self, request: Request) -> Sent:
        """Send once, calls with the same instructions to where they are cached. Raises `Fault`."""
        body: dict[str, Any] = self.render(request)
        if self._is_openai:
            body["service_tier"] = "default"  # a project set to the priority tier would pay twice what was reserved
            body["prompt_cache_key"] = hashlib.sha256(request.system.encode()).hexdigest()[:32]
        return await self._post("/chat/completions", body)

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
