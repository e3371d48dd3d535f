"""The language-model explainer: what it shows, how it reads, whom it asks again."""

import asyncio
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp import notation
from autointerp.explain.llm import (
    LONGEST,
    MAX_TOKENS,
    LlmExplainer,
    read_explanation,
    render_explain,
    write_evidence,
    write_excerpt,
)
from autointerp.prompts import load_prompt
from autointerp.records.call import Reply, Request, Usage
from autointerp.records.explanation import Evidence, EvidenceExcerpt, Explanation, Failure
from autointerp.records.unit import LogitEffect
from autointerp.seams import BudgetReached

GOLDEN = Path(__file__).parent.parent / "golden"
NAME = "anthropic/claude-test"
PROMPT = load_prompt("explain", "v1")
EVIDENCE = Evidence(
    excerpts=(
        EvidenceExcerpt((" the", " cat", " sat"), (0, 9, 0), "top"),
        EvidenceExcerpt((" a", " cat", "\\n"), (0, 8, 1), "top"),
        EvidenceExcerpt(("\\xe2", "\\x94\\x82", '"', "9"), (0, 3, 0, 4), "interval 5 of 12"),
        EvidenceExcerpt((" $x", "${y}", "\\\\n", "]"), (0, 0, 0, 0), "random"),
    ),
    promoted=(LogitEffect(" purrs", 2.5), LogitEffect("nip", 1.5)),
    suppressed=(LogitEffect(" dog", -0.7), LogitEffect("\\xe2\\x94\\x82", -0.1)),
    top_level=9,
)


def reply(text: str) -> Reply:
    """An answer of no cost."""
    return Reply(text, Usage(0, 0, 0, 0), cost=0, served="claude-test-1", cached=False)


@dataclass
class Scripted:
    """Answers with what it was given, in turn, and remembers what it was asked."""

    answers: list[Reply | Failure | Exception]
    asked: list[Request] = field(default_factory=list)
    rejected: list[Request] = field(default_factory=list)

    async def answer(self, request: Request) -> Reply | Failure:
        """The next answer."""
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def reject(self, request: Request) -> None:
        """Remember which answer could not be read."""
        self.rejected.append(request)


def explain(*answers: Reply | Failure | Exception) -> tuple[Explanation | Failure, list[Request]]:
    """What the explainer makes of `answers`, and what it asked."""
    model = Scripted(list(answers))
    result = asyncio.run(LlmExplainer(model, NAME, PROMPT, arm="features").explain(EVIDENCE))
    return result, model.asked


