"""A server that speaks Anthropic Messages and OpenAI Chat Completions over HTTP and keeps its own bill.

As a process, ``python -m tests.servers.loopback --port 0 --bill bill.jsonl``: prints its port, then serves until it is
killed. Inside a test, ``with serve(...) as server``. Point the SDKs at it with ``ANTHROPIC_BASE_URL=server.url`` and
``OPENAI_BASE_URL=server.url + "/v1"``.
"""

import argparse
import hashlib
import json
import math
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from genai_prices import Usage, calc_price

Answers = Callable[[dict[str, Any]], str]

SLOW_SECONDS = 0.5
"""How long a slow call stays silent before it is answered."""
_ITEM = re.compile(r"^item (\d+) \((\d+) tokens?\):", re.MULTILINE)
_STATUS_TEXT = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def default_answer(body: dict[str, Any]) -> str:
    """A deterministic answer of the form that the request's JSON schema asks for; plain words without a schema."""
    digest = hashlib.sha256(json.dumps(body.get("messages"), sort_keys=True).encode()).hexdigest()
    properties = (_schema(body) or {}).get("properties", {})
    if "explanation" in properties:
        return json.dumps({"explanation": f"tokens that remind of {digest[:8]}"})
    if "predictions" in properties:
        wanted = [(int(item), int(count)) for item, count in _ITEM.findall(_user_text(body))]
        return json.dumps({"predictions": [_levels(digest, item, count) for item, count in wanted]})
    return f"answer {digest[:8]}"


def _levels(digest: str, item: int, count: int) -> dict[str, Any]:
    stream = hashlib.shake_256(f"{digest} {item}".encode()).digest(count)
    return {"item": item, "levels": "".join(str(byte % 10) for byte in stream)}


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    anthropic = body.get("output_config", {}).get("format", {}).get("schema")
    return anthropic or body.get("response_format", {}).get("json_schema", {}).get("schema")


