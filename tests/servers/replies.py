"""Answers in the providers' own shapes."""

import math
from collections.abc import Collection
from typing import Any

from tests.servers.answers import sent_text
from tests.servers.bill import Tokens

OTHER_MODEL = "another-model"
"""Who answers where another model is served."""


def count(body: dict[str, Any], text: str = "") -> Tokens:
    """Tokens of a call: four characters each, the answer cut at its limit."""
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens") or 10**9
    return Tokens(math.ceil(len(sent_text(body)) / 4), min(limit, math.ceil(len(text) / 4)))


def refused_thinking(body: dict[str, Any], allowed: Collection[str] | None) -> str:
    """The way in which `body` asks for less thinking, where it is not among those `allowed`; else nothing."""
    effort = body.get("reasoning_effort") or body.get("output_config", {}).get("effort")
    way = body.get("thinking", {}).get("type") or effort or ""
    return way if allowed is not None and way not in allowed else ""


def messages(body: dict[str, Any], text: str, fault: str, tokens: Tokens, *, batch: bool = False) -> dict[str, Any]:
    """Anthropic's Message."""
    stops = {"truncated": "max_tokens", "refusal": "refusal"}
    return {
        "id": "msg_loopback",
        "type": "message",
        "role": "assistant",
        "model": _served(body, fault),
        "content": [{"type": "text", "text": _said(text, fault)}],
        "stop_reason": stops.get(fault, "end_turn"),
        "stop_details": {"type": "refusal", "category": "frontier_llm"} if fault == "refusal" else None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": tokens.read - tokens.cache_read - tokens.cache_write,
            "cache_read_input_tokens": tokens.cache_read,
            "cache_creation_input_tokens": tokens.cache_write,
            "output_tokens": tokens.written,
            "service_tier": "batch" if batch else "standard",
        },
    }


def chat(body: dict[str, Any], text: str, fault: str, tokens: Tokens, *, batch: bool = False) -> dict[str, Any]:
    """OpenAI's ChatCompletion."""
    message = {
        "role": "assistant",
        "content": None if fault == "refusal" else _said(text, fault),
        "refusal": "I cannot help with that." if fault == "refusal" else None,
    }
    finish = "length" if fault == "truncated" else "stop"
    return {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "created": 0,
        "model": _served(body, fault),
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {
            "prompt_tokens": tokens.read,
            "completion_tokens": tokens.written,
            "total_tokens": tokens.read + tokens.written,
            "prompt_tokens_details": {"cached_tokens": tokens.cache_read},
        },
    }


def responses(body: dict[str, Any], text: str, fault: str, tokens: Tokens, *, batch: bool = False) -> dict[str, Any]:
    """OpenAI's Response."""
    said: dict[str, Any] = {"type": "output_text", "text": _said(text, fault), "annotations": []}
    if fault == "refusal":
        said = {"type": "refusal", "refusal": "I cannot help with that."}
    status = "incomplete" if fault == "truncated" else "completed"
    message = {"id": "msg_loopback", "type": "message", "role": "assistant", "status": status, "content": [said]}
    return {
        "id": "resp_loopback",
        "object": "response",
        "created_at": 0,
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if fault == "truncated" else None,
        "error": None,
        "model": _served(body, fault),
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": tokens.read,
            "input_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
            "output_tokens": tokens.written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens.read + tokens.written,
        },
    }


def _served(body: dict[str, Any], fault: str) -> str:
    return OTHER_MODEL if fault == "other-model" else body["model"]


def _said(text: str, fault: str) -> str:
    return text[: len(text) // 2] if fault == "truncated" else text
