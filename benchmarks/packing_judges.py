"""Scripted simulators for the packing audit: what the loopback server answers, from the prompt alone.

All read the token table that `lookup` writes as an explanation. ``honest`` judges every item by itself. The others show
what packing can do to a model: ``contrast`` judges items against each other and expects a third of a call's to fire;
``tired`` overlooks the later items of a long call.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from autointerp import notation
from tests.servers.answers import user_text

_EXPLANATION = re.compile(r"^Explanation: (.*)$", re.MULTILINE)
_ITEM = re.compile(r"^item (\d+) \(\d+ tokens\): (.*)$", re.MULTILINE)
_TOP = 9
_SHARE = 3
"""One in how many items of a call ``contrast`` expects to fire."""
_AWAKE = 10
"""Items of a call that ``tired`` reads."""

Levels = list[list[float]]
"""Per item and token."""


def honest(levels: Levels) -> Levels:
    """As the table says."""
    return levels


def contrast(levels: Levels) -> Levels:
    """Nothing but in the strongest third of the call's items; the first of those that are equal."""
    ranked = sorted(range(len(levels)), key=lambda rank: -max(levels[rank]))
    fires = set(ranked[: -(-len(levels) // _SHARE)])
    return [item if rank in fires else [0.0] * len(item) for rank, item in enumerate(levels)]


def tired(levels: Levels) -> Levels:
    """Nothing after the first `_AWAKE` items."""
    return [item if rank < _AWAKE else [0.0] * len(item) for rank, item in enumerate(levels)]


JUDGES: dict[str, Callable[[Levels], Levels]] = {"honest": honest, "contrast": contrast, "tired": tired}


def answer_as(name: str) -> Callable[[dict[str, Any]], str]:
    """What judge `name` answers to a request's body."""

    def answer(body: dict[str, Any]) -> str:
        asked = user_text(body)
        told, items = _EXPLANATION.findall(asked)[-1], _ITEM.findall(asked)
        table = notation.read_table(told)
        entries, default = table or ((), 0.0)
        known = dict(entries)
        levels = JUDGES[name]([[known.get(token, default) for token in notation.split(line)] for _, line in items])
        said = [
            {"item": int(number), "levels": notation.write_levels(min(_TOP, round(level)) for level in item)}
            for (number, _), item in zip(items, levels, strict=True)
        ]
        return json.dumps({"predictions": said})

    return answer
