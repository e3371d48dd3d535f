"""Writes `results/benchmarks/sae_step.md`: a training step here and in the other libraries, on the same batches.

    python -m benchmarks.sae_step --peers ~/.cache/autointerp/peers
    python -m benchmarks.sae_step --settings 4096:4096 --rounds 3          # a short look

The environment of the others is made on the first use (`benchmarks.peers`). Contestants take turns in one process
(`benchmarks.sae_step_side`), the machine's own matrix products among them. Every setting is kept in
`results/benchmarks/sae_step.json` as soon as it is measured and not measured again: remove the file to begin anew.
"""

import argparse
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.peers import make_peers

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "benchmarks"
D_IN, K = 512, 32
SETTINGS = ("4096:4096", "4096:8192", "32768:4096", "32768:8192")
MEMORY = ("ours april-2024 fp32", "ours topk fp32", "SAELens relu", "SAELens topk", "dictionary_learning relu")
MEMORY += ("dictionary_learning topk", "sparsify topk adam")
KINDS = {"relu": "ReLU, L1", "topk": f"TopK, k = {K}", "batchtopk": f"BatchTopK, k = {K}", "jumprelu": "JumpReLU"}


def useful_flops(kind, d_sae, batch):
    """What a step needs: five products with all units, or one and four with the chosen ones."""
    dense = 10 if kind in {"relu", "jumprelu"} else 2
    return batch * (dense * D_IN * d_sae + (0 if dense == 10 else 8 * D_IN * K))


def side(python, d_sae, batch, rounds, only=()):
    """One line of the side's JSON."""
    words = [str(python), "-m", "benchmarks.sae_step_side", "--d-sae", str(d_sae), "--batch", str(batch)]
    words += ["--rounds", str(rounds), *(["--only", *only] if only else [])]
    done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment())
    return json.loads(done.stdout.strip().splitlines()[-1])


def environment():
    """This process's, with this repository on the path."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def ratios(rows):
    """For ReLU and TopK: the fastest peer's median over our fastest one, fp32 against fp32 and best against best."""
    for kind in ("relu", "topk"):
        for label, kept in (("fp32 against fp32", True), ("best against best", False)):
            of_kind = [row for row in rows if row["kind"] == kind and (row["fp32"] or not kept)]
            mine = [row for row in of_kind if row["name"].startswith("ours")]
            peers = [row for row in of_kind if not row["name"].startswith(("ours", "autograd"))]
            if mine and peers:
                ours, theirs = (min(group, key=lambda row: row["median"]) for group in (mine, peers))
                at_best = min(row["min"] for row in peers) / min(row["min"] for row in mine)
                yield kind, label, ours, theirs, theirs["median"] / ours["median"], at_best


def tables(measured):
    """The whole page."""
    lines = ["# A training step, here and elsewhere", ""]
    lines += [
        f"Width {D_IN}; milliseconds per step, median and fastest of the rounds; all took turns in one process.",
        "`medium` sets torch's float32 matmul precision, for others as for ours; `autocast` is SAELens's own flag.",
        "Share: useful operations (10 d m per token, TopK 2 d m + 8 d k) per second over those of one fp32 or bf16",
        "product of the encoder's size in the same rounds. Written by `python -m benchmarks.sae_step`.",
    ]
    for setting in measured["settings"]:
        d_sae, batch, rows = setting["d_sae"], setting["batch"], setting["rows"]
        ceilings = {row["name"].split()[1]: row["median"] for row in rows if row["kind"] == "ceiling"}
        rate = {name: 2 * D_IN * d_sae * batch / ms / 1e9 for name, ms in ceilings.items()}
        lines += ["", f"## {D_IN} -> {d_sae:,}, batch {batch:,}, {setting['rounds']} rounds", ""]
        lines += [f"{setting['machine']}; {setting['threads']} threads, torch {setting['torch']}, {setting['day']}."]
        lines += ["Ceilings: " + ", ".join(f"{name} {value:.2f} TFLOP/s" for name, value in rate.items()) + ".", ""]
        for kind, title in KINDS.items():
            of_kind = sorted((row for row in rows if row["kind"] == kind), key=lambda row: row["median"])
            lines += ["", f"| {title} | median | fastest | samples/s | of fp32 ceiling | of bf16 ceiling |"]
            lines += ["|---|---:|---:|---:|---:|---:|"]
            for row in of_kind:
                done = useful_flops(kind, d_sae, batch) / row["median"] / 1e9
                shares = " | ".join(f"{done / rate[name]:.2f}" for name in ("fp32", "bf16"))
                per_second = f"{batch / row['median'] * 1e3:,.0f}"
                lines += [f"| {row['name']} | {row['median']:.1f} | {row['min']:.1f} | {per_second} | {shares} |"]
        lines += ["", "| ratio | ours | fastest other | by medians | by fastest rounds |", "|---|---|---|---:|---:|"]
        for kind, label, ours, theirs, by_median, by_min in ratios(rows):
            lines += [f"| {kind}, {label} | {ours['name']} | {theirs['name']} | {by_median:.2f} | {by_min:.2f} |"]
        lines += [f"Could not run: {name}: {why}" for name, why in setting["failed"].items()]
    if measured["memory"]:
        lines += [
            "",
            "## Peak memory",
            "",
            "Alone in a process, 512 -> 4,096, batch 4,096, above the imports.",
            "",
        ]
        lines += ["| | MiB |", "|---|---:|", *(f"| {name} | {mib:,} |" for name, mib in measured["memory"].items())]
    return "\n".join(lines) + "\n"


def main():
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "autointerp" / "peers")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), help="UNITS:BATCH")
    parser.add_argument("--rounds", type=int, help="default 9, and 3 above 10,000 units")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    python = make_peers(given.peers.expanduser().resolve())
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "sae_step.json"
    measured = json.loads(kept.read_text("utf-8")) if kept.exists() else {"settings": [], "memory": {}}
    for setting in given.settings:
        d_sae, batch = map(int, setting.split(":"))
        if any((each["d_sae"], each["batch"]) == (d_sae, batch) for each in measured["settings"]):
            continue
        found = side(python, d_sae, batch, given.rounds or (3 if d_sae > 10_000 else 9))
        about = {"machine": platform.processor() or platform.machine(), "day": f"{datetime.now(UTC):%Y-%m-%d}"}
        measured["settings"].append({**found, **about})
        kept.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    for name in MEMORY:
        if name not in measured["memory"]:
            measured["memory"][name] = side(python, 4096, 4096, 1, [name])["peak_mib"]
            kept.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    (given.out / "sae_step.md").write_text(tables(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
