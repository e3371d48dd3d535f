"""What the server answers, path by path."""

import asyncio
import json
from dataclasses import replace
from typing import Any

from tests.servers.answers import request_hash, sent_text, wrong_length
from tests.servers.batches import Batches
from tests.servers.bill import Bill, Tokens, price
from tests.servers.completions import completion
from tests.servers.faults import BROKEN
from tests.servers.replies import chat, count, messages, refused_thinking, responses
from tests.servers.state import Server
from tests.servers.wire import RESET, Incoming, Outgoing, as_json

STATUS = "/loopback"
"""Where the server says what it has seen, as JSON."""
_COMPLETIONS = "/v1/completions"
_REPLIES = {"/v1/messages": messages, "/v1/chat/completions": chat, "/v1/responses": responses}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_CACHED_TOKENS = 1024
"""Shortest prefix that OpenAI caches."""


class App:
    """Handles requests for `state`."""

    def __init__(self, state: Server) -> None:
        self._state = state
        self._bill = Bill(state.bill)
        self._batches = Batches(state, self._answer_item)
        self._cached: set[str] = set()

    async def handle(self, request: Incoming) -> Outgoing:
        """The reply, and what befalls it."""
        self._state.in_flight += 1
        try:
            return await self._handle(request)
        finally:
            self._state.in_flight -= 1

    async def _handle(self, request: Incoming) -> Outgoing:
        state = self._state
        if request.path == STATUS:
            return as_json({"calls": state.calls, "limited": state.limited, "injected": state.injected})
        answers = request.method == "POST" and request.path in (*_REPLIES, _COMPLETIONS)
        body: dict[str, Any] = json.loads(request.content) if answers else {}
        fault = state.next_fault(request_hash(body) if answers else f"{request.method} {request.path}")
        wait = self._wait(body) if answers else 0.0
        if state.delay:
            await asyncio.sleep(state.delay)
        status, _, seconds = fault.partition(":")
        if wait:
            reply = _refuse(429)
        elif status.isdigit():
            key = request.headers.get("authorization") or request.headers.get("x-api-key", "")
            headers = {"retry-after": seconds} if seconds else {}
            reply = _refuse(int(status), headers, said=f" to {key}" if state.echo else "")
        elif fault == "reset":
            return RESET
        elif answers and state.context is not None and (longer := _length(body)) > state.context:
            reply = _refuse(400, said=f": maximum context length is {state.context} tokens, not {longer}")
        elif answers and (way := refused_thinking(body, state.thinking)):
            reply = _refuse(400, said=f": thinking or reasoning effort {way!r} is not supported by this model")
        else:
            reply = await self._reply(request, body, "ok" if fault in BROKEN else fault)
        if answers and state.limit is not None:
            said = state.limit.headers(anthropic=request.path == "/v1/messages", wait=wait)
            reply = replace(reply, headers={**reply.headers, **said})
        return _befall(reply, fault)

    def _wait(self, body: dict[str, Any]) -> float:
        """Seconds until the rate limit lets the call through; 0 where it does now."""
        if self._state.limit is None:
            return 0.0
        wait = self._state.limit.admit(_length(body))
        self._state.limited += wait > 0
        return wait

    async def _reply(self, request: Incoming, body: dict[str, Any], fault: str) -> Outgoing:
        name = {"request-id": f"req_{self._state.calls}", "x-request-id": f"req_{self._state.calls}"}
        if request.path == _COMPLETIONS:
            said, tokens = completion(body)
            await self._charge(body, tokens)
            return as_json(said, headers=name)
        if body:
            return as_json(await self._answer(request.path, body, fault), headers=name)
        if request.path == "/v1/messages/count_tokens":
            return as_json({"input_tokens": count(json.loads(request.content)).read}, headers=name)
        return await self._batches.handle(request) or _refuse(404)

    async def _answer_item(self, path: str, body: dict[str, Any], fault: str) -> dict[str, Any]:
        return await self._answer(path, body, fault, batch=True)

    async def _answer(self, path: str, body: dict[str, Any], fault: str, *, batch: bool = False) -> dict[str, Any]:
        text = "" if fault == "empty" else self._state.answers(body)
        text = wrong_length(text) if fault == "wrong-length" else text
        tokens, prefix = self._through_cache(path, body, count(body, text))
        await self._charge(body, tokens, batch=batch)
        self._cached.add(prefix)
        return _REPLIES[path](body, text, fault, tokens, batch=batch)

    def _through_cache(self, path: str, body: dict[str, Any], tokens: Tokens) -> tuple[Tokens, str]:
        """`tokens` with what was, or now will be, cached; and the prefix, which is there once it has been answered."""
        prefix = sent_text(
            {"system": body["system"]} if "system" in body else {"messages": body.get("messages", [])[:1]}
        )
        size = len(prefix) // 4
        anthropic = path == "/v1/messages"
        marked = "cache_control" in prefix if anthropic else size >= _CACHED_TOKENS
        if not self._state.caching or not marked:
            return tokens, prefix
        if prefix in self._cached:
            return replace(tokens, cache_read=size), prefix
        return replace(tokens, cache_write=size if anthropic else 0), prefix

    async def _charge(self, body: dict[str, Any], tokens: Tokens, *, batch: bool = False) -> None:
        nano = price(body["model"], tokens, batch=batch)
        await self._bill.charge(request_hash(body), body["model"], nano, batch=batch)


def _length(body: dict[str, Any]) -> int:
    """Tokens of a prompt and the room for its answer."""
    return count(body).read + (body.get("max_tokens") or body.get("max_completion_tokens") or 0)


def _befall(reply: Outgoing, fault: str) -> Outgoing:
    match fault:
        case "reset-billed":
            return RESET
        case "cut" | "slow":
            return replace(reply, how=fault)
        case "malformed":
            return replace(reply, content=b'{"id": "cut of')
        case _:
            return reply


def _refuse(status: int, headers: dict[str, str] | None = None, said: str = "") -> Outgoing:
    kind = _ERRORS.get(status, "api_error")
    error = {"type": kind, "code": kind, "message": f"injected {status}{said}"}
    return as_json({"type": "error", "error": error}, status, headers)
