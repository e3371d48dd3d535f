"""How good the trained dictionaries are, by architecture: against planted ones, and on the demonstration subject.

    python -m benchmarks.sae_quality truth      # planted dictionaries, at the planted L0
    python -m benchmarks.sae_quality subject    # the demonstration subject, widths 512 to 16,384, at L0 20

Every run is a line of ``results/benchmarks/sae_truth.jsonl`` or ``sae_quality.jsonl`` as soon as it has ended;
repeated, the command only makes the runs that are missing, and writes ``sae_truth.md`` or ``sae_quality.md``; another
batch or precision needs another ``--out``. L0 is matched by training again with another sparsity weight, interpolated
on logarithms, until it is within 5 % or the tries are used up; the table tells the L0 reached. TopK's and BatchTopK's
`k` is the L0 asked for.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from autointerp.training import summary
from benchmarks import quality_subject
from benchmarks.matching import Runs, Setting, matched, paced
from sae.synthetic import Kind, Planting, plant
from sae.trainer import train_on
from sae.truth import evaluate_truth

RECIPES = ("bricken-2023", "april-2024", "topk", "batchtopk", "jumprelu")
STARTS = {"bricken-2023": 0.06, "april-2024": 3.0, "jumprelu": 0.03}
"""Sparsity weights to try first on planted dictionaries."""
_ANCHORS = """
Anchors from Towards Monosemanticity (Bricken et al. 2023), another model and 8 billion vectors: A/1 (4,096) recovers
0.79 of the loss by zero ablation, 168 dead and 292 ultra-low of 4,096; A/5 (131,072) recovers 0.945.
"""


def truth(given: argparse.Namespace) -> str:
    """The table of planted dictionaries."""
    head = ("planted", "recipe", "weight", "L0", "L0 planted", "MCC", "MMCS of planted", "MMCS of units",
            "matched correlation", "uniqueness", "F1", "shrinkage", "FVU", "dead")  # fmt: skip
    with ProcessPoolExecutor(given.jobs) as pool:
        lines = [line for each in pool.map(_planted_lines, given.kinds, repeat(given)) for line in each]
    plan = Planting("independent")
    said = (
        f"Vectors of {plan.d} numbers, {plan.features} planted directions, {plan.active:g} of them active on average; "
        f"as many units; {given.tokens:,} vectors, batch 1,024, all recipes at a learning rate of "
        f"{paced('topk', d_sae=plan.features).learning_rate:.2g}, fp32; mean over {given.seeds} seeds (least to most)."
    )
    return _page("Dictionaries against what was planted, at the planted L0", "truth", said, head, lines)


def _planted_lines(kind: Kind, given: argparse.Namespace) -> list[Sequence[str]]:
    torch.set_num_threads(given.threads)
    runs, lines = Runs(given.out / given.runs), list[Sequence[str]]()
    for name in given.recipes:
        cells = list[dict[str, Any]]()
        for seed in range(given.seeds):
            first = cells[0]["weight"] if cells else STARTS.get(name)
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
        changes = {"d_sae": units, "tokens": given.tokens, "batch": 1024, "seed": seed, field: weight}
        recipe = paced(name, **changes, precision="fp32")
        with tempfile.TemporaryDirectory() as out:
            dictionary = train_on(planted.rows(), recipe, Path(out) / "sae")
        return summary(evaluate_truth(dictionary, planted.directions, planted.held_out(50_000)))

    setting = Setting("truth", kind, name, seed, given.tokens, planted.planting.active)
    return matched(setting, runs, make, given.tries, first)


def subject(given: argparse.Namespace) -> str:
    """The table of the demonstration subject."""
    said, lines = quality_subject.lines(given)
    title = f"Dictionaries of the demonstration subject at L0 {given.l0:g}"
    return _page(title, "subject", said, quality_subject.HEAD, lines) + _ANCHORS


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
    for name, page, tokens in (("truth", "truth", 1_000_000), ("subject", "quality", 1_000_000)):
        table = tables.add_parser(name)
        table.add_argument("--out", type=Path, default=Path("results/benchmarks"))
        table.set_defaults(page=f"sae_{page}.md", runs=f"sae_{page}.jsonl")
        table.add_argument("--recipes", nargs="+", default=RECIPES)
        table.add_argument("--tokens", type=int, default=tokens)
        table.add_argument("--tries", type=int, default=6 if name == "truth" else 4)
        table.add_argument("--threads", type=int, default=1 if name == "truth" else torch.get_num_threads())
        if name == "truth":
            table.add_argument("--kinds", nargs="+", default=("independent", "zipf", "correlated", "hierarchical"))
            table.add_argument("--seeds", type=int, default=3)
            table.add_argument("--jobs", type=int, default=2, help="kinds at the same time, a process each")
        else:
            table.add_argument("--subject", default="embedded")
            table.add_argument("--widths", type=int, nargs="+", default=(512, 2048, 4096, 16_384))
            table.add_argument("--l0", type=float, default=20.0)
            table.add_argument("--precision", default="bf16")
            table.add_argument("--evaluated", type=int, default=100_000)
            table.add_argument("--batch", type=int, default=1024)
            table.add_argument("--work", type=Path, default=Path("runs/sae_quality"), help="rows and dictionaries")
            table.add_argument("--density", type=int, default=10_000_000)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    page = truth(given) if given.table == "truth" else subject(given)
    (given.out / given.page).write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
