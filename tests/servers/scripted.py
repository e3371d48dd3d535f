"""Models of known skill: they answer from the truth of a harvest, and spoil it as they are told.

What a scripted explainer says names the evidence that it was shown, so that the scripted simulator, who sees the text
and the items and nothing else, finds the unit again. Of an explanation that names no unit, and of items that were not
posed for the unit it names, all of them know nothing: they answer 0, as to controls.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from autointerp import notation
from autointerp.explain.llm import write_evidence
from autointerp.protocols.preset import Preset
from autointerp.records.explanation import Evidence, Explanation
from autointerp.records.trial import Question, Trial
from autointerp.seams import Source
from autointerp.simulate.judge import MOST, write_item
from tests.servers.answers import user_text

Skill: TypeAlias = Literal["oracle", "noisy", "token-only", "constant"]
SKILLS: tuple[Skill, ...] = ("oracle", "noisy", "token-only", "constant")
"""From the best to the worst: the truth, quantised; the truth with every fifth answer replaced by a random one; each
token's mean activation, which of a token to come tells nothing; the same answer to everything."""
NOISE = 0.2
_LEVELS = re.compile(r"^item (\d+) \(\d+ tokens?\): (.*)$", re.MULTILINE)
_LINE = re.compile(r"^item (\d+): (.*)$", re.MULTILINE)
_SAID = re.compile(r"unit ([0-9a-f]{16})")

Key: TypeAlias = tuple[str, Literal["levels", "yes-no"], str]
"""Name of the evidence, kind of answer, the item as it is written."""


@dataclass(frozen=True)
class Known:
    """What an oracle and a token table answer to one item: levels 0 to 10, or certainties 0 to 9."""

    truth: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass
class Truth:
    """Every item of every trial, and what is known of it."""

    items: dict[Key, Known] = field(default_factory=dict[Key, Known])

    @classmethod
    def of(cls, source: Source, presets: Sequence[Preset]) -> "Truth":
        """The truth of all units under all `presets`."""
        made = cls()
        for unit in source.units():
            record = source.record(unit)
            for preset in presets:
                evidence = preset.evidence(record)
                if not isinstance(evidence, Evidence):
                    continue
                name = named(write_evidence(evidence))
                trial = preset.scorer().pose(record, Explanation(_said(name), ""), source)
                if isinstance(trial, Trial):
                    made.items |= _known(name, preset.question, trial)
        return made


def named(evidence: str) -> str:
    """A name for the evidence, the same wherever it is shown."""
    return hashlib.sha256(evidence.encode()).hexdigest()[:16]


def _said(name: str) -> str:
    return f"unit {name}"


def _known(name: str, question: Question, trial: Trial) -> dict[Key, Known]:
    if question in ("levels", "levels-10"):
        scaled = [notation.quantise(each, trial.maximum, 10).tolist() for each in (trial.truth, trial.unigram)]
        return {
            (name, "levels", notation.join(item.tokens)): Known(tuple(truth), tuple(mean))
            for item, truth, mean in zip(trial.items, *scaled, strict=True)
        }
    found: dict[Key, Known] = {}
    for item, (true,), (mean,) in zip(trial.items, trial.truth.tolist(), trial.unigram.tolist(), strict=True):
        assert question in ("detection", "fuzzing", "logits")
        line = write_item(item, question)
        found[name, "yes-no", line] = Known((MOST if true else 0,), (round(MOST * mean),))
    return found


@dataclass(frozen=True)
class Scripted:
    """Answers as a model of this skill would."""

    skill: Skill
    truth: Truth

    def __call__(self, body: Mapping[str, Any]) -> str:
        """The reply's text, from the request's body."""
        text = user_text(dict(body))
        if text.startswith("Evidence for one unit:\n"):
            return json.dumps({"explanation": _said(named(text.partition(chr(10))[2]))})
        found = _SAID.search(text)
        said = found[1] if found else ""
        if levels := _LEVELS.findall(text):
            top = 10 if "or A" in json.dumps(body) else 9
            rows = [(int(n), self._answer((said, "levels", line), top)) for n, line in levels]
            return json.dumps({"predictions": [{"item": n, "levels": notation.write_levels(row)} for n, row in rows]})
        rows = [(int(n), self._answer((said, "yes-no", line), MOST)) for n, line in _LINE.findall(text)]
        return json.dumps({"answers": [{"item": n, "sure": row[0]} for n, row in rows]})

    def _answer(self, key: Key, most: int) -> list[int]:
        known = self.truth.items.get(key)
        if known is None:
            return [0] * (len(notation.split(key[2])) if key[1] == "levels" else 1)
        match self.skill:
            case "oracle":
                answer = known.truth
            case "noisy":
                rng = np.random.default_rng(list("".join(key).encode()))
                swapped = rng.random(len(known.truth)) < NOISE
                random = rng.integers(most + 1, size=len(known.truth))
                answer = tuple(np.where(swapped, random, known.truth).tolist())
            case "token-only":
                answer = known.tokens
            case "constant":
                answer = (most if key[1] == "yes-no" else 0,) * len(known.truth)
        return [min(level, most) for level in answer]
