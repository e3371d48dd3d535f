"""A simulator that asks a language model, many items at a time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import final

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from autointerp import notation
from autointerp.prompts import DRAWS, Prompt
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.seams import Model
from autointerp.simulate.packs import ITEMS_PER_CALL, Results, answered, ask_in_packs, invalid, packs

TOP_LEVEL = 9
"""Levels are single characters: digits, and A for 10 where the prompt has it."""
_ITEM_TOKENS = 48
"""Answer tokens per item besides its levels: some twice what the item's JSON takes."""


@final
@dataclass(frozen=True, slots=True)
class LlmSimulator:
    """Asks a language model for a string of digits per item; it sees the explanation and tokens, nothing else."""

    model: Model
    """Who answers."""
    name: str
    """``provider/model``."""
    prompt: Prompt
    """Version of the prompt ``simulate``."""
    draws: int = DRAWS
    """Most answers asked for where none can be read."""
    items_per_call: int = ITEMS_PER_CALL
    """Most items in one call."""
    arm: str = ""
    """The arm that pays, for the ledger."""
    top_level: int = TOP_LEVEL
    """Highest level that the prompt knows."""

    def requests(self, explanation: Explanation, items: Sequence[Item]) -> list[Request]:
        """What is asked first, if every answer can be read."""
        own = packs(items, self.items_per_call)
        return [render_simulate(explanation, some, self.name, self.prompt, arm=self.arm) for some in own]

    async def simulate(self, explanation: Explanation, items: Sequence[Item]) -> Sequence[Prediction | Failure]:
        """One result per item, in order, from concurrent calls (`ask_in_packs`)."""
        return await ask_in_packs(
            lambda some, draw: self._ask(explanation, some, draw),
            items,
            draws=self.draws,
            items_per_call=self.items_per_call,
        )

    async def _ask(self, explanation: Explanation, items: Sequence[Item], replicate: int) -> Results:
        request = render_simulate(explanation, items, self.name, self.prompt, arm=self.arm, replicate=replicate)
        return await answered(
            self.model, request, len(items), lambda reply: read_predictions(reply, items, self.top_level)
        )


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
    """One result per item of the request that `reply` answers.

    An item that is missing, predicted twice or given anything but one digit per token is a `Failure` (``invalid``).
    A reply that breaks the schema, or names a number that was not asked, is one for all its items: where one number
    is wrong, the others may be shifted.
    """
    try:
        answers = _Answer.model_validate_json(reply.text).predictions
    except ValidationError as error:
        return [invalid(f"Not the JSON asked for: {error.errors()[0]['msg']}.")] * len(items)
    times = Counter(answer.item for answer in answers)
    if unknown := sorted(times.keys() - set(range(1, len(items) + 1))):
        return [invalid(f"Items 1 to {len(items)} were asked, not {unknown[0]}.")] * len(items)
    levels = {answer.item: answer.levels for answer in answers}
    results: Results = []
    for number, item in enumerate(items, start=1):
        read = notation.read_levels(levels.get(number, ""), len(item.tokens), top_level)
        if times[number] != 1:
            results.append(invalid(f"Item {number} was predicted {times[number]} times."))
        elif read is None:
            results.append(invalid(f"Item {number} needs {len(item.tokens)} digits, not {levels[number][:80]!r}."))
        else:
            results.append(Prediction(tuple(float(level) for level in read)))
    return results


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
