"""Claude models, by the Message Batches API."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from autointerp.llm.anthropic import connect, marked
from autointerp.llm.batch_provider import RemoteBatch, as_faults, item_fault, never_run, read_lines
from autointerp.llm.faults import Fault
from autointerp.llm.provider import TIMEOUT, Body, Sent

if TYPE_CHECKING:
    import anthropic
    from anthropic.types.messages import MessageBatch

_PAGE = 100
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""HTTP statuses of the errors that results carry by name; any other is a 500."""


class AnthropicBatches:
    """Sends with the official SDK, its own retries off. The API keeps no name of ours for a batch."""

    def __init__(self, key: str | None, base_url: str, timeout: float = TIMEOUT) -> None:
        self._key, self._base_url, self._timeout = key, base_url, timeout

    @cached_property
    def _client(self) -> "anthropic.AsyncAnthropic":
        return connect(self._key, self._base_url, self._timeout)

    async def submit(self, submission: str, bodies: Mapping[str, Body]) -> str:  # noqa: ARG002 - the API has no room
        """Send the batch, system blocks marked for prompt caching. Raises `Fault`."""
        from anthropic import APIError

        requests: list[Any] = [{"custom_id": name, "params": marked(body)} for name, body in bodies.items()]
        with as_faults(APIError):
            return (await self._client.messages.batches.create(requests=requests)).id

    async def status(self, remote: str) -> RemoteBatch:
        """How the batch stands; results are kept for 29 days. Raises `Fault`."""
        from anthropic import APIError, NotFoundError

        with as_faults(APIError):
            try:
                return _standing(await self._client.messages.batches.retrieve(remote))
            except NotFoundError:
                return RemoteBatch(remote, "gone")

    async def results(self, remote: str) -> Sequence[tuple[str, Sent | Fault]]:
        """What an ended batch came to, by name. Raises `Fault`."""
        from anthropic import APIError, NotFoundError

        with as_faults(APIError):
            try:
                raw = await self._client.messages.batches.with_raw_response.results(remote)
                return read_lines(await raw.text(), _result)
            except NotFoundError:
                return []

    async def recent(self, since: float) -> Sequence[RemoteBatch]:
        """All batches that were made after `since`. Raises `Fault`."""
        from anthropic import APIError

        found: list[RemoteBatch] = []
        with as_faults(APIError):
            async for batch in self._client.messages.batches.list(limit=_PAGE):  # newest first
                if batch.created_at.timestamp() < since:
                    break
                found.append(_standing(batch))
        return found

    async def aclose(self) -> None:
        """Close connections."""
        if "_client" in self.__dict__:
            await self._client.close()


def _standing(batch: "MessageBatch") -> RemoteBatch:
    counts = batch.request_counts
    done = counts.succeeded + counts.errored + counts.canceled + counts.expired
    requests = counts.processing + done
    if batch.processing_status != "ended":
        return RemoteBatch(batch.id, "running", requests, done)
    return RemoteBatch(batch.id, "ended" if batch.results_url else "gone", requests, done)


def _result(line: dict[str, Any]) -> tuple[str, Sent | Fault]:
    result = line["result"]
    match result["type"]:
        case "succeeded":
            return line["custom_id"], Sent(result["message"], str(result["message"].get("id", "")))
        case "expired":
            return line["custom_id"], never_run("expired")
        case "canceled":
            return line["custom_id"], never_run("cancelled")
        case _:
            error = result["error"].get("error") or result["error"]
            return line["custom_id"], item_fault(_STATUS.get(error.get("type"), 500), error)
