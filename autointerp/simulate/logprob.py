"""A simulator that reads a language model's distributions: all levels of an item from one pass, no output tokens.

The published all-at-once method: every level of the item is hidden by a marker that stands in its place, and what the
model expected there instead is the prediction (Bills et al., "Language models can explain neurons in language models").
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice, repeat
from typing import Annotated, Literal, TypeAlias, final

from pydantic import Field, TypeAdapter, ValidationError

from autointerp import notation
from autointerp.prompts import Prompt
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.simulate.packs import PackSimulator, Results, invalid

LEAST_MASS = 0.1
"""Probability of all digits together below which a model did not expect a level: its slot says nothing."""

_ROUNDING = 1e-3
"""Above 0, which no log-probability exceeds but by rounding."""
_Digit: TypeAlias = Literal["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
_LogProbability: TypeAlias = Annotated[float, Field(le=_ROUNDING, allow_inf_nan=False)]
_SLOTS = TypeAdapter(list[dict[_Digit, _LogProbability] | None])


@final
@dataclass(frozen=True, slots=True)
class SlotSimulator(PackSimulator):
    """Asks for the distribution at each level, with the prompt ``slots``, of ``slots/MODEL`` or ``local/PATH``."""

    def _render(self, explanation: Explanation, items: Sequence[Item], replicate: int) -> Request:
        return render_slots(explanation, items, self.name, self.prompt, arm=self.arm, replicate=replicate)

    def _read(self, reply: Reply, items: Sequence[Item]) -> Results:
        return read_slots(reply, items)


def render_slots(
    explanation: Explanation, items: Sequence[Item], name: str, prompt: Prompt, *, arm: str = "", replicate: int = 0
) -> Request:
    """The request for model `name`'s distributions at the levels of `items`, all hidden, given the explanation's text.

    A tab in the explanation becomes a space: tabs stand before levels and nowhere else.
    """
    text = explanation.text.replace(notation.TAB, " ")
    written = [_write_item(item.tokens, repeat(notation.HIDDEN)) for item in items]
    return Request(
        model=name,
        system=_system(prompt),
        user=prompt.user.substitute(explanation=text, items="\n\n".join(written)),
        schema=None,
        max_tokens=1,  # nothing is to be written, but vLLM counts a token all the same
        replicate=replicate,
        stage="simulate",
        arm=arm,
    )


def read_slots(reply: Reply, items: Sequence[Item]) -> Results:
    """The expected level of every token of each item, from JSON: per slot the log-probability of each digit.

    An item is a `Failure` (``invalid``) where one of its slots has no log-probabilities, or its digits have less than
    `LEAST_MASS` together; all are where the answer is anything else, or has another number of slots.
    """
    try:
        slots = _SLOTS.validate_json(reply.text)
    except ValidationError as error:
        return [invalid(f"Not log-probabilities: {error.errors()[0]['msg']}.")] * len(items)
    asked = sum(len(item.tokens) for item in items)
    if len(slots) != asked:
        return [invalid(f"{asked} slots were asked, not {len(slots)}.")] * len(items)
    left = iter(slots)
    return [_read_item(list(islice(left, len(item.tokens)))) for item in items]


def _read_item(slots: Sequence[dict[_Digit, float] | None]) -> Prediction | Failure:
    levels: list[float] = []
    for number, slot in enumerate(slots, start=1):
        if slot is None:
            return invalid(f"The model gives no log-probabilities of single digits at the item's slot {number}.")
        chances = {int(digit): math.exp(value) for digit, value in slot.items()}
        mass = sum(chances.values())
        if mass < LEAST_MASS:
            return invalid(f"At the item's slot {number} the digits have a probability of {mass:.3g} together.")
        levels.append(sum(level * chance for level, chance in chances.items()) / mass)
    return Prediction(tuple(levels))


def _write_item(tokens: Sequence[str], levels: Iterable[str]) -> str:
    """A line per token; takes as many `levels` as there are tokens."""
    return "\n".join(f"{token}{notation.TAB}{level}" for token, level in zip(tokens, levels, strict=False))


@dataclass(frozen=True, slots=True)
class _Demonstration:
    """An invented unit with the levels of a few items."""

    explanation: str
    """Of the unit."""
    hidden: int
    """How many of the first levels, over all items, are hidden."""
    items: Sequence[tuple[str, str]]
    """Tokens (as `notation.join` writes them) and levels."""


_DEMONSTRATIONS = TypeAdapter(tuple[_Demonstration, ...])


@cache
def _system(prompt: Prompt) -> str:
    demonstrations = _DEMONSTRATIONS.validate_json(prompt.demonstrations)
    return prompt.system.substitute(demonstrations="\n\n".join(_demonstrate(prompt, each) for each in demonstrations))


def _demonstrate(prompt: Prompt, shown: _Demonstration) -> str:
    true = "".join(levels for _, levels in shown.items)
    levels = iter(notation.HIDDEN * shown.hidden + true[shown.hidden :])
    items = [_write_item(notation.split(line), levels) for line, _ in shown.items]
    return prompt.user.substitute(explanation=shown.explanation, items="\n\n".join(items))
