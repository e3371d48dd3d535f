"""Which tokens of a text stand where it hides levels, and what was likely there instead."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from autointerp import notation
from autointerp.llm.faults import malformed
from autointerp.llm.provider import Answer, Body
from autointerp.records.call import Request, Usage

Slot: TypeAlias = dict[str, float] | None
"""Log-probability of each digit at a hidden level; None where nothing is known of them."""
DIGITS = "0123456789"


def slot_text(request: Request) -> str:
    """The one text that a model reads; its slots are the hidden levels of the `user` part."""
    return f"{request.system}\n\n{request.user}"


def slot_tokens(text: str, start: int, tokens: Sequence[str]) -> list[int | None]:
    """Index of the token that begins at each slot, a level that `text` hides after `start`; None where none does.

    `tokens` are the pieces of `text`. The n-th tab of the text is the n-th tab of the tokens: that holds too where a
    server writes the bytes of a split character, or a token that opens every text, in its own way. All are None where
    a level that `text` shows is no token by itself, since no distribution over next tokens then says what is shown.
    """
    tabs = [at for at, char in enumerate(text) if char == notation.TAB]
    before = [index for index, token in enumerate(tokens) for _ in range(token.count(notation.TAB))]
    whole = len(before) == len(tabs)
    slots: list[int | None] = []
    for at, index in zip(tabs, before if whole else tabs, strict=True):
        level = text[at + 1 : at + 2]
        alone = whole and tokens[index].endswith(notation.TAB) and index + 1 < len(tokens)
        follows = tokens[index + 1] if alone else ""
        if level != notation.HIDDEN:
            whole = whole and follows == level
        elif at >= start:
            slots.append(index + 1 if follows.startswith(level) else None)
    return slots if whole else [None] * len(slots)


def keep_digits(likely: Mapping[str, Any] | None) -> Slot:
    """The digits among the tokens that were `likely`, with their log-probabilities; None where there is none."""
    found = {token: value for token, value in (likely or {}).items() if token in DIGITS and len(token) == 1}
    return {token: float(value) for token, value in found.items() if _is_log_probability(value)} or None


def reduced(slots: Sequence[Slot], usage: Any, served: str) -> Body:
    """All that is stored of an answer."""
    return {"slots": list(slots), "usage": usage, "model": served}


def read_reduced(body: Body, usage: Usage | None) -> Answer:
    """The answer whose text is the list of slots as canonical JSON. Raises `Fault` where `body` is no reduced one."""
    if not isinstance(body.get("slots"), list):
        raise malformed("no slots")
    text = json.dumps(body["slots"], sort_keys=True, separators=(",", ":"))
    return Answer("answered", text, usage, str(body.get("model", "")))


def _is_log_probability(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
