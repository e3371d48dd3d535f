"""Judges of yes-or-no questions: what is sent, what is read, and what `lookup` answers."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from autointerp import notation
from autointerp.prompts import load_prompt
from autointerp.records.call import Reply, Request, Usage
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.simulate.judge import MARKS, Judged, LlmJudge, read_certainties, render_judge, write_item
from autointerp.simulate.llm import LlmSimulator
from autointerp.simulate.lookup import LookupJudge

GOLDEN = Path(__file__).parent.parent / "golden"
EXPLANATION = Explanation('Cats, at $5 each: "cat".', "someone/secret")
QUESTIONS: tuple[Judged, ...] = ("detection", "fuzzing", "logits")
ITEMS = (Item((" the", " cat", "\\n"), (1,)), Item(("\\xe2", " x"), (0, 1)))


def reply(answer: object) -> Reply:
    """An answer of no cost."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return Reply(text, Usage(0, 0, 0, 0), cost=0, served="x", cached=False)


def answers(*pairs: tuple[int, int]) -> dict[str, object]:
    """The form that the schema asks for."""
    return {"answers": [{"item": item, "sure": sure} for item, sure in pairs]}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_rendered_request_is_the_golden_one(question: Judged) -> None:
    """Every byte that is sent is on record; UPDATE_GOLDEN=1 writes it anew."""
    request = render_judge(EXPLANATION, ITEMS, "openai/x", load_prompt(question, "v1"), question)
    text = f"{request.system}\n\n=== user ===\n{request.user}\n\n=== schema ===\n{request.schema}\n"
    path = GOLDEN / f"{question}_v1.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_bytes(text.encode())
    assert path.read_bytes() == text.encode()


def test_items_are_written_as_text_with_marks_or_as_a_token() -> None:
    """Detection shows no marks: they would give the answer away."""
    assert [write_item(ITEMS[0], question) for question in QUESTIONS] == [" the cat\\n", " the⟦ cat⟧\\n", '" the"']


def test_answers_are_certainties_of_yes() -> None:
    """5 of 9 says yes, 4 says no; each item keeps its own answer."""
    assert read_certainties(reply(answers((2, 5), (1, 4))), 2) == [Prediction((4 / 9,)), Prediction((5 / 9,))]
    assert 4 / 9 < 0.5 < 5 / 9


@pytest.mark.parametrize(
    ("answer", "readable"),
    [
        (answers((1, 3)), [True, False]),
        (answers((1, 3), (2, 1), (2, 1)), [True, False]),
        (answers((1, 3), (3, 1)), [False, False]),
        (answers((1, 10), (2, 1)), [False, False]),
        ({"answers": [{"item": 1, "sure": "9"}, {"item": 2, "sure": 1}]}, [False, False]),
        ("yes, no", [False, False]),
    ],
)
def test_what_cannot_be_read_is_missing_and_never_no(answer: object, readable: list[bool]) -> None:
    """A missing or doubled item is a failure of its own; wrong numbers or forms spoil the call."""
    results = read_certainties(reply(answer), 2)
    assert [isinstance(each, Prediction) for each in results] == readable
    assert all(each.kind == "invalid" for each in results if isinstance(each, Failure))


@pytest.mark.parametrize("question", QUESTIONS)
def test_demonstrations_follow_their_own_rules(question: Judged) -> None:
    """Both answers occur, no explanation is another prompt's, and marks come in pairs only where marks are asked."""
    shown = json.loads(load_prompt(question, "v1").demonstrations)
    sure = [certainty for demonstration in shown for _, certainty in demonstration["items"]]
    assert len(shown) == 6
    assert 0.25 < sum(each >= 5 for each in sure) / len(sure) < 0.75
    for demonstration in shown:
        for line, _ in demonstration["items"]:
            assert line.count(MARKS[0]) == line.count(MARKS[1])
            assert (question == "fuzzing") == (MARKS[0] in line)
    others = [name for name in ("explain", "simulate", "slots", "simulate-10", *QUESTIONS) if name != question]
    seen = {each["explanation"] for name in others for each in json.loads(load_prompt(name, "v1").demonstrations)}
    assert not seen & {each["explanation"] for each in shown}


def test_wide_demonstrations_have_a_level_per_token() -> None:
    """Levels go up to A, and there are passages without any."""
    shown = json.loads(load_prompt("simulate-10", "v1").demonstrations)
    levels = [levels for demonstration in shown for _, levels in demonstration["items"]]
    for demonstration in shown:
        for line, each in demonstration["items"]:
            assert notation.read_levels(each, len(notation.split(line)), 10) is not None, line
    assert any("A" in each for each in levels)
    assert any(set(each) == {"0"} for each in levels)


class Echo:
    """Answers every item with certainty 9, or level A, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    async def answer(self, request: Request) -> Reply | Failure:
        self.asked.append(request)
        n = request.user.count("item ")
        if "levels" in (request.schema or ""):
            return reply({"predictions": [{"item": i + 1, "levels": "A0"} for i in range(n)]})
        return reply(answers(*((i + 1, 9) for i in range(n))))

    def reject(self, request: Request) -> None:
        raise AssertionError(request)


def test_many_items_go_in_several_calls_which_can_be_counted_before() -> None:
    """What `requests` foretells is what is asked."""
    model = Echo()
    judge = LlmJudge(
        model, "openai/x", load_prompt("detection", "v1"), items_per_call=10, arm="a", question="detection"
    )
    items = [Item((f"t{i}",)) for i in range(25)]
    results = asyncio.run(judge.simulate(EXPLANATION, items))
    assert results == [Prediction((1.0,))] * 25
    assert model.asked == judge.requests(EXPLANATION, items)
    assert len(model.asked) == 3


def test_level_ten_can_be_said_where_the_prompt_has_it() -> None:
    """`simulate-10` reads A."""
    simulator = LlmSimulator(Echo(), "openai/x", load_prompt("simulate-10", "v1"), top_level=10)
    assert asyncio.run(simulator.simulate(EXPLANATION, [Item(("a", "b"))])) == [Prediction((10.0, 0.0))]


TABLE = Explanation(notation.write_table([(" cat", 6.0), (" dog", 1.0), (" ox", 0.4)], default=0.0), "lookup")


@pytest.mark.parametrize(
    ("question", "item", "yes"),
    [
        ("detection", Item((" a", " cat")), True),
        ("detection", Item((" a", " dog")), True),
        ("detection", Item((" a", " ox")), False),
        ("detection", Item((" a", " b")), False),
        ("fuzzing", Item((" a", " cat"), (1,)), True),
        ("fuzzing", Item((" a", " cat"), (0,)), False),
    ],
)
def test_lookup_answers_from_its_table(question: Judged, item: Item, yes: bool) -> None:
    """A token at level 1 or above fires; marks are right where the marked tokens do."""
    (result,) = asyncio.run(LookupJudge(question).simulate(TABLE, [item]))
    assert isinstance(result, Prediction)
    assert (result.levels[0] >= 0.5) is yes


def test_lookup_has_no_view_on_next_tokens_and_says_so() -> None:
    """Of the logits it is not wrong but silent; a text that is no table is unreadable."""
    (result,) = asyncio.run(LookupJudge("logits").simulate(TABLE, [Item((" a",))]))
    assert isinstance(result, Failure)
    assert result.kind == "no_view"
    (other,) = asyncio.run(LookupJudge("detection").simulate(EXPLANATION, [Item((" a",))]))
    assert isinstance(other, Failure)
    assert other.kind == "unreadable"
