"""Training again with another sparsity weight until the L0 is the one asked for. Every run is kept on disk."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sae.config import L1, BatchTopK, JumpRelu, TopK, TrainingRecipe
from sae.recipes import training_recipe

TOLERANCE = 0.05
"""Of L0, relative."""
_SAME = 1e-3
"""Relative difference of weights below which a try repeats another."""


@dataclass(frozen=True)
class Setting:
    """One cell of a table: what is trained, at which L0."""

    table: str
    on: str
    recipe: str
    seed: int
    tokens: int
    target: float

    def key(self) -> dict[str, Any]:
        """What a run must agree in to count for this cell."""
        return {name: getattr(self, name) for name in ("table", "on", "recipe", "seed", "tokens", "target")}


class Runs:
    """All runs that have ended, on disk."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def of(self, setting: Setting) -> list[dict[str, Any]]:
        """The runs of one cell."""
        return [row for row in self.rows if setting.key().items() <= row.items()]

    def add(self, row: dict[str, Any]) -> None:
        """Keep one more run."""
        self.rows.append(row)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def weight_of(recipe: TrainingRecipe) -> tuple[str, float]:
    """The field that decides how many units fire, and its preset."""
    match recipe.sparsity:
        case L1(l1=l1):
            return "l1", l1
        case JumpRelu(l0=l0):
            return "l0", l0
        case TopK(k=k) | BatchTopK(k=k):
            return "k", k


def next_weight(tried: Sequence[tuple[float, float]], target: float, first: float) -> float:
    """The sparsity weight to try after the (weight, L0) in `tried`: on the line through two of them, in logarithms.

    They are the nearest on either side of `target` where there are such, else the nearest two. After one try, or where
    L0 rises with the weight, the weight moves by the ratio of the L0s; no step is larger than eightfold. No try is
    repeated, since trainings can differ by more than their weights: then the weight moves on by that ratio.
    """
    if not tried:
        return first
    logs = [(math.log(weight), math.log(max(l0, 1e-3) / target)) for weight, l0 in reversed(tried)]
    logs.sort(key=lambda each: abs(each[1]))
    (weight, miss), *others = logs
    beyond = [each for each in others if each[1] * miss < 0] or others
    slope = -1.0
    if beyond and (rise := (miss - beyond[0][1]) / (weight - beyond[0][0])) < 0:
        slope = min(rise, -0.1)
    found = weight + _bounded(-miss / slope)
    while any(abs(found - other) < _SAME for other, _ in logs):
        found += math.copysign(max(abs(_bounded(miss)), TOLERANCE), miss)
    return math.exp(found)


def _bounded(step: float) -> float:
    return max(-math.log(8), min(math.log(8), step))


def matched(
    setting: Setting, runs: Runs, make: Callable[[str, float], Mapping[str, Any]], tries: int, first: float | None
) -> dict[str, Any]:
    """The run of `setting` whose L0 is nearest to the one asked for, after up to `tries` of them."""
    name, preset = weight_of(training_recipe(setting.recipe))
    while True:
        done = runs.of(setting)
        tried = [(row["weight"], row["l0"]) for row in done]
        nearest = min(done, key=lambda row: abs(row["l0"] - setting.target), default=None)
        enough = nearest is not None and abs(nearest["l0"] / setting.target - 1) <= TOLERANCE
        if nearest is not None and (enough or name == "k" or len(done) >= tries):
            return nearest
        weight = round(setting.target) if name == "k" else next_weight(tried, setting.target, first or preset)
        began = time.monotonic()
        values = make(name, weight)
        runs.add({**setting.key(), "weight": weight, **values, "seconds": round(time.monotonic() - began, 1)})
        row = runs.rows[-1]
        print(f"{setting.on} {setting.recipe} {name} {weight:.4g}: L0 {row['l0']:.2f}, {row['seconds']} s", flush=True)


def paced(name: str, **changes: Any) -> TrainingRecipe:
    """The preset `name` with `changes`, at the learning rate that `topk` has at this width."""
    recipe = training_recipe(name, **changes)
    return replace(recipe, learning_rate=training_recipe("topk", d_sae=recipe.d_sae).learning_rate)
