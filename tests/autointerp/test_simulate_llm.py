"""The language-model simulator: packing, strict reading, repair of bad items only."""

import asyncio
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp import notation
from autointerp.prompts import load_prompt
from autointerp.records.call import Reply, Request, Usage
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.seams import BudgetReached
from autointerp.simulate.llm import LlmSimulator, read_predictions, render_simulate

GOLDEN = Path(__file__).parent.parent / "golden"
NAME = "openai/gpt-test"
PROMPT = load_prompt("simulate", "v1")
EXPLANATION = Explanation('Cats, at $5 each: "cat".', "someone/secret")
ITEMS = (
    Item((" the", " cat", "\\n")),
    Item(("\\xe2", "\\x94\\x82")),
    Item(('"', "9", "\\\\", " x" * 30, " ")),
)
_LINE = re.compile(r"item (\d+) \((\d+) tokens\): (.*)")


def reply(answer: object) -> Reply:
    """An answer of no cost: JSON of `answer`, or the text itself."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return Reply(text, Usage(0, 0, 0, 0), cost=0, served="gpt-test-1", cached=False)


def predictions(*pairs: tuple[int, str]) -> dict[str, object]:
    """The form that the schema asks for."""
    return {"predictions": [{"item": item, "levels": levels} for item, levels in pairs]}


def asked_items(request: Request) -> list[tuple[int, tuple[str, ...]]]:
    """Numbers and tokens of the items in a request."""
    found = [match for line in request.user.split("\n") if (match := _LINE.fullmatch(line))]
    shown = [(int(number), notation.split(line)) for number, _, line in (match.groups() for match in found)]
    assert [len(tokens) for _, tokens in shown] == [int(match[2]) for match in found]
    return shown


def last_digits(request: Request) -> list[tuple[int, str]]:
    """For every item asked, one digit per token: the token's last character if it is a digit, else 0."""
    return [
        (number, "".join(token[-1] if token[-1].isdigit() else "0" for token in tokens))
        for number, tokens in asked_items(request)
    ]


@dataclass
class Scripted:
    """Answers as it was told to, and remembers what it was asked."""

    how: Callable[[Request], Reply | Failure]
    asked: list[Request] = field(default_factory=list)
    rejected: list[Request] = field(default_factory=list)

    async def answer(self, request: Request) -> Reply | Failure:
        """The answer that `how` makes, after the other calls have been sent."""
        self.asked.append(request)
        await asyncio.sleep(0)
        return self.how(request)

    def reject(self, request: Request) -> None:
        """Remember which answer could not be read."""
        self.rejected.append(request)


def simulate(
    how: Callable[[Request], Reply | Failure], items: tuple[Item, ...]
) -> tuple[list[Prediction | Failure], list[Request]]:
    """What the simulator makes of the model's answers, and what it asked."""
    model = Scripted(how)
    return list(asyncio.run(LlmSimulator(model, NAME, PROMPT, arm="a").simulate(EXPLANATION, items))), model.asked


def numbered(count: int) -> tuple[Item, ...]:
    """Items that can be told apart by the digits that `last_digits` reads off them."""
    return tuple(Item(tuple(f"t{digit}" for digit in f"{index:03d}")) for index in range(count))


def right(index: int) -> Prediction:
    """What `last_digits` predicts for the item `index` of `numbered`."""
    return Prediction(tuple(float(digit) for digit in f"{index:03d}"))


@pytest.mark.parametrize("prompt", ["simulate", "simulate-10"])
def test_the_rendered_request_is_the_golden_one(prompt: str) -> None:
    """Every byte that is sent is on record; UPDATE_GOLDEN=1 writes it anew."""
    request = render_simulate(EXPLANATION, ITEMS, NAME, load_prompt(prompt, "v1"))
    text = f"{request.system}\n\n=== user ===\n{request.user}\n\n=== schema ===\n{request.schema}\n"
    path = GOLDEN / f"{prompt}_v1.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_bytes(text.encode())
    assert path.read_bytes() == text.encode()


def test_a_request_carries_the_text_and_nothing_about_the_unit() -> None:
    """Who explained, and for which arm, is not said."""
    one, other = (
        render_simulate(replace(EXPLANATION, explainer=who), ITEMS, NAME, PROMPT, arm=arm)
        for who, arm in (("lookup", "features"), ("someone/secret", "neurons"))
    )
    assert replace(one, arm="") == replace(other, arm="")
    assert one.user.startswith("Explanation: " + EXPLANATION.text)
    assert (one.stage, one.arm, one.schema) == ("simulate", "features", PROMPT.schema)


def test_the_limit_has_room_for_the_whole_answer() -> None:
    """A full answer fits, even at one token per byte."""
    items = numbered(20)
    request = render_simulate(EXPLANATION, items, NAME, PROMPT)
    assert len(json.dumps(predictions(*last_digits(request)))) <= request.max_tokens


