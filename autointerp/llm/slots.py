"""Which tokens of a text stand where it hides levels, and what was likely there instead."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, islice
from operator import eq
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


def slot_tokens(
    text: str, start: int, tokens: Sequence[str], begins: Mapping[int, int] | None = None
) -> list[int | None]:
    """Index of the token that begins at each slot, a level that `text` hides after `start`; None where none does.

    `tokens` are the pieces of `text`; `begins` tells which of them begins at which place of it, and is found by
    `align` where it is not known. All are None where a level that `text` shows is no token by itself, since no
    distribution over next tokens then says what is shown.
    """
    begins = align(text, tokens) if begins is None else begins
    slots: list[int | None] = []
    for place in (at + 1 for at, char in enumerate(text) if char == notation.TAB):
        level, index = text[place : place + 1], begins.get(place)
        if level == notation.HIDDEN:
            if place > start:
                slots.append(index if index is not None and tokens[index].startswith(level) else None)
        elif index is None or tokens[index] != level:
            return [None] * text.count(f"{notation.TAB}{notation.HIDDEN}", start)
    return slots


def align(text: str, tokens: Sequence[str]) -> dict[int, int]:
    """Which of `tokens` begins right after which tab of `text`, by place; without those where the texts differ.

    A server may put a token before the text or behind it, and write spaces and the bytes of a split character in its
    own way. All other text from the tab before to the tab after must be the same, and there must be as many tabs.
    """
    written = "".join(tokens)
    ours, theirs = text.split(notation.TAB), written.split(notation.TAB)
    if len(ours) != len(theirs) or len(ours) == 1:
        return {}
    (head, *middle, tail), (their_head, *their_middle, their_tail) = map(_plain, ours), map(_plain, theirs)
    same = [their_head.endswith(head), *map(eq, middle, their_middle), their_tail.startswith(tail)]
    first = {at: index for index, at in enumerate(_ends(tokens[:-1], start=0)) if tokens[index]}
    after_tabs = zip(_ends(ours[:-1], start=1), _ends(theirs[:-1], start=1), strict=True)
    return {
        place: first[at]
        for number, (place, at) in enumerate(islice(after_tabs, 1, None), start=1)
        if at in first and same[number - 1] and same[number]
    }


def _ends(pieces: Sequence[str], start: int) -> list[int]:
    """0, and where each of `pieces` ends, with `start` characters between one and the next."""
    return list(accumulate((len(piece) + start for piece in pieces), initial=0))


def _plain(text: str) -> str:
    """What every server writes alike."""
    return "".join(char for char in text if char.isascii() and char != " ")


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
