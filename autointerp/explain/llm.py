"""An explainer that asks a language model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import final

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from autointerp import notation
from autointerp.prompts import ASKED_AGAIN, DRAWS, Prompt
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Evidence, EvidenceExcerpt, Explanation, Failure
from autointerp.records.unit import LogitEffect
from autointerp.seams import Model

MAX_TOKENS = 400
"""Limit of an answer: some four times what 30 words take as JSON. Thinking is off."""
REPLICATES = 100
"""Replicates that belong to one draw: more than anybody asks for again."""
LONGEST = 400
"""Characters of an explanation, as the prompt says: a longer one is a chain of thought, or a list of tokens."""


@final
@dataclass(frozen=True, slots=True)
class LlmExplainer:
    """Shows the evidence to a language model; the arm's label reaches the ledger, never the text."""

    model: Model
    """Who answers."""
    name: str
    """``provider/model``."""
    prompt: Prompt
    """Version of the prompt ``explain``."""
    draws: int = DRAWS
    """Most answers asked for where none can be read."""
    arm: str = ""
    """The arm that pays, for the ledger."""

    def requests(self, evidence: Evidence, explanations: int) -> list[Request]:
        """What is asked first for so many explanations, if every answer can be read."""
        draws = range(0, explanations * REPLICATES, REPLICATES)
        return [render_explain(evidence, self.name, self.prompt, arm=self.arm, replicate=draw) for draw in draws]

    async def explain(self, evidence: Evidence, draw: int = 0) -> Explanation | Failure:
        """The model's explanation. An answer that cannot be read, or was cut off, is asked for again."""
        first = draw * REPLICATES
        said = await self._ask(evidence, first)
        for replicate in range(first + 1, first + self.draws):
            if not (isinstance(said, Failure) and said.kind in ASKED_AGAIN):
                break
            said = await self._ask(evidence, replicate)
        return said

    async def _ask(self, evidence: Evidence, replicate: int) -> Explanation | Failure:
        request = render_explain(evidence, self.name, self.prompt, arm=self.arm, replicate=replicate)
        reply = await self.model.answer(request)
        if isinstance(reply, Failure):
            return reply
        said = read_explanation(reply, self.name)
        if isinstance(said, Failure):
            self.model.reject(request)
        return said


def render_explain(evidence: Evidence, name: str, prompt: Prompt, *, arm: str = "", replicate: int = 0) -> Request:
    """The request that asks model `name` to explain `evidence`."""
    return Request(
        model=name,
        system=_system(prompt),
        user=prompt.user.substitute(evidence=write_evidence(evidence)),
        schema=prompt.schema,
        max_tokens=MAX_TOKENS,
        replicate=replicate,
        stage="explain",
        arm=arm,
    )


def read_explanation(reply: Reply, name: str) -> Explanation | Failure:
    """The explanation by model `name`, on one line.

    A `Failure` (``invalid``) where the reply breaks the schema, or is empty or longer than `LONGEST`.
    """
    try:
        answer = _Answer.model_validate_json(reply.text)
    except ValidationError as error:
        return Failure("explain", "invalid", f"Not the JSON asked for: {error.errors()[0]['msg']}.")
    text = " ".join(answer.explanation.split())
    if not 0 < len(text) <= LONGEST:
        return Failure("explain", "invalid", f"An explanation of {len(text)} characters; 1 to {LONGEST} are allowed.")
    return Explanation(text, name)


def write_evidence(evidence: Evidence) -> str:
    """The evidence in lines: headings, excerpts with the level behind each token that has one, logit effects."""
    lines: list[str] = []
    for label, excerpts in groupby(evidence.excerpts, key=lambda excerpt: excerpt.label):
        lines += [f"[{label}]", *(write_excerpt(excerpt) for excerpt in excerpts)]
    for heading, effects in (("promoted", evidence.promoted), ("suppressed", evidence.suppressed)):
        if effects:
            lines += [f"[{heading}]", notation.join([effect.token for effect in effects])]
    return "\n".join(lines)


def write_excerpt(excerpt: EvidenceExcerpt) -> str:
    """Tokens on one line; behind each token above level 0 an empty cell and its level, as in `` the││9│ cat``.

    No token is empty or contains the separator, so every level can be found again.
    """
    cells: list[str] = []
    for token, level in zip(excerpt.tokens, excerpt.levels, strict=True):
        cells += [token, "", notation.write_levels([level])] if level else [token]
    return notation.join(cells)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    explanation: str


@dataclass(frozen=True, slots=True)
class _Demonstration:
    """An invented unit, explained."""

    excerpts: Sequence[tuple[str, str, str]]
    """Label, tokens (as `notation.join` writes them) and levels."""
    promoted: str
    """Tokens in the same writing."""
    suppressed: str
    """Tokens in the same writing."""
    reasoning: str
    """What leads from the evidence to the answer."""
    explanation: str
    """The answer."""


_DEMONSTRATIONS = TypeAdapter(tuple[_Demonstration, ...])


@cache
def _system(prompt: Prompt) -> str:
    demonstrations = _DEMONSTRATIONS.validate_json(prompt.demonstrations)
    shown = (
        f"Demonstration {number}\n{write_evidence(_evidence(shown))}\nReasoning: {shown.reasoning}\n"
        f"Answer: {_Answer(explanation=shown.explanation).model_dump_json()}"
        for number, shown in enumerate(demonstrations, start=1)
    )
    return prompt.system.substitute(demonstrations="\n\n".join(shown))


def _evidence(demonstration: _Demonstration) -> Evidence:
    excerpts = tuple(
        EvidenceExcerpt(notation.split(line), tuple(int(level) for level in levels), label)
        for label, line, levels in demonstration.excerpts
    )
    promoted, suppressed = (
        tuple(LogitEffect(token, weight=0.0) for token in notation.split(line))
        for line in (demonstration.promoted, demonstration.suppressed)
    )
    return Evidence(excerpts, promoted, suppressed, top_level=9)
