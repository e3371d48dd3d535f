"""Both providers' batch APIs: batches that end after a while, and the files that OpenAI's are made of."""

import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from tests.servers.replies import refused_thinking
from tests.servers.state import Server
from tests.servers.wire import Incoming, Outgoing, as_json

Answer = Callable[[str, dict[str, Any], str], Awaitable[dict[str, Any]]]
"""The billed reply to a body sent to a path, spoiled by a fault."""

_DAY = 24 * 3600
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME = re.compile(rb'name="([^"]*)"')
_FILE_NAME = re.compile(rb'filename="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Item:
    """One request of a batch."""

    custom_id: str
    path: str
    body: dict[str, Any]


@dataclass(slots=True)
class Batch:
    """Requests that are answered together, later."""

    id: str
    items: list[Item]
    made: float = field(default_factory=time.time)
    """Seconds since 1970."""
    state: Literal["in_progress", "ended", "canceled"] = "in_progress"
    given: Mapping[str, Any] = field(default_factory=dict)
    """OpenAI's other arguments."""
    ends: dict[str, str] = field(default_factory=dict)
    """What became of each item: ``succeeded``, ``errored``, ``expired`` or ``canceled``."""
    results: list[dict[str, Any]] = field(default_factory=list)
    """Anthropic's results."""
    files: dict[str, str] = field(default_factory=dict)
    """Ids of OpenAI's output and error file."""

    def counts(self) -> Counter[str]:
        """Items by what became of them."""
        return Counter(self.ends.values())


class Batches:
    """Every batch and file of a server. A batch that is due ends when it is next asked about."""

    def __init__(self, state: Server, answer: Answer) -> None:
        self._state, self._answer = state, answer
        self._messages: dict[str, Batch] = {}
        self._openai: dict[str, Batch] = {}
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._numbers = itertools.count(1)

    async def handle(self, request: Incoming) -> Outgoing | None:
        """The reply; None for a path that is of neither API."""
        for batch in (*self._messages.values(), *self._openai.values()):
            await self._advance(batch)
        parts = request.path.removeprefix("/v1/").split("/")
        match request.method, parts:
            case "POST", ["messages", "batches"]:
                return await self._create_messages(request)
            case "GET", ["messages", "batches"]:
                return self._page(request, self._messages, self._show_messages)
            case "GET" | "POST", ["messages", "batches", name, *more] if name in self._messages:
                return self._one_messages(self._messages[name], request.method, more)
            case "POST", ["files"]:
                return self._upload(request)
            case "GET", ["files", name] if name in self._files:
                return as_json(self._files[name][0])
            case "GET", ["files", name, "content"] if name in self._files:
                return Outgoing(200, self._files[name][1], {"content-type": "application/octet-stream"})
            case "POST", ["batches"]:
                return await self._create_openai(request)
            case "GET", ["batches"]:
                return self._page(request, self._openai, self._show_openai)
            case "GET", ["batches", name] if name in self._openai:
                return as_json(self._show_openai(self._openai[name]))
            case "POST", ["batches", name, "cancel"] if name in self._openai:
                self._cancel(self._openai[name])
                self._write_files(self._openai[name])
                return as_json(self._show_openai(self._openai[name]))
            case _:
                return None

    async def _create_messages(self, request: Incoming) -> Outgoing:
        given = json.loads(request.content)["requests"]
        names = [each["custom_id"] for each in given]
        if not names or len(set(names)) < len(names) or not all(map(_CUSTOM_ID.fullmatch, names)):
            error = {"type": "invalid_request_error", "message": "requests: custom_ids must be unique and well-formed"}
            return as_json({"type": "error", "error": error}, 400)
        items = [Item(each["custom_id"], "/v1/messages", each["params"]) for each in given]
        batch = Batch(f"msgbatch_{next(self._numbers)}", items)
        self._messages[batch.id] = batch
        shown = self._show_messages(batch)  # a batch never ends before it is shown to have begun
        await self._advance(batch)
        return as_json(shown)

    def _one_messages(self, batch: Batch, method: str, more: list[str]) -> Outgoing | None:
        match method, more:
            case "GET", []:
                return as_json(self._show_messages(batch))
            case "POST", ["cancel"]:
                self._cancel(batch)
                return as_json(self._show_messages(batch))
            case "GET", ["results"] if batch.state != "in_progress":
                lines = "".join(json.dumps(result) + "\n" for result in batch.results)
                return Outgoing(200, lines.encode(), {"content-type": "application/x-jsonl"})
            case _:
                return None

    def _show_messages(self, batch: Batch) -> dict[str, Any]:
        ended, counts = batch.state != "in_progress", batch.counts()
        kinds = ("succeeded", "errored", "canceled", "expired")
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": {kind: counts[kind] for kind in kinds}
            | {"processing": len(batch.items) - len(batch.ends)},
            "created_at": _date(batch.made),
            "expires_at": _date(batch.made + _DAY),
            "ended_at": _date(time.time()) if ended else None,
            "archived_at": None,
            "cancel_initiated_at": _date(time.time()) if batch.state == "canceled" else None,
            "results_url": f"{self._state.url}/v1/messages/batches/{batch.id}/results" if ended else None,
        }

    def _upload(self, request: Incoming) -> Outgoing:
        boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
        fields: dict[str, bytes] = {}
        file_name = "upload.jsonl"
        for part in request.content.split(b"--" + boundary)[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            if (name := _NAME.search(head)) is not None:
                fields[name[1].decode()] = content.removesuffix(b"\r\n")
            if (found := _FILE_NAME.search(head)) is not None:
                file_name = found[1].decode()
        return as_json(self._keep(fields["file"], file_name, fields["purpose"].decode()))

    def _keep(self, content: bytes, name: str, purpose: str) -> dict[str, Any]:
        shown = {
            "id": f"file-{next(self._numbers)}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self._files[str(shown["id"])] = shown, content
        return shown

    async def _create_openai(self, request: Incoming) -> Outgoing:
        given = json.loads(request.content)
        if given["input_file_id"] not in self._files:
            return as_json({"error": {"type": "invalid_request_error", "message": "No such file."}}, 400)
        lines = [json.loads(line) for line in self._files[given["input_file_id"]][1].splitlines() if line.strip()]
        items = [Item(line["custom_id"], line["url"], line["body"]) for line in lines]
        batch = Batch(f"batch_{next(self._numbers)}", items, given=given)
        self._openai[batch.id] = batch
        shown = self._show_openai(batch)
        await self._advance(batch)
        return as_json(shown)

    def _show_openai(self, batch: Batch) -> dict[str, Any]:
        counts, made, now = batch.counts(), int(batch.made), int(time.time())
        status = {"ended": "expired" if counts["expired"] else "completed", "canceled": "cancelled"}
        done = {"succeeded": "completed", "expired": "expired"}
        times = {"completed": "completed_at", "expired": "expired_at", "cancelled": "cancelled_at"}
        shown = status.get(batch.state, batch.state)
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.given["endpoint"],
            "input_file_id": batch.given["input_file_id"],
            "completion_window": batch.given["completion_window"],
            "metadata": batch.given.get("metadata"),
            "status": shown,
            "created_at": made,
            "in_progress_at": made,
            "expires_at": made + _DAY,
            "errors": None,
            "request_counts": {
                "total": len(batch.items),
                "completed": sum(counts[kind] for kind in done if kind == "succeeded"),
                "failed": len(batch.ends) - counts["succeeded"],
            },
            "output_file_id": batch.files.get("output"),
            "error_file_id": batch.files.get("error"),
            **({times[shown]: now} if shown in times else {}),
        }

    def _write_files(self, batch: Batch) -> None:
        """OpenAI's answers go to one file, everything else to the other; no file is empty."""
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for number, result in enumerate(batch.results):
            end, line = result["result"], {"id": f"batch_req_{number}", "custom_id": result["custom_id"]}
            match end["type"]:
                case "succeeded":
                    good.append(line | {"response": _response(200, end["message"]), "error": None})
                case "errored":
                    error = {"error": end["error"]["error"]}
                    status = 400 if error["error"]["type"] == "invalid_request_error" else 500
                    bad.append(line | {"response": _response(status, error), "error": None})
                case kind:
                    code = "batch_expired" if kind == "expired" else "batch_cancelled"
                    bad.append(line | {"response": None, "error": {"code": code, "message": f"This request {kind}."}})
        for kind, lines in (("output", good), ("error", bad)):
            if lines:
                content = "".join(json.dumps(line) + "\n" for line in lines).encode()
                batch.files[kind] = self._keep(content, f"{batch.id}_{kind}.jsonl", "batch_output")["id"]

    async def _advance(self, batch: Batch) -> None:
        """End `batch` if its time has come."""
        if batch.state != "in_progress" or time.time() < batch.made + self._state.batch_seconds:
            return
        batch.state = "ended"
        for item in batch.items:
            batch.results.append({"custom_id": item.custom_id, "result": await self._end(item)})
            batch.ends[item.custom_id] = batch.results[-1]["result"]["type"]
        if batch.given:
            self._write_files(batch)

    async def _end(self, item: Item) -> dict[str, Any]:
        if way := refused_thinking(item.body, self._state.thinking):
            error = {"type": "invalid_request_error", "message": f"thinking or effort {way!r} is not supported"}
            return {"type": "errored", "error": {"type": "error", "error": error, "request_id": None}}
        match self._state.next_item_fault(item.body):
            case "expired":
                return {"type": "expired"}
            case "errored":
                error = {"type": "api_error", "code": "api_error", "message": "injected"}
                return {"type": "errored", "error": {"type": "error", "error": error, "request_id": None}}
            case fault:
                return {"type": "succeeded", "message": await self._answer(item.path, item.body, fault)}

    def _cancel(self, batch: Batch) -> None:
        if batch.state == "in_progress":
            batch.state = "canceled"
            batch.ends = {item.custom_id: "canceled" for item in batch.items}
            batch.results = [{"custom_id": name, "result": {"type": "canceled"}} for name in batch.ends]

    def _page(self, request: Incoming, batches: dict[str, Batch], show: Callable[[Batch], dict[str, Any]]) -> Outgoing:
        """Newest first; the page after (before) a given id."""
        names = list(reversed(batches))
        limit = int(request.query.get("limit", "20"))
        after = request.query.get("after_id") or request.query.get("after")
        before = request.query.get("before_id")
        rest = names[names.index(after) + 1 :] if after in names else names
        rest = rest[: rest.index(before)][-limit:] if before in rest else rest
        page = rest[:limit]
        ends = {"first_id": page[0] if page else None, "last_id": page[-1] if page else None}
        data = [show(batches[name]) for name in page]
        return as_json({"object": "list", "data": data, "has_more": len(rest) > limit, **ends})


def _response(status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": "req_loopback", "body": body}


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