def _user_text(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


@dataclass
class Server:
    """A running server and what it has seen."""

    port: int = 0
    """Where it listens, on 127.0.0.1."""
    bill: Path | None = None
    """File to which every billed call is appended, durably."""
    answers: Answers = default_answer
    """The reply's text, from the request's body."""
    faults: list[str] = field(default_factory=list)
    """What befalls the next calls, one each, then nothing more: ``ok``, a status such as ``529``, ``429:2`` (with
    Retry-After), ``slow``, ``reset`` (before billing), ``reset-billed``, ``truncated``, ``refusal``, ``malformed``,
    ``empty``. All but statuses and ``reset`` are billed."""
    delay: float = 0.0
    """Seconds before every reply."""
    calls: int = 0
    """Requests received."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Guards `calls`, `faults` and the bill."""

    @property
    def url(self) -> str:
        """Base URL for Anthropic; OpenAI's has ``/v1`` after it."""
        return f"http://127.0.0.1:{self.port}"

    def billed(self) -> list[dict[str, Any]]:
        """Every billed call: ``request`` (hash of its body) and ``nano`` (nano-dollars)."""
        if self.bill is None or not self.bill.exists():
            return []
        return [json.loads(line) for line in self.bill.read_text().splitlines()]

    def next_fault(self) -> str:
        """What befalls the call that has just come in."""
        with self.lock:
            self.calls += 1
            return self.faults.pop(0) if self.faults else "ok"

    def charge(self, body: dict[str, Any], nano: int) -> None:
        """Write one line of the bill to the disk."""
        if self.bill is None:
            return
        line = json.dumps({"request": request_hash(body), "model": body["model"], "nano": nano})
        with self.lock, self.bill.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def request_hash(body: dict[str, Any]) -> str:
    """Names what was asked: the user's text and the model."""
    return hashlib.sha256(f"{body['model']} {_user_text(body)}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.server_state.next_fault()
        if self.server_state.delay:
            time.sleep(self.server_state.delay)
        status, _, seconds = fault.partition(":")
        if status.isdigit():
            self._refuse(int(status), seconds)
        elif fault == "reset":
            self._reset()
        elif self.path in ("/v1/messages", "/v1/chat/completions"):
            self._answer(body, fault)
        else:
            self._refuse(404, "")

    def _answer(self, body: dict[str, Any], fault: str) -> None:
        text = "" if fault == "empty" else self.server_state.answers(body)
        is_anthropic = self.path == "/v1/messages"
        sent = sum(len(json.dumps(body.get(part))) for part in ("system", "messages") if part in body)
        read, written = math.ceil(sent / 4), min(_limit(body), math.ceil(len(text) / 4))
        provider = "anthropic" if is_anthropic else "openai"
        self.server_state.charge(body, _price(provider, body["model"], read, written))
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        if fault == "reset-billed":
            self._reset()
        elif fault == "malformed":
            self._send(200, b'{"id": "cut of')
        else:
            reply = _messages if is_anthropic else _chat
            self._send(200, json.dumps(reply(body["model"], text, fault, read, written)).encode())

    def _refuse(self, status: int, retry_after: str) -> None:
        kind = _STATUS_TEXT.get(status, "api_error")
        headers = {"retry-after": retry_after} if retry_after else {}
        error = {"type": "error", "error": {"type": kind, "code": kind, "message": f"injected {status}"}}
        self._send(status, json.dumps(error).encode(), headers)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the client is gone
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):  # reset by us or by the client
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Nothing: the bill is the log."""


def _limit(body: dict[str, Any]) -> int:
    return body.get("max_tokens") or body.get("max_completion_tokens") or 10**9


def _price(provider: str, model: str, read: int, written: int) -> int:
    try:
        usage = Usage(input_tokens=read, output_tokens=written)
        return math.ceil(calc_price(usage, model, provider_id=provider).total_price * 10**9)
    except LookupError:
        return 0


def _messages(model: str, text: str, fault: str, read: int, written: int) -> dict[str, Any]:
    stops = {"truncated": "max_tokens", "refusal": "refusal"}
    return {
        "id": "msg_loopback",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text[: len(text) // 2] if fault == "truncated" else text}],
        "stop_reason": stops.get(fault, "end_turn"),
        "stop_details": {"type": "refusal", "category": "frontier_llm"} if fault == "refusal" else None,
        "stop_sequence": None,
        "usage": {"input_tokens": read, "output_tokens": written},
    }


def _chat(model: str, text: str, fault: str, read: int, written: int) -> dict[str, Any]:
    message = {
        "role": "assistant",
        "content": None if fault == "refusal" else text[: len(text) // 2] if fault == "truncated" else text,
        "refusal": "I cannot help with that." if fault == "refusal" else None,
    }
    finish = "length" if fault == "truncated" else "stop"
    return {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no fault of the server; everything else is."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def start(state: Server, port: int = 0) -> _HttpServer:
    """A bound server with `state`, not yet serving."""
    handler = type("Handler", (_Handler,), {"server_state": state})
    http = _HttpServer(("127.0.0.1", port), handler)
    state.port = http.server_address[1]
    return http


@contextmanager
def serve(
    *, bill: Path | None = None, answers: Answers = default_answer, faults: Sequence[str] = (), delay: float = 0.0
) -> Iterator[Server]:
    """A server in a thread of this process, for as long as the block lasts."""
    state = Server(bill=bill, answers=answers, faults=list(faults), delay=delay)
    http = start(state)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bill", type=Path)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--faults", default="", help="comma-separated, for the first calls")
    given = parser.parse_args()
    faults = [fault for fault in given.faults.split(",") if fault]
    state = Server(bill=given.bill, faults=faults, delay=given.delay)
    http = start(state, given.port)
    print(state.port, flush=True)  # noqa: T201
    http.serve_forever()


if __name__ == "__main__":
    main()