def read_excerpt(line: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Tokens and levels of a line, by the rule that the prompt states."""
    tokens: list[str] = []
    levels: list[int] = []
    cells = list(notation.split(line))
    while cells:
        cell = cells.pop(0)
        if cell:
            tokens.append(cell)
            levels.append(0)
        else:
            levels[-1] = "0123456789A".index(cells.pop(0))
    return tuple(tokens), tuple(levels)


def test_the_rendered_request_is_the_golden_one() -> None:
    """Every byte that is sent is on record; UPDATE_GOLDEN=1 writes it anew."""
    request = render_explain(EVIDENCE, NAME, PROMPT)
    text = f"{request.system}\n\n=== user ===\n{request.user}\n\n=== schema ===\n{request.schema}\n"
    path = GOLDEN / "explain_v1.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_bytes(text.encode())
    assert path.read_bytes() == text.encode()


def test_a_request_carries_its_limits_and_labels() -> None:
    """Model, schema, limit, draw and ledger labels are where the client looks for them."""
    request = render_explain(EVIDENCE, NAME, PROMPT, arm="neurons", replicate=1)
    assert (request.model, request.schema, request.max_tokens) == (NAME, PROMPT.schema, MAX_TOKENS)
    assert (request.stage, request.arm, request.replicate) == ("explain", "neurons", 1)


def test_the_text_does_not_depend_on_the_arm() -> None:
    """The explainer is blind: requests of two arms differ in the ledger's label and in nothing else."""
    one, other = (render_explain(EVIDENCE, NAME, PROMPT, arm=arm) for arm in ("features-4096", "neurons-matched"))
    assert replace(one, arm="") == replace(other, arm="")


def test_all_units_share_the_prefix() -> None:
    """The system text is the same whatever the evidence, or no provider could cache it."""
    other = replace(EVIDENCE, excerpts=EVIDENCE.excerpts[:1], promoted=())
    assert render_explain(EVIDENCE, NAME, PROMPT).system == render_explain(other, NAME, PROMPT).system


tokens = st.binary(min_size=1, max_size=12).map(notation.display)
cells = st.lists(st.tuples(tokens, st.integers(0, 10)), min_size=1, max_size=12)


@given(cells)
def test_every_level_of_an_excerpt_can_be_found_again(shown: list[tuple[str, int]]) -> None:
    """Newlines, separators, quotes, halves of characters and digits as tokens leave no doubt which level is whose."""
    excerpt = EvidenceExcerpt(tuple(token for token, _ in shown), tuple(level for _, level in shown), "top")
    line = write_excerpt(excerpt)
    assert len(line.splitlines()) == 1
    assert read_excerpt(line) == (excerpt.tokens, excerpt.levels)


def test_excerpts_of_one_label_share_a_heading() -> None:
    """Labels are said once per run of excerpts, in the order given."""
    lines = write_evidence(EVIDENCE).split("\n")
    assert [line for line in lines if line.startswith("[")] == [
        "[top]",
        "[interval 5 of 12]",
        "[random]",
        "[promoted]",
        "[suppressed]",
    ]
    assert lines[1:3] == [" the│ cat││9│ sat", " a│ cat││8│\\n││1"]


def test_unknown_logit_effects_are_left_out() -> None:
    """A site without a direct path to the logits shows no empty headings."""
    text = write_evidence(replace(EVIDENCE, promoted=(), suppressed=()))
    assert "promoted" not in text
    assert "suppressed" not in text


def test_a_good_answer_is_the_explanation() -> None:
    """One call, the text on one line, signed with the model that was asked for."""
    result, asked = explain(reply('{"explanation": " Cats,\\nhouse pets. "}'))
    assert result == Explanation("Cats, house pets.", NAME)
    assert len(asked) == 1


MALFORMED = {
    "prose": "It fires on cats.",
    "empty": "",
    "fenced": '```json\n{"explanation": "cats"}\n```',
    "cut": '{"explanation": "cats',
    "array": '["cats"]',
    "no key": "{}",
    "other key": '{"answer": "cats"}',
    "more keys": '{"explanation": "cats", "reasoning": "they purr"}',
    "number": '{"explanation": 9}',
    "null": '{"explanation": null}',
    "half a character": '{"explanation": "\\ud800"}',
    "blank": '{"explanation": " \\n "}',
    "too long": json.dumps({"explanation": "x" * (LONGEST + 1)}),
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_answer_is_an_invalid_failure(text: str) -> None:
    """Nothing that breaks the form is scored as an explanation."""
    result = read_explanation(reply(text), NAME)
    assert isinstance(result, Failure)
    assert (result.stage, result.kind) == ("explain", "invalid")


def test_the_longest_explanation_is_read() -> None:
    """The limit itself is allowed."""
    assert read_explanation(reply(json.dumps({"explanation": "é" * LONGEST})), NAME) == Explanation("é" * LONGEST, NAME)


@pytest.mark.parametrize("first", [reply("no"), Failure("explain", "truncated", "cut off")])
def test_an_unreadable_answer_is_asked_for_once_more(first: Reply | Failure) -> None:
    """The same request as a fresh draw: nothing of the bad answer is sent back."""
    result, asked = explain(first, reply('{"explanation": "cats"}'))
    assert result == Explanation("cats", NAME)
    assert asked[1] == replace(asked[0], replicate=1)


def test_the_second_unreadable_answer_is_the_outcome() -> None:
    """Two calls at most, then a failure that is counted."""
    result, asked = explain(reply("no"), reply("no"))
    assert isinstance(result, Failure)
    assert result.kind == "invalid"
    assert len(asked) == 2


def test_a_refusal_is_not_asked_again() -> None:
    """A failure that would repeat is passed on as it is."""
    refusal = Failure("explain", "refusal", "no")
    assert explain(refusal)[0] is refusal


def test_a_stop_passes_through() -> None:
    """What ends the run is no failure of the unit."""
    with pytest.raises(BudgetReached):
        explain(BudgetReached())
