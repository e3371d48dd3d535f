"""vLLM's ``/v1/completions``: the log-probabilities of a prompt under a model that is a hash."""

import hashlib
import math
import re
import zlib
from itertools import accumulate
from typing import Any

from tests.servers.bill import Tokens

_TOKEN = re.compile(r" ?[^\W\d_]+|.", re.DOTALL)
"""Words with the space before them; every digit and every other character by itself."""
_FIRST_DIGIT = 15
"""Number of the token ``0``, as in many vocabularies."""
_WORDS = 100_000


def tokenize(text: str) -> list[str]:
    """The tokens of `text`; together they are `text`."""
    return _TOKEN.findall(text)


def token_id(token: str) -> int:
    """The token's number in the vocabulary."""
    return _FIRST_DIGIT + int(token) if token in "0123456789" else 1000 + zlib.crc32(token.encode()) % _WORDS


def distribution(before: bytes, token: str) -> dict[str, float]:
    """Log-probabilities after a context: the ten digits, and `token` where it is none; most likely first."""
    weights = {str(digit): 1 + byte for digit, byte in enumerate(hashlib.sha256(before).digest()[:10])}
    weights.setdefault(token, 1 + hashlib.sha256(before + token.encode()).digest()[0])
    total = sum(weights.values()) + 256
    ranked = sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))
    return {each: math.log(weight / total) for each, weight in ranked}


def contexts(tokens: list[str]) -> list[bytes]:
    """What stands before each token, as a hash."""
    before, found = hashlib.sha256(), list[bytes]()
    for token in tokens:
        found.append(before.digest())
        before.update(token.encode() + b"\0")
    return found


def completion(body: dict[str, Any]) -> tuple[dict[str, Any], Tokens]:
    """The reply and what it is billed for. Prompts are strings, or a list of them."""
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    choices = [_choice(body, prompt, index) for index, prompt in enumerate(prompts)]
    read = sum(len(tokenize(prompt)) for prompt in prompts)
    written = len(prompts) * body.get("max_tokens", 16)
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    name = {"id": "cmpl-loopback", "object": "text_completion", "created": 0, "model": body["model"]}
    return {**name, "choices": choices, "usage": usage}, Tokens(read, written)


def _choice(body: dict[str, Any], prompt: str, index: int) -> dict[str, Any]:
    shown = tokenize(prompt)
    tokens = list(shown)
    for _ in range(body.get("max_tokens", 16)):
        tokens.append(next(iter(distribution(contexts([*tokens, ""])[-1], "0"))))
    scored = [distribution(before, token) for before, token in zip(contexts(tokens), tokens, strict=True)]
    start = 0 if body.get("echo") else len(shown)
    choice: dict[str, Any] = {"index": index, "text": "".join(tokens[start:]), "finish_reason": "length"}
    top = body.get("logprobs")
    choice["logprobs"] = None if top is None else _logprobs(tokens, scored, start, top)
    if (top := body.get("prompt_logprobs")) is not None:
        pairs = zip(shown[1:], scored[1 : len(shown)], strict=True)
        choice["prompt_logprobs"] = [None, *(_numbered(token, after, top) for token, after in pairs)]
    return choice


def _logprobs(tokens: list[str], scored: list[dict[str, float]], start: int, top: int) -> dict[str, Any]:
    """The lists of the older API, aligned; the first token of a prompt has no context, so no value."""
    offsets = list(accumulate((len(token) for token in tokens[start:-1]), initial=0))
    pairs = list(enumerate(zip(tokens, scored, strict=True)))[start:]
    return {
        "tokens": tokens[start:],
        "token_logprobs": [after[token] if place else None for place, (token, after) in pairs],
        "top_logprobs": [_top(token, after, top) if place else None for place, (token, after) in pairs],
        "text_offset": offsets,
    }


def _top(token: str, after: dict[str, float], top: int) -> dict[str, float]:
    """The `top` most likely tokens (-1: all), and `token` where it is not among them."""
    most = list(after.items()) if top < 0 else list(after.items())[:top]
    return dict(most) | {token: after[token]}


def _numbered(token: str, after: dict[str, float], top: int) -> dict[str, Any]:
    ranks = {each: rank for rank, each in enumerate(after, start=1)}
    return {
        str(token_id(each)): {"logprob": value, "rank": ranks[each], "decoded_token": each}
        for each, value in _top(token, after, top).items()
    }
