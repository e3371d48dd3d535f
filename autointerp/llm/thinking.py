"""Models that cannot be kept from thinking: what each of them refused, and how it is asked instead."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from autointerp.llm.faults import Fault
from autointerp.llm.provider import Provider
from autointerp.records.call import THINKING, Request, Thinking

ROOM = 4096
"""Output tokens reserved beside the answer for a model that thinks: its limit is for both together."""
_THINKS = ("least", "free")
_WORDS = re.compile("thinking|reasoning|effort")


class Thinkers:
    """Loosens the wish for no thinking, model by model, as far as each refuses it.

    A request keeps its key: it asks for as little thinking as the model allows, and what that is depends on the model
    alone.
    """

    def __init__(self, learnt: Mapping[str, Thinking], learn: Callable[[str, str, Thinking], object]) -> None:
        """`learnt` by earlier sessions, by model; `learn` keeps more (model, address, level)."""
        self._levels, self._learn = dict(learnt), learn
        self.warnings: list[str] = []

    def as_sent(self, request: Request) -> Request:
        """`request` as its model takes it: with room to think where it will."""
        level = self._levels.get(request.model, "off")
        if THINKING.index(level) <= THINKING.index(request.thinking):
            return request
        room = ROOM if level in _THINKS else 0
        return replace(request, thinking=level, max_tokens=request.max_tokens + room)

    def learns(self, provider: Provider, sent: Request, fault: Fault) -> bool:
        """Whether `fault` only says that the model refuses the level of thinking that was `sent`, and takes another."""
        if fault.kind != "bad_request" or fault.stop or not _WORDS.search(fault.message.lower()):
            return False
        if self.as_sent(sent) != sent:
            return True  # another call has learnt it meanwhile
        looser = (replace(sent, thinking=level) for level in THINKING[THINKING.index(sent.thinking) + 1 :])
        other = next((each for each in looser if provider.render(each) != provider.render(sent)), None)
        if other is None:
            return False
        self._levels[sent.model] = other.thinking
        self._learn(sent.model, provider.address, other.thinking)
        if sent.thinking not in _THINKS and other.thinking in _THINKS:
            self.warnings.append(
                f"{sent.model} cannot be kept from thinking: up to {ROOM:,} more output tokens are reserved for each"
                f" call, and those used are paid for."
            )
        return True
