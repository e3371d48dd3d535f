"""Writes `results/benchmarks/sae_end_to_end.md`: training from the subject's text on, here and in the other libraries.

    python -m benchmarks.sae_end_to_end --peers ~/.cache/autointerp/peers
    python -m benchmarks.sae_end_to_end --rounds 1               # a short look; again with 2 goes on from there

The environment of the others is made on the first use (`benchmarks.peers`). A round runs every contestant once, each in
a process of its own (`benchmarks.sae_end_to_end_side`), which measures the machine's own matrix products afterwards.
What is measured is kept in `results/benchmarks/sae_end_to_end.json` at once; remove the file to begin anew.
"""

import argparse
import json
import statistics
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.peers import make_peers
from benchmarks.sae_end_to_end_side import CONTESTANTS as BY_NAME
from benchmarks.sae_step import RESULTS, ROOT, environment, machine_of

CONTESTANTS = {kind: tuple(who for who in BY_NAME if kind in who.split()) for kind in ("relu", "topk")}
REDUCED = ("medium", "bf16", "autocast")


def side(python, who):
    """The side's JSON, or why there is none."""
    words = [str(python), "-m", "benchmarks.sae_end_to_end_side", "--who", who]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True, env=environment())
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        return {"who": who, "failed": last[0][:200]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def rows(measured, kind):
    """One row per contestant of `kind` that ran: medians over the rounds."""
    for who in CONTESTANTS[kind]:
        runs = [run for run in measured["runs"] if run["who"] == who and "failed" not in run]
        if runs:
            rates = [run["tokens_per_second"] for run in runs]
            yield {
                "who": who,
                "fp32": not who.endswith(REDUCED),
                "ours": who.startswith("ours"),
                "rate": statistics.median(rates),
                "best": max(rates),
                "peak": statistics.median(run["peak_mib"] for run in runs),
                "base": statistics.median(run["base_mib"] for run in runs),
                "rounds": len(runs),
            }


def ratios(found):
    """Ours over the fastest other, by tokens per second, and our peak over the smallest other's that has a pool."""
    for label, kept in (("fp32 against fp32", True), ("best against best", False)):
        entered = [row for row in found if row["fp32"] or not kept]
        ours = max((row for row in entered if row["ours"]), key=lambda row: row["rate"], default=None)
        others = [row for row in entered if not row["ours"]]
        theirs = max(others, key=lambda row: row["rate"], default=None)
        small = min((row for row in others if "sparsify" not in row["who"]), key=lambda row: row["peak"], default=None)
        if ours and theirs and small:
            memory = f"{ours['peak']:,.0f} against {small['peak']:,.0f} ({small['who']})"
            rates = ours["rate"] / theirs["rate"], ours["best"] / theirs["best"]
            yield label, ours["who"], theirs["who"], *rates, memory


def page(measured):
    """The whole page."""
    runs = [run for run in measured["runs"] if "failed" not in run]
    lines = ["# Training from the subject, here and elsewhere", ""]
    if not runs:
        return "\n".join(lines) + "\n"
    products = [[run["ceilings"][i] for run in runs] for i in (0, 1)]
    spans = [f"{min(each):.2f} to {max(each):.2f}, median {statistics.median(each):.2f}" for each in products]
    one = runs[0]
    pool, batch = one["pool"] * one["batch"], one["batch"]
    lines += [
        f"The neurons of the bundled subject (512 wide) -> {one['d_sae']:,}, batches of {batch:,}, every library's own",
        f"training loop and buffer, a pool of {pool:,} tokens (sparsify has none: the contexts of a forward pass are a",
        "batch). Tokens per second over 32 steps, beginning when as many batches were drawn as the pool holds; median",
        "and best over the rounds. Peak: of the whole process, and above what it had before the run. All get ids.",
        "`medium` is torch's float32 matmul precision, `autocast` torch's own to bfloat16, for SAELens its two flags.",
        f"{measured['machine']}, {one['threads']} threads, torch {one['torch']}, {measured['day']}.",
        f"Matrix products after each run, TFLOP/s: fp32 {spans[0]}; bf16 {spans[1]}.",
        "Written by `python -m benchmarks.sae_end_to_end`.",
    ]
    for kind, title in (("relu", "ReLU, L1"), ("topk", "TopK, k = 32")):
        found = sorted(rows(measured, kind), key=lambda row: -row["rate"])
        lines += [
            "",
            f"| {title} | tokens/s | best | peak, MiB | above the start | rounds |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for row in found:
            cells = (row["rate"], row["best"], row["peak"], row["peak"] - row["base"])
            lines += [f"| {row['who']} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + f" | {row['rounds']} |"]
        lines += [
            "",
            "| ratio | ours | fastest other | by medians | by best | peak, MiB |",
            "|---|---|---|---:|---:|---|",
        ]
        for label, ours, theirs, by_median, by_best, memory in ratios(found):
            lines += [f"| {label} | {ours} | {theirs} | {by_median:.2f} | {by_best:.2f} | {memory} |"]
    failed = {run["who"]: run["failed"] for run in measured["runs"] if "failed" in run}
    lines += [f"\nCould not run: {who}: {why}" for who, why in failed.items()]
    return "\n".join(lines) + "\n"


def main():
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "autointerp" / "peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--only", nargs="+", help="contestants, such as 'ours relu bf16'; default all")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    python = make_peers(given.peers.expanduser().resolve())
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "sae_end_to_end.json"
    about = {"machine": machine_of(python)[0], "day": f"{datetime.now(UTC):%Y-%m-%d}"}
    measured = json.loads(kept.read_text("utf-8")) if kept.exists() else {**about, "runs": []}
    for i in range(given.rounds):
        for who in (who for kind in given.kinds for who in CONTESTANTS[kind]):
            entered = given.only is None or who in given.only
            if not entered or sum(run["who"] == who for run in measured["runs"]) > i:
                continue
            measured["runs"].append(side(python, who))
            print(json.dumps(measured["runs"][-1]), flush=True)
            kept.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
            (given.out / "sae_end_to_end.md").write_text(page(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
