"""Writes `results/benchmarks/sae_precision.md`: whether fewer bits cost quality, which decides the recipes' default.

    python -m benchmarks.sae_precision                      # about 20 minutes on 2 quiet cores
    python -m benchmarks.sae_precision --tokens 50k --seeds 0   # a short look

Every architecture is trained in every precision, from the same start on the same batches, on the activations of the
demonstration subject, once per seed; a seed decides the start and the order of the data. Interrupted, it goes on where
it was: the sweep by its checkpoint, the seeds by `results/benchmarks/sae_precision.json`.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from autointerp.arms import explain_windows
from autointerp.config import parse_count
from autointerp.wiring import score_windows
from sae import PRETRAINED
from sae.corpus.corpus import load_corpus
from sae.metrics import evaluate_dictionaries
from sae.recipes import training_recipe
from sae.rows import sweep
from sae.subject import load_subject

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
SITE = "blocks.0.mlp.hook_post"
SETTINGS = {
    "bricken-2023": {"l1": 0.005, "resample_at": (0.2, 0.4)},
    "april-2024": {"l1": 1.2},
    "topk": {"k": 20},
    "batchtopk": {"k": 20},
    "jumprelu": {},
}
"""Recipe and what differs from the preset."""
PRECISIONS = ("fp32", "medium", "bf16")
MEASURES = {"l0": "L0", "fvu": "FVU", "recovered_mean": "loss recovered (mean ablation)", "dead": "silent units"}
_SEEDS = 3
"""Below which there is no spread to hold a difference against."""
EVALUATED = 20_000
"""Tokens of the score split."""


def recipes(d_sae, tokens, batch, seed):
    """One per architecture and precision."""
    sizes = {"d_sae": d_sae, "tokens": tokens, "batch": batch, "seed": seed, "checkpoint_every": 400_000}
    return {
        f"{name}-{precision}": training_recipe(name, **sizes, precision=precision, **changes)
        for name, changes in SETTINGS.items()
        for precision in PRECISIONS
    }


def measure(subject, corpus, d_sae, tokens, batch, seed, work):
    """The measures of every dictionary of one seed, by name."""
    site = subject.site(SITE)
    out = work / f"{d_sae}-{tokens}-{batch}-seed-{seed}"
    begun = time.monotonic()
    trained = sweep(
        subject,
        site,
        explain_windows(corpus),
        recipes(d_sae, tokens, batch, seed),
        out,
        on_log=lambda log: print(
            f"seed {seed} {log.name} {log.tokens:,} FVU {log.fvu:.3f} L0 {log.l0:.1f}", flush=True
        ),
        resume=True,
    )
    held_out = score_windows(corpus, EVALUATED, 0)
    found = {
        name: {measure: getattr(metrics, measure) for measure in MEASURES}
        for name, metrics in evaluate_dictionaries(subject, site, trained, held_out).items()
    }
    return {"seed": seed, "seconds": round(time.monotonic() - begun), "measures": found}


def table(about, runs):
    """The page: means over the seeds with their range, and where a precision leaves the range of fp32."""
    lines = ["# Precision of the training step: quality", ""]
    lines += [
        f"512 -> {about['d_sae']:,} on the demonstration subject, {about['tokens']:,} tokens, "
        f"batch {about['batch']:,}, seeds "
        + ", ".join(str(run["seed"]) for run in runs)
        + f"; measured on {EVALUATED:,} held-out tokens.",
        "Mean over the seeds (smallest to largest). *Same*: for every measure, the mean differs from that of fp32 by",
        "no more than fp32's own seeds differ from each other. Written by `python -m benchmarks.sae_precision`.",
        "",
        "| recipe | precision | " + " | ".join(MEASURES.values()) + " | same as fp32 |",
        "|---|---|" + "---:|" * len(MEASURES) + "---|",
    ]
    for recipe in SETTINGS:
        for precision in PRECISIONS:
            cells, apart = [], []
            for measure, title in MEASURES.items():
                values, full = (
                    [run["measures"][f"{recipe}-{each}"][measure] for run in runs] for each in (precision, "fp32")
                )
                mean, spread = statistics.mean(values), max(full) - min(full)
                cells.append(f"{mean:.4g} ({min(values):.4g} to {max(values):.4g})")
                if abs(mean - statistics.mean(full)) > spread:
                    apart.append(title)
            verdict = "-" if precision == "fp32" else f"no: {', '.join(apart)}" if apart else "yes"
            if precision != "fp32" and len(runs) < _SEEDS:
                verdict = "too few seeds to tell"
            lines.append(f"| {recipe} | {precision} | {' | '.join(cells)} | {verdict} |")
    return "\n".join(lines) + "\n"


def main():
    """Measure the seeds that are missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-sae", type=int, default=1024)
    parser.add_argument("--tokens", default="300k")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/sae_precision"), help="where the sweeps are trained")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    about = {"d_sae": given.d_sae, "tokens": parse_count(given.tokens), "batch": given.batch}
    kept = given.out / "sae_precision.json"
    runs = []
    if kept.exists():
        stored = json.loads(kept.read_text("utf-8"))
        runs = stored["runs"] if stored["about"] == about else []
    subject = load_subject(str(PRETRAINED / "subject"))
    corpus = load_corpus(("local", "generated"), "text", 2 * about["tokens"], subject.tokenizer, 128, 0)
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds:
        if seed not in [run["seed"] for run in runs]:
            runs.append(measure(subject, corpus, **about, seed=seed, work=given.work))
            kept.write_text(json.dumps({"about": about, "runs": runs}, indent=1) + "\n", encoding="utf-8")
    (given.out / "sae_precision.md").write_text(table(about, runs), encoding="utf-8")


if __name__ == "__main__":
    main()
