"""A judge that asks a language model yes-or-no questions, many items at a time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal, TypeAlias, final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from autointerp.prompts import DRAWS, Prompt
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.seams import Model
from autointerp.simulate.packs import Results, answered, ask_in_packs, invalid, packs

Judged: TypeAlias = Literal["detection", "fuzzing", "logits"]
"""The questions, each of which has a prompt of its name."""
MARKS = ("⟦", "⟧")
"""Before and after a marked token; in a displayed token they are as rare as in any text."""
MOST = 9
"""Certainty is a digit."""
ITEMS_PER_CALL: dict[Judged, int] = {"detection": 10, "fuzzing": 10, "logits": 25}
"""Few, because the items of a call tell each other's base rate."""
_ITEM_TOKENS = 24
"""Answer tokens per item: some twice what its JSON takes."""


@final
@dataclass(frozen=True, slots=True)
class LlmJudge:
    """Asks a language model for its certainty of yes; it sees the explanation and the items, nothing else."""

    model: Model
    """Who answers."""
    name: str
    """``provider/model``."""
    prompt: Prompt
    """Version of the question's prompt."""
    question: Judged
    """What is asked."""
    draws: int = DRAWS
    """Most answers asked for where none can be read."""
    arm: str = ""
    """The arm that pays, for the ledger."""

    def requests(self, explanation: Explanation, items: Sequence[Item]) -> list[Request]:
        """What is asked first, if every answer can be read."""
        return [self._render(explanation, some, 0) for some in packs(items, ITEMS_PER_CALL[self.question])]

    async def simulate(self, explanation: Explanation, items: Sequence[Item]) -> Sequence[Prediction | Failure]:
        """One certainty per item, in order, from concurrent calls (`ask_in_packs`)."""
        return await ask_in_packs(
            lambda some, draw: self._ask(explanation, some, draw),
            items,
            draws=self.draws,
            items_per_call=ITEMS_PER_CALL[self.question],
        )

    async def _ask(self, explanation: Explanation, items: Sequence[Item], replicate: int) -> Results:
        request = self._render(explanation, items, replicate)
        return await answered(self.model, request, len(items), lambda reply: read_certainties(reply, len(items)))

    def _render(self, explanation: Explanation, items: Sequence[Item], replicate: int) -> Request:
        return render_judge(
            explanation, items, self.name, self.prompt, self.question, arm=self.arm, replicate=replicate
        )


def render_judge(
    explanation: Explanation,
    items: Sequence[Item],
    name: str,
    prompt: Prompt,
    question: Judged,
    *,
    arm: str = "",
    replicate: int = 0,
) -> Request:
    """The request that asks model `name` about `items`, numbered from 1, given the explanation's text."""
    return Request(
        model=name,
        system=_system(prompt),
        user=prompt.user.substitute(
            explanation=explanation.text, items=_numbered([write_item(item, question) for item in items])
        ),
        schema=prompt.schema,
        max_tokens=_ITEM_TOKENS * (len(items) + 1),
        replicate=replicate,
        stage="simulate",
        arm=arm,
    )


def write_item(item: Item, question: Judged) -> str:
    """An item as one line: running text; with its marks; or one token between quotation marks."""
    match question:
        case "detection":
            return "".join(item.tokens)
        case "fuzzing":
            marked = set(item.marked)
            begin, end = MARKS
            return "".join(f"{begin}{t}{end}" if i in marked else t for i, t in enumerate(item.tokens))
        case "logits":
            return f'"{item.tokens[0]}"'


def read_certainties(reply: Reply, n: int) -> Results:
    """One result per item of the request that `reply` answers: yes is 5 to 9 of 9.

    An item that is missing or answered twice is a `Failure` (``invalid``). A reply that breaks the schema, or names a
    number that was not asked, is one for all its items.
    """
    try:
        answers = _Answer.model_validate_json(reply.text).answers
    except ValidationError as error:
        return [invalid(f"Not the JSON asked for: {error.errors()[0]['msg']}.")] * n
    times = Counter(answer.item for answer in answers)
    if unknown := sorted(times.keys() - set(range(1, n + 1))):
        return [invalid(f"Items 1 to {n} were asked, not {unknown[0]}.")] * n
    certain = {answer.item: answer.sure for answer in answers}
    return [
        Prediction((certain[number] / MOST,))
        if times[number] == 1
        else invalid(f"Item {number} was answered {times[number]} times.")
        for number in range(1, n + 1)
    ]


def _numbered(lines: Sequence[str]) -> str:
    return "\n".join(f"item {number}: {line}" for number, line in enumerate(lines, start=1))


class _ItemAnswer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    item: int
    sure: Annotated[int, Field(ge=0, le=MOST)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    answers: list[_ItemAnswer]


@dataclass(frozen=True, slots=True)
class _Demonstration:
    """An invented unit, judged."""

    explanation: str
    """Of the unit."""
    items: Sequence[tuple[str, int]]
    """Lines as `write_item` writes them, and certainties."""


_DEMONSTRATIONS = TypeAdapter(tuple[_Demonstration, ...])


@cache
def _system(prompt: Prompt) -> str:
    demonstrations = _DEMONSTRATIONS.validate_json(prompt.demonstrations)
    shown = (
        f"Demonstration {number}\n{_write_demonstration(prompt, shown)}"
        for number, shown in enumerate(demonstrations, start=1)
    )
    return prompt.system.substitute(demonstrations="\n\n".join(shown))


def _write_demonstration(prompt: Prompt, shown: _Demonstration) -> str:
    answer = _Answer(
        answers=[_ItemAnswer(item=number, sure=sure) for number, (_, sure) in enumerate(shown.items, start=1)]
    )
    asked = prompt.user.substitute(explanation=shown.explanation, items=_numbered([line for line, _ in shown.items]))
    return f"{asked}\nAnswer: {answer.model_dump_json()}"