@given(st.lists(st.lists(st.binary(min_size=1, max_size=12).map(notation.display), min_size=1), min_size=1, max_size=5))
def test_awkward_tokens_are_shown_without_doubt(items: list[list[str]]) -> None:
    """Newlines, separators, quotes and halves of characters: an item stays one line, a token one cell."""
    shown = [Item(tuple(tokens)) for tokens in items]
    request = render_simulate(EXPLANATION, shown, NAME, PROMPT)
    assert asked_items(request) == [(number, item.tokens) for number, item in enumerate(shown, start=1)]


def test_sixty_items_are_three_calls() -> None:
    """Packs of 20, numbered from 1 in each, with the results back in the order of the items."""
    results, asked = simulate(lambda request: reply(predictions(*last_digits(request))), numbered(60))
    assert results == [right(index) for index in range(60)]
    assert [[number for number, _ in asked_items(request)] for request in asked] == [list(range(1, 21))] * 3
    assert len({request.system for request in asked}) == 1


def test_calls_are_made_at_once() -> None:
    """All packs are sent before the first is answered."""
    answered_after: list[int] = []
    model = Scripted(lambda request: reply(predictions(*last_digits(request))))
    inner = model.how
    model.how = lambda request: (answered_after.append(len(model.asked)), inner(request))[1]
    asyncio.run(LlmSimulator(model, NAME, PROMPT).simulate(EXPLANATION, numbered(60)))
    assert answered_after == [3, 3, 3]


def test_no_items_are_no_calls() -> None:
    """An empty trial costs nothing."""
    assert simulate(lambda request: reply(""), ()) == ([], [])


def test_the_order_of_the_answers_does_not_matter() -> None:
    """Predictions are placed by number."""
    answer = reply(predictions((2, "20"), (3, "00009"), (1, "012")))
    read = read_predictions(answer, ITEMS)
    assert read == [Prediction((0.0, 1.0, 2.0)), Prediction((2.0, 0.0)), Prediction((0.0, 0.0, 0.0, 0.0, 9.0))]


BAD_ITEMS = {
    "missing": [(1, "012"), (3, "00009")],
    "twice, differently": [(1, "012"), (2, "20"), (3, "00009"), (2, "21")],
    "twice, the same": [(1, "012"), (2, "20"), (3, "00009"), (2, "20")],
    "too short": [(1, "012"), (2, "2"), (3, "00009")],
    "too long": [(1, "012"), (2, "200"), (3, "00009")],
    "empty": [(1, "012"), (2, ""), (3, "00009")],
    "spaced": [(1, "012"), (2, "2 0"), (3, "00009")],
    "padded": [(1, "012"), (2, "2 "), (3, "00009")],
    "letter": [(1, "012"), (2, "2x"), (3, "00009")],
    "level ten": [(1, "012"), (2, "2A"), (3, "00009")],
    "sign": [(1, "012"), (2, "-1"), (3, "00009")],
    "other digits": [(1, "012"), (2, "٢٠"), (3, "00009")],
}


