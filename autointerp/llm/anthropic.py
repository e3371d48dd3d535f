"""Claude models, by the Messages API."""

import json
import ssl
from typing import TYPE_CHECKING

from autointerp.llm.faults import malformed
from autointerp.llm.provider import (
    TIMEOUT,
    Answer,
    Body,
    Sent,
    Status,
    error_inside,
    model_name,
)
from autointerp.llm.sdk import SdkProvider
from autointerp.llm.usage import reported_usage
from autointerp.records.call import Request

if TYPE_CHECKING:
    import anthropic

KEY = "ANTHROPIC_API_KEY"
URL = "ANTHROPIC_BASE_URL"
DEFAULT_URL = "https://api.anthropic.com"
_CUT_OFF = ("max_tokens", "model_context_window_exceeded")


def connect(
    key: str | None, base_url: str, timeout: float, tls: "ssl.SSLContext | None" = None
) -> "anthropic.AsyncAnthropic":
    """A client of the SDK, its own retries off."""
    from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient

    http = DefaultAsyncHttpxClient(verify=tls) if tls else None
    return AsyncAnthropic(api_key=key, base_url=base_url, max_retries=0, timeout=timeout, http_client=http)


def marked(body: Body) -> Body:
    """`body` with its system text marked for prompt caching, which changes the price and not the answer."""
    if "system" not in body:
        return body
    return body | {"system": [{"type": "text", "text": body["system"], "cache_control": {"type": "ephemeral"}}]}


class AnthropicProvider(SdkProvider):
    """Sends with the official SDK, its own retries off. No temperature: the API no longer has one."""

    REQUEST_ID = "request-id"

    def __init__(self, key: str | None, base_url: str = DEFAULT_URL, timeout: float = TIMEOUT) -> None:
        super().__init__(key, base_url, timeout)

    def _connect(self, tls: ssl.SSLContext) -> "anthropic.AsyncAnthropic":
        return connect(self._key, self._base_url, self._timeout, tls)

    def render(self, request: Request) -> Body:
        """Everything that is sent and can change the answer."""
        body: Body = {
            "model": model_name(request),
            "max_tokens": request.max_tokens,
            "messages": [{"role": "user", "content": request.user}],
        }
        if request.system:
            body["system"] = request.system
        output: Body = {}
        if request.schema:
            output["format"] = {"type": "json_schema", "schema": json.loads(request.schema)}
        match request.thinking:
            case "off":
                body["thinking"] = {"type": "disabled"}
            case "between_tools":
                body["thinking"] = {"type": "between_tools"}
            case "least":
                output["effort"] = "low"
            case "free":
                pass
        return body | {"output_config": output} if output else body

    async def send(self, request: Request) -> Sent:
        """Send once, the system block marked for prompt caching. Raises `Fault`."""
        return await self._post("/v1/messages", marked(self.render(request)))

    def read(self, body: Body) -> Answer:
        """What `body` says. Raises `Fault` where it says nothing."""
        if fault := error_inside(body):
            raise fault
        content, stop = body.get("content"), body.get("stop_reason")
        if not isinstance(content, list):
            raise malformed("no content")
        text = "".join(str(block.get("text", "")) for block in content if block.get("type") == "text")
        status: Status = "answered" if text.strip() else "empty"
        if stop in _CUT_OFF:
            status = "truncated"
        elif stop == "refusal":
            status, text = "refusal", str((body.get("stop_details") or {}).get("category") or text or "no reason given")
        return Answer(status, text, reported_usage(body, "anthropic", "default"), str(body.get("model", "")))

    def _api_error(self) -> type[Exception]:
        from anthropic import APIError

        return APIError
