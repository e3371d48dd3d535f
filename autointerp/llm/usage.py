"""Tokens as a provider reports them."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

from autointerp.llm.provider import Body
from autointerp.records.call import Usage

Flavor: TypeAlias = Literal["default", "chat"]
"""How genai-prices names Anthropic's form and that of Chat Completions."""


def reported_usage(body: Body, provider: str, flavor: Flavor) -> Usage | None:
    """Tokens as `body` reports them, or None; `provider` and `flavor` as genai-prices names them.

    Reports of whole numbers, as all usual ones are, are read here: genai-prices takes ten times as long, as long as
    everything else that an answer needs. Whatever else is said, it reads.
    """
    said = body.get("usage")
    usage: Usage | None = None
    if isinstance(said, dict) and _is_whole(said := cast(Body, said)):
        usage = _messages(said) if flavor == "default" else _chat(said)
    return usage or extracted_usage(body, provider, flavor)


def extracted_usage(body: Body, provider: str, flavor: Flavor) -> Usage | None:
    """The same as genai-prices reads it."""
    from genai_prices import extract_usage

    reported: Mapping[str, Any] = {"usage": body.get("usage")}
    try:
        usage = extract_usage(reported, provider_id=provider, api_flavor=flavor).usage
    except (ValueError, LookupError):
        return None
    return Usage(
        input_tokens=int(usage.input_tokens or 0),
        cache_read_tokens=int(usage.cache_read_tokens or 0),
        cache_write_tokens=int(usage.cache_write_tokens or 0),
        output_tokens=int(usage.output_tokens or 0),
    )


def _is_whole(said: Body) -> bool:
    """Whether all that is reported is names, nothing, and numbers of tokens from 0."""
    for value in said.values():
        if type(value) is int:
            if value < 0:
                return False
        elif isinstance(value, dict):
            if not _is_whole(cast(Body, value)):
                return False
        elif value is not None and not isinstance(value, str):
            return False
    return True


def _messages(said: Body) -> Usage | None:
    """Anthropic's report, whose input leaves out what was cached; None where a number is not where it should be."""
    names = "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens"
    if (numbers := _numbers(said, *names)) is None:
        return None
    plain, cache_read, cache_write, written = numbers
    return Usage(plain + cache_read + cache_write, cache_read, cache_write, written)


def _chat(said: Body) -> Usage | None:
    """OpenAI's report, whose input has everything; None where a number is not where it should be."""
    details = said.get("prompt_tokens_details") or {}
    cached = {"cached_tokens": 0, "cache_write_tokens": 0, **(details if isinstance(details, dict) else {})}
    names = "prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens"
    numbers = _numbers(said | cached, *names)
    return Usage(*numbers) if numbers else None


def _numbers(said: Body, *names: str) -> list[int] | None:
    numbers = [value for name in names if type(value := said.get(name)) is int]
    return numbers if len(numbers) == len(names) else None
