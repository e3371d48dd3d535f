"""How good the trained dictionaries are, by architecture: against planted ones, and on the demonstration subject.

    python -m benchmarks.sae_quality truth      # planted dictionaries, at the planted L0
    python -m benchmarks.sae_quality subject    # the demonstration subject, widths 512 to 16,384, at L0 20

Every run is a line of ``results/benchmarks/sae_quality.jsonl`` as soon as it has ended; repeated, the command only
makes the runs that are missing, and writes ``sae_truth.md`` or ``sae_subject.md`` beside it. L0 is matched by training
again with another sparsity weight, interpolated on logarithms, until it is within 5 % or the tries are used up; the
table tells the L0 reached. TopK's and BatchTopK's `k` is the L0 asked for.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from autointerp.arms import explain_windows
from autointerp.training import summary
from autointerp.wiring import score_windows, subject_path
from sae.config import L1, BatchTopK, JumpRelu, TopK, TrainingRecipe
from sae.corpus.corpus import load_corpus
from sae.features import firing_densities
from sae.metrics import ULTRA_LOW, evaluate_dictionary
from sae.recipes import training_recipe
from sae.rows import train
from sae.subject import load_subject
from sae.synthetic import Kind, Planting, plant
from sae.trainer import train_on
from sae.truth import evaluate_truth

RECIPES = ("bricken-2023", "april-2024", "topk", "batchtopk", "jumprelu")
SITE = "blocks.0.mlp.hook_post"
TOLERANCE = 0.05
"""Of L0, relative."""
RUNS = "sae_quality.jsonl"
_ANCHORS = """
Anchors from Towards Monosemanticity (Bricken et al. 2023), another model and 8 billion vectors: A/1 (4,096) recovers
0.79 of the loss by zero ablation, 168 dead and 292 ultra-low of 4,096; A/5 (131,072) recovers 0.945.
"""


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

    They are the nearest on either side of `target` where there are such, else the nearest two. One try, or two that do
    not fall, move by the ratio of the L0s; no step is larger than eightfold.
    """
    if not tried:
        return first
    logs = [(math.log(weight), math.log(max(l0, 1e-3) / target)) for weight, l0 in reversed(tried)]
    logs.sort(key=lambda each: abs(each[1]))
    (weight, miss), *others = logs
    beyond = [each for each in others if each[1] * miss < 0] or others
    slope = -1.0
    if beyond and beyond[0][0] != weight:
        slope = min((miss - beyond[0][1]) / (weight - beyond[0][0]), -0.1)
    return math.exp(weight + max(-math.log(8), min(math.log(8), -miss / slope)))


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


def truth(given: argparse.Namespace) -> str:
    """The table of planted dictionaries."""
    head = ("planted", "recipe", "weight", "L0", "L0 planted", "MCC", "MMCS of planted", "MMCS of units",
            "matched correlation", "uniqueness", "F1", "shrinkage", "FVU", "dead")  # fmt: skip
    with ProcessPoolExecutor(given.jobs) as pool:
        lines = [line for each in pool.map(_planted_lines, given.kinds, repeat(given)) for line in each]
    plan = Planting("independent")
    said = (
        f"Vectors of {plan.d} numbers, {plan.features} planted directions, {plan.active:g} of them active on average; "
        f"as many units; {given.tokens:,} vectors, batch 1,024; mean over {given.seeds} seeds (least to most)."
    )
    return _page("Dictionaries against what was planted, at the planted L0", "truth", said, head, lines)


def _planted_lines(kind: Kind, given: argparse.Namespace) -> list[Sequence[str]]:
    torch.set_num_threads(given.threads)
    runs, lines = Runs(given.out / RUNS), list[Sequence[str]]()
    for name in given.recipes:
        cells = list[dict[str, Any]]()
        for seed in range(given.seeds):
            first = cells[0]["weight"] if cells else None
            cells.append(_planted_cell(kind, name, seed, given, runs, first))
        fields = ("mcc", "mmcs_planted", "mmcs_units", "matched_correlation", "uniqueness", "f1", "shrinkage", "fvu")
        weights = "/".join(f"{cell['weight']:.3g}" for cell in cells)
        planted = f"{mean(cell['l0'] - cell['l0_error'] for cell in cells):.2f}"
        lines.append(
            (kind, name, weights, _spread([cell["l0"] for cell in cells], 2), planted,
             *(_spread([cell[field] for cell in cells], 3) for field in fields),
             _spread([cell["dead"] for cell in cells], 0))
        )  # fmt: skip
    return lines


