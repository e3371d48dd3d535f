"""A judge that asks a language model yes-or-no questions, many items at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal, TypeAlias, final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from autointerp.prompts import Prompt
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Explanation
from autointerp.records.trial import Item, Prediction
from autointerp.simulate.packs import PackSimulator, Results, invalid, read_numbered

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
class LlmJudge(PackSimulator):
    """Asks for the certainty of yes, with the prompt of the question's name."""

    question: Judged = field(kw_only=True)
    """What is asked."""

    def _render(self, explanation: Explanation, items: Sequence[Item], replicate: int) -> Request:
        return render_judge(
            explanation, items, self.name, self.prompt, self.question, arm=self.arm, replicate=replicate
        )

    def _read(self, reply: Reply, items: Sequence[Item]) -> Results:
        return read_certainties(reply, len(items))


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
    """One result per item of the request that `reply` answers (`read_numbered`): yes is 5 to 9 of 9.

    A reply that breaks the schema is a `Failure` (``invalid``) for all its items.
    """
    try:
        answers = _Answer.model_validate_json(reply.text).answers
    except ValidationError as error:
        return [invalid(f"Not the JSON asked for: {error.errors()[0]['msg']}.")] * n
    certain = [(answer.item, answer.sure) for answer in answers]
    return read_numbered(certain, n, lambda _, sure: Prediction((sure / MOST,)))


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
