"""OpenAI's models, by the Batch API: a file of requests up, a file of results down."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from autointerp.llm.batch_provider import RemoteBatch, as_faults, item_fault, never_run, read_lines
from autointerp.llm.faults import Fault, status_fault
from autointerp.llm.openai import connect
from autointerp.llm.provider import TIMEOUT, Body, Sent

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

_ENDPOINT = "/v1/chat/completions"
_PAGE = 100
_NAME = "submission"
_ENDED = ("completed", "expired", "cancelled")
_STATUS = {"token_limit_exceeded": 429, "rate_limit_exceeded": 429, "model_not_found": 404, "invalid_api_key": 401}
"""HTTP statuses of the errors for which a whole batch is refused after it was taken; any other is a 400."""


class OpenAIBatches:
    """Sends with the official SDK, its own retries off. One model per batch, as the API asks."""

    def __init__(self, key: str | None, base_url: str, timeout: float = TIMEOUT) -> None:
        self._key, self._base_url, self._timeout = key, base_url, timeout

    @cached_property
    def _client(self) -> "openai.AsyncOpenAI":
        return connect(self._key, self._base_url, self._timeout)

    async def submit(self, submission: str, bodies: Mapping[str, Body]) -> str:
        """Upload the requests, then make the batch, named by its metadata. Raises `Fault`."""
        from openai import APIError

        lines = [
            json.dumps({"custom_id": name, "method": "POST", "url": _ENDPOINT, "body": body}, ensure_ascii=False)
            for name, body in bodies.items()
        ]
        content = "\n".join(lines).encode() + b"\n"
        try:
            with as_faults(APIError):
                file = await self._client.files.create(file=(f"{submission}.jsonl", content), purpose="batch")
        except Fault as fault:
            raise replace(fault, billed=False) from None  # a file is not billed
        with as_faults(APIError):
            made = await self._client.batches.create(
                input_file_id=file.id, endpoint=_ENDPOINT, completion_window="24h", metadata={_NAME: submission}
            )
            return made.id

    async def status(self, remote: str) -> RemoteBatch:
        """How the batch stands. Raises `Fault`."""
        from openai import APIError, NotFoundError

        with as_faults(APIError):
            try:
                return _standing(await self._client.batches.retrieve(remote))
            except NotFoundError:
                return RemoteBatch(remote, "gone")

    async def results(self, remote: str) -> Sequence[tuple[str, Sent | Fault]]:
        """What an ended batch came to, by name: from its file of answers and its file of errors. Raises `Fault`."""
        from openai import APIError, NotFoundError

        with as_faults(APIError):
            try:
                batch = await self._client.batches.retrieve(remote)
                files = [file for file in (batch.output_file_id, batch.error_file_id) if file]
                texts = [(await self._client.files.content(file)).text for file in files]
            except NotFoundError:
                return []
        return [said for text in texts for said in read_lines(text, _result)]

    async def recent(self, since: float) -> Sequence[RemoteBatch]:
        """All batches that were made after `since`. Raises `Fault`."""
        from openai import APIError

        found: list[RemoteBatch] = []
        with as_faults(APIError):
            async for batch in self._client.batches.list(limit=_PAGE):  # newest first
                if batch.created_at < since:
                    break
                found.append(_standing(batch))
        return found

    async def aclose(self) -> None:
        """Close connections."""
        if "_client" in self.__dict__:
            await self._client.close()


def _standing(batch: "Batch") -> RemoteBatch:
    counts = batch.request_counts
    requests, done = (counts.total, counts.completed + counts.failed) if counts else (0, 0)
    name = (batch.metadata or {}).get(_NAME, "another")
    if batch.status == "failed":
        first = (batch.errors.data or [None])[0] if batch.errors else None
        code, message = (first.code or "", first.message or "") if first else ("", "no reason given")
        words = json.dumps({"code": code, "message": message})
        quota = code in ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
        fault = replace(status_fault(429 if quota else _STATUS.get(code, 400), {}, words), billed=False)
        return RemoteBatch(batch.id, "ended", requests, done, name, fault)
    return RemoteBatch(batch.id, "ended" if batch.status in _ENDED else "running", requests, done, name)


def _result(line: dict[str, Any]) -> tuple[str, Sent | Fault]:
    name, response, error = line["custom_id"], line.get("response"), line.get("error") or {}
    if response:
        body, status = response["body"], int(response["status_code"])
        if status == 200:
            return name, Sent(body, str(response.get("request_id") or ""))
        return name, item_fault(status, body.get("error") or body)
    code = str(error.get("code") or "")
    if "expired" in code:
        return name, never_run("expired")
    if "cancel" in code:
        return name, never_run("cancelled")
    return name, item_fault(500, error)