def _planted_cell(
    kind: Kind, name: str, seed: int, given: argparse.Namespace, runs: Runs, first: float | None
) -> dict[str, Any]:
    planted = plant(Planting(kind), seed)

    def make(field: str, weight: float) -> Mapping[str, Any]:
        units = planted.planting.features
        recipe = training_recipe(name, d_sae=units, tokens=given.tokens, batch=1024, seed=seed, **{field: weight})
        with tempfile.TemporaryDirectory() as out:
            dictionary = train_on(planted.rows(), recipe, Path(out) / "sae")
        return summary(evaluate_truth(dictionary, planted.directions, planted.held_out(50_000)))

    setting = Setting("truth", kind, name, seed, given.tokens, planted.planting.active)
    return matched(setting, runs, make, given.tries, first)


def subject(given: argparse.Namespace) -> str:
    """The table of the demonstration subject."""
    torch.set_num_threads(given.threads)
    runs = Runs(given.out / RUNS)
    model = load_subject(subject_path(given.subject))
    site = model.site(SITE)
    corpus = load_corpus(("local", "generated"), "text", max(2 * given.tokens, given.density), model.tokenizer, 128, 0)
    windows, held_out = explain_windows(corpus), score_windows(corpus, given.evaluated, 0)
    counted = corpus.windows.select(np.arange(min(len(corpus.windows), -(-given.density // 127))))
    head = ("width", "recipe", "weight", "L0", "FVU", "recovered, zero", "recovered, mean", "dead",
            f"ultra-low of {counted.n_tokens:,} tokens")  # fmt: skip
    lines, first = [], dict[str, float]()
    for width in given.widths:
        for name in given.recipes:
            setting = Setting("subject", str(width), name, 0, given.tokens, given.l0)

            def make(field: str, weight: float, name: str = name, width: int = width) -> Any:
                recipe = training_recipe(
                    name, d_sae=width, tokens=given.tokens, precision=given.precision, **{field: weight}
                )
                with tempfile.TemporaryDirectory() as out:
                    dictionary = train(model, site, windows, recipe, Path(out) / "sae")
                values = summary(evaluate_dictionary(model, site, dictionary, held_out))
                density = firing_densities(model, site, dictionary, counted)
                values["never"] = int((density == 0).sum())
                values["below"] = int(((density > 0) & (density < ULTRA_LOW)).sum())
                values["counted"] = counted.n_tokens
                return values

            row = matched(setting, runs, make, given.tries, first.get(name))
            first[name] = row["weight"]
            enough = row["counted"] * ULTRA_LOW >= 10  # ten expected firings at the edge
            lines.append(
                (f"{width:,}", name, f"{row['weight']:.3g}", f"{row['l0']:.1f}", f"{row['fvu']:.3f}",
                 f"{row['recovered_zero']:.3f}", f"{row['recovered_mean']:.3f}", f"{row['never']:,}",
                 f"{row['below']:,}" if enough else "too few tokens")
            )  # fmt: skip
    said = (
        f"{given.subject} at {SITE}; {given.tokens:,} tokens of the explain split, {held_out.n_tokens:,} of the score "
        f"split for the losses, precision {given.precision}. Dead: never fired in the {counted.n_tokens:,} tokens."
    )
    title = f"Dictionaries of the demonstration subject at L0 {given.l0:g}"
    return _page(title, "subject", said, head, lines) + _ANCHORS


def _spread(values: Sequence[float], digits: int) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _page(title: str, table: str, said: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---", "---", *["---:"] * (len(head) - 2)], *lines]
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"# {title}\n\nWritten by `python -m benchmarks.sae_quality {table}`. {said}\n\n{body}\n"


def main() -> None:
    """Make the runs that are missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = parser.add_subparsers(dest="table", required=True)
    for name, tokens in (("truth", 2_000_000), ("subject", 2_000_000)):
        table = tables.add_parser(name)
        table.add_argument("--out", type=Path, default=Path("results/benchmarks"))
        table.add_argument("--recipes", nargs="+", default=RECIPES)
        table.add_argument("--tokens", type=int, default=tokens)
        table.add_argument("--tries", type=int, default=6)
        table.add_argument("--threads", type=int, default=1 if name == "truth" else torch.get_num_threads())
        if name == "truth":
            table.add_argument("--kinds", nargs="+", default=("independent", "zipf", "correlated", "hierarchical"))
            table.add_argument("--seeds", type=int, default=3)
            table.add_argument("--jobs", type=int, default=2, help="kinds at the same time, a process each")
        else:
            table.add_argument("--subject", default="embedded")
            table.add_argument("--widths", type=int, nargs="+", default=(512, 2048, 4096, 16_384))
            table.add_argument("--l0", type=float, default=20.0)
            table.add_argument("--precision", default="medium")
            table.add_argument("--evaluated", type=int, default=200_000)
            table.add_argument("--density", type=int, default=10_000_000)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    page = truth(given) if given.table == "truth" else subject(given)
    (given.out / f"sae_{given.table}.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