@pytest.mark.parametrize("pairs", BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
def test_a_bad_item_is_invalid_and_the_others_are_read(pairs: list[tuple[int, str]]) -> None:
    """One item's fault is that item's failure: never a zero, never its neighbours'."""
    first, second, third = read_predictions(reply(predictions(*pairs)), ITEMS)
    assert isinstance(second, Failure)
    assert (second.stage, second.kind) == ("simulate", "invalid")
    assert first == Prediction((0.0, 1.0, 2.0))
    assert third == Prediction((0.0, 0.0, 0.0, 0.0, 9.0))


BAD_REPLIES = {
    "prose": "all zeros",
    "empty": "",
    "fenced": "```json\n" + json.dumps(predictions((1, "012"), (2, "20"), (3, "00009"))) + "\n```",
    "cut": json.dumps(predictions((1, "012"), (2, "20"), (3, "00009")))[:-2],
    "array": [{"item": 1, "levels": "012"}],
    "no predictions": {"predictions": []},
    "more keys": predictions((1, "012"), (2, "20"), (3, "00009")) | {"note": ""},
    "number as levels": {"predictions": [{"item": 1, "levels": 12}]},
    "text as number": {"predictions": [{"item": "1", "levels": "012"}]},
    "truth as number": {"predictions": [{"item": True, "levels": "012"}]},
    "item with more keys": {"predictions": [{"item": 1, "levels": "012", "why": ""}]},
    "counted from 0": predictions((0, "012"), (1, "200"), (2, "20")),
    "one too many": predictions((1, "012"), (2, "20"), (3, "00009"), (4, "0")),
}


@pytest.mark.parametrize("answer", BAD_REPLIES.values(), ids=BAD_REPLIES.keys())
def test_a_reply_of_another_form_is_invalid_for_every_item(answer: object) -> None:
    """Where the form or the numbering cannot be trusted, no item of the call is."""
    read = read_predictions(reply(answer), ITEMS)
    assert [result.kind for result in read if isinstance(result, Failure)] == ["invalid"] * 3


def spoilt(request: Request, bad: set[tuple[str, ...]]) -> Reply:
    """An answer in which the items of `bad` tokens have one digit too many."""
    shown = dict(asked_items(request))
    pairs = [(number, levels + "0" * (shown[number] in bad)) for number, levels in last_digits(request)]
    return reply(predictions(*pairs))


def test_only_bad_items_are_asked_once_more() -> None:
    """The second request is a fresh, smaller one: the bad items renumbered, nothing of the bad answer."""
    items = numbered(30)
    bad = {items[4].tokens, items[17].tokens}
    results, asked = simulate(lambda r: spoilt(r, bad if r.replicate == 0 else set()), items)
    assert results == [right(index) for index in range(30)]
    assert [request.replicate for request in asked] == [0, 0, 1]
    assert asked[2] == render_simulate(EXPLANATION, [items[4], items[17]], NAME, PROMPT, arm="a", replicate=1)


def test_an_item_that_stays_bad_fails_alone() -> None:
    """Two requests at most; the rest of the pack keeps its predictions."""
    items = numbered(3)
    results, asked = simulate(lambda r: spoilt(r, {items[1].tokens}), items)
    assert results[0] == right(0)
    assert isinstance(results[1], Failure)
    assert (results[1].kind, results[2]) == ("invalid", right(2))
    assert len(asked) == 2


def test_a_call_cut_off_is_asked_once_more_in_halves() -> None:
    """Every item of a truncated answer is asked for again, and one that cuts the answer off costs its half only."""
    items = numbered(5)
    cut = Failure("simulate", "truncated", "cut off")

    def how(request: Request) -> Reply | Failure:
        shown = {tokens for _, tokens in asked_items(request)}
        return cut if request.replicate == 0 or items[4].tokens in shown else spoilt(request, set())

    results, asked = simulate(how, items)
    assert results == [*map(right, range(3)), cut, cut]
    assert asked[1] == render_simulate(EXPLANATION, items[:3], NAME, PROMPT, arm="a", replicate=1)
    assert asked[2] == render_simulate(EXPLANATION, items[3:], NAME, PROMPT, arm="a", replicate=1)
    assert len(asked) == 3


def most(count: int) -> Callable[[Request], Reply | Failure]:
    """A model that reads `count` items at most."""
    too_long = Failure("", "too_long", "too long")
    return lambda request: too_long if len(asked_items(request)) > count else spoilt(request, set())


@pytest.mark.parametrize(("count", "calls"), [(20, 1), (19, 3), (5, 7), (3, 15), (1, 39)])
def test_a_pack_that_is_too_long_is_asked_in_halves(count: int, calls: int) -> None:
    """Down to what fits, whatever the draws: none of that was billed."""
    results, asked = simulate(most(count), numbered(20))
    assert results == [right(index) for index in range(20)]
    assert len(asked) == calls
    assert {request.replicate for request in asked} == {0}


def test_an_item_that_is_too_long_alone_is_a_named_failure() -> None:
    """After 20, 10, 5, ... items: each is asked by itself once, and then fails."""
    results, asked = simulate(most(0), numbered(20))
    assert results == [Failure("simulate", "too_long", "too long")] * 20
    assert sum(len(asked_items(request)) == 1 for request in asked) == 20


def test_a_refusal_fails_its_own_pack_only() -> None:
    """Each item of the refused call is a failure; it is not asked again, and other packs are read."""
    refusal = Failure("", "refusal", "no")

    def how(request: Request) -> Reply | Failure:
        return refusal if asked_items(request)[0][1] == numbered(1)[0].tokens else spoilt(request, set())

    results, asked = simulate(how, numbered(25))
    assert results[:20] == [replace(refusal, stage="simulate")] * 20
    assert results[20:] == [right(index) for index in range(20, 25)]
    assert len(asked) == 2


def test_a_stop_waits_for_the_calls_beside_it() -> None:
    """What was sent is paid for, so it is answered before the run ends."""
    answered: list[Request] = []

    def how(request: Request) -> Reply | Failure:
        if asked_items(request)[0][1] == numbered(1)[0].tokens:
            raise BudgetReached
        answered.append(request)
        return spoilt(request, set())

    with pytest.raises(BudgetReached):
        simulate(how, numbered(60))
    assert len(answered) == 2
