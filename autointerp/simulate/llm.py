"""A simulator that asks a language model, many items at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import final

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from autointerp import notation
from autointerp.prompts import Prompt
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.simulate.packs import PackSimulator, Results, invalid, read_numbered

TOP_LEVEL = 9
"""Levels are single characters: digits, and A for 10 where the prompt has it."""
_ITEM_TOKENS = 48
"""Answer tokens per item besides its levels: some twice what the item's JSON takes."""


@final
@dataclass(frozen=True, slots=True)
class LlmSimulator(PackSimulator):
    """Asks for a string of digits per item, with the prompt ``simulate``."""

    top_level: int = field(default=TOP_LEVEL, kw_only=True)
    """Highest level that the prompt knows."""

    def _render(self, explanation: Explanation, items: Sequence[Item], replicate: int) -> Request:
        return render_simulate(explanation, items, self.name, self.prompt, arm=self.arm, replicate=replicate)

    def _read(self, reply: Reply, items: Sequence[Item]) -> Results:
        return read_predictions(reply, items, self.top_level)


def render_simulate(
    explanation: Explanation, items: Sequence[Item], name: str, prompt: Prompt, *, arm: str = "", replicate: int = 0
) -> Request:
    """The request that asks model `name` to predict `items`, numbered from 1, from the explanation's text."""
    return Request(
        model=name,
        system=_system(prompt),
        user=prompt.user.substitute(explanation=explanation.text, items=_write_items(items)),
        schema=prompt.schema,
        max_tokens=sum(_ITEM_TOKENS + len(item.tokens) for item in items),
        replicate=replicate,
        stage="simulate",
        arm=arm,
    )


def read_predictions(reply: Reply, items: Sequence[Item], top_level: int = TOP_LEVEL) -> Results:
    """One result per item of the request that `reply` answers (`read_numbered`).

    An item that is given anything but one digit per token is a `Failure` (``invalid``). A reply that breaks the schema
    is one for all its items.
    """
    try:
        answers = _Answer.model_validate_json(reply.text).predictions
    except ValidationError as error:
        return [invalid(f"Not the JSON asked for: {error.errors()[0]['msg']}.")] * len(items)

    def read(number: int, levels: str) -> Prediction | Failure:
        n = len(items[number - 1].tokens)
        found = notation.read_levels(levels, n, top_level)
        if found is None:
            return invalid(f"Item {number} needs {n} digits, not {levels[:80]!r}.")
        return Prediction(tuple(float(level) for level in found))

    return read_numbered([(answer.item, answer.levels) for answer in answers], len(items), read)


def _write_items(items: Sequence[Item]) -> str:
    return "\n".join(
        f"item {number} ({len(item.tokens)} tokens): {notation.join(item.tokens)}"
        for number, item in enumerate(items, start=1)
    )


class _ItemAnswer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    item: int
    levels: str


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    predictions: list[_ItemAnswer]


@dataclass(frozen=True, slots=True)
class _Demonstration:
    """An invented unit, predicted."""

    explanation: str
    """Of the unit."""
    items: Sequence[tuple[str, str]]
    """Tokens (as `notation.join` writes them) and levels."""


_DEMONSTRATIONS = TypeAdapter(tuple[_Demonstration, ...])


@cache
def _system(prompt: Prompt) -> str:
    demonstrations = _DEMONSTRATIONS.validate_json(prompt.demonstrations)
    shown = (
        f"Demonstration {number}\n{_write_demonstration(prompt, shown)}"
        for number, shown in enumerate(demonstrations, start=1)
    )
    return prompt.system.substitute(demonstrations="\n\n".join(shown))


def _write_demonstration(prompt: Prompt, demonstration: _Demonstration) -> str:
    items = [Item(notation.split(line)) for line, _ in demonstration.items]
    answer = _Answer(
        predictions=[
            _ItemAnswer(item=number, levels=levels) for number, (_, levels) in enumerate(demonstration.items, start=1)
        ]
    )
    question = prompt.user.substitute(explanation=demonstration.explanation, items=_write_items(items))
    return f"{question}\nAnswer: {answer.model_dump_json()}"
