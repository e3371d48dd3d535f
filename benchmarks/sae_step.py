"""Writes `results/benchmarks/sae_step.md`: a training step here and in the other libraries, on the same batches.

    python -m benchmarks.sae_step --peers ~/.cache/autointerp/peers
    python -m benchmarks.sae_step --sizes 4096:4096 --kinds relu --rounds 3          # a short look

The environment of the others is made on the first use (`benchmarks.peers`). Contestants take turns in one process
per kind and size (`benchmarks.sae_step_side`), the machine's own matrix products among them. What is measured is kept
in `results/benchmarks/sae_step.json` at once and not measured again: remove the file to begin anew.
"""

import argparse
import itertools
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
SIZES = ("4096:4096", "4096:8192", "32768:4096", "32768:8192")
GPU_SIZES = ("131072:8192",)
KINDS = {"relu": "ReLU, L1", "topk": f"TopK, k = {K}", "batchtopk": f"BatchTopK, k = {K}", "jumprelu": "JumpReLU"}
MEMORY = {
    "relu": ("ours april-2024 fp32", "ours april-2024 bf16", "SAELens", "dictionary_learning"),
    "topk": ("ours topk fp32", "ours topk bf16", "SAELens", "dictionary_learning", "sparsify adam"),
}
"""Whose memory is measured."""


def useful_flops(kind, d_sae, batch):
    """What a step needs: five products with all units, or one and four with the chosen ones."""
    dense = 10 if kind in {"relu", "jumprelu"} else 2
    return batch * (dense * D_IN * d_sae + (0 if dense == 10 else 8 * D_IN * K))


def side(python, kind, d_sae, batch, rounds, only=()):
    """The side's JSON."""
    words = [str(python), "-m", "benchmarks.sae_step_side", "--kind", kind, "--d-sae", str(d_sae)]
    words += ["--batch", str(batch), "--rounds", str(rounds), *(["--only", *only] if only else [])]
    done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment())
    return json.loads(done.stdout.strip().splitlines()[-1])


def machine_of(python):
    """Name of the GPU that the side has, or of the processor, and whether there is a GPU."""
    words = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    done = subprocess.run([str(python), "-c", words], check=True, stdout=subprocess.PIPE, text=True)
    if gpu := done.stdout.strip():
        return gpu, True
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (named[0] if named else platform.processor() or platform.machine()), False


def environment():
    """This process's, with this repository on the path."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def ratios(setting):
    """The fastest peer's median over our fastest one's, fp32 against fp32 and best against best; and their minima's."""
    for label, kept in (("fp32 against fp32", True), ("best against best", False)):
        rows = [row for row in setting["rows"] if row["fp32"] or not kept]
        mine = [row for row in rows if row["name"].startswith("ours")]
        peers = [row for row in rows if not row["name"].startswith(("ours", "autograd", "ceiling"))]
        if mine and peers:
            ours, theirs = (min(group, key=lambda row: row["median"]) for group in (mine, peers))
            yield label, ours, theirs, theirs["median"] / ours["median"], theirs["min"] / ours["min"]


def section(setting):
    """The lines of one kind at one size."""
    kind, d_sae, batch = setting["kind"], setting["d_sae"], setting["batch"]
    ceilings = {row["name"].split()[1]: row["median"] for row in setting["rows"] if row["name"].startswith("ceiling")}
    rate = {name: 2 * D_IN * d_sae * batch / ms / 1e9 for name, ms in ceilings.items()}
    yield from ("", f"## {KINDS[kind]}: {D_IN} -> {d_sae:,}, batch {batch:,}", "")
    yield f"{setting['rounds']} rounds, {setting['threads']} threads, torch {setting['torch']}, {setting['day']},"
    yield f"{setting['machine']}. Ceilings: " + ", ".join(f"{name} {value:.2f} TFLOP/s" for name, value in rate.items())
    yield from ("", "| | median | fastest | samples/s | of fp32 ceiling | of bf16 ceiling |")
    yield "|---|---:|---:|---:|---:|---:|"
    for row in sorted(setting["rows"], key=lambda row: row["median"]):
        if row["name"].startswith("ceiling"):
            continue
        done = useful_flops(kind, d_sae, batch) / row["median"] / 1e9
        shares = " | ".join(f"{done / rate[name]:.2f}" for name in ("fp32", "bf16"))
        per_second = f"{batch / row['median'] * 1e3:,.0f}"
        yield f"| {row['name']} | {row['median']:.1f} | {row['min']:.1f} | {per_second} | {shares} |"
    found = list(ratios(setting))
    if found:
        yield from ("", "| ratio | ours | fastest other | by medians | by fastest rounds |", "|---|---|---|---:|---:|")
    for label, ours, theirs, by_median, by_min in found:
        yield f"| {label} | {ours['name']} | {theirs['name']} | {by_median:.2f} | {by_min:.2f} |"
    yield from (f"\nCould not run: {name}: {' '.join(why.split())}" for name, why in setting["failed"].items())


def page(measured):
    """The whole page."""
    lines = ["# A training step, here and elsewhere", ""]
    lines += [
        f"Width {D_IN}; milliseconds per step, median and fastest of the rounds; all took turns in one process.",
        "`medium` sets torch's float32 matmul precision, for others as for ours; `autocast` is torch's, to bfloat16,",
        "around the step; SAELens has flags of its own for that and for compiling. Where a kind is ours alone, nobody",
        "else was measured. Share: useful operations (10 d m per token, TopK family 2 d m + 8 d k) per second over",
        "those of one fp32 or bf16 product of the encoder's size in the same rounds.",
        "Written by `python -m benchmarks.sae_step`.",
    ]
    for setting in measured["settings"]:
        lines += section(setting)
    for machine, memory in measured["memory"].items():
        lines += ["", "## Peak memory", ""]
        lines += [f"Alone in a process, 512 -> 4,096, batch 4,096, above the imports; {machine}.", ""]
        lines += ["| | MiB |", "|---|---:|", *(f"| {name} | {mib:,} |" for name, mib in memory.items())]
    return "\n".join(lines) + "\n"


def main():
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "autointerp" / "peers")
    parser.add_argument("--sizes", nargs="*", help="UNITS:BATCH; none: memory only")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--rounds", type=int, help="default 9, and 3 above 10,000 units")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    python = make_peers(given.peers.expanduser().resolve())
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "sae_step.json"
    measured = json.loads(kept.read_text("utf-8")) if kept.exists() else {"settings": [], "memory": {}}
    machine, has_gpu = machine_of(python)
    memory = measured["memory"].setdefault(machine, {})
    sizes = given.sizes if given.sizes is not None else [*SIZES, *(GPU_SIZES if has_gpu else ())]

    def keep():
        measured["settings"].sort(key=lambda each: (list(KINDS).index(each["kind"]), each["d_sae"], each["batch"]))
        kept.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        (given.out / "sae_step.md").write_text(page(measured), encoding="utf-8")

    for size, kind in itertools.product(sizes, given.kinds):
        d_sae, batch = map(int, size.split(":"))
        about = {"kind": kind, "d_sae": d_sae, "batch": batch, "machine": machine}
        if any(about.items() <= each.items() for each in measured["settings"]):
            continue
        found = side(python, kind, d_sae, batch, given.rounds or (3 if d_sae > 10_000 else 9))
        measured["settings"].append({**found, **about, "day": f"{datetime.now(UTC):%Y-%m-%d}"})
        keep()
    for kind in given.kinds:
        for name in MEMORY.get(kind, ()):
            whose = name if name.startswith("ours") else f"{name} {kind}"
            if whose not in memory:
                memory[whose] = side(python, kind, 4096, 4096, 1, [name])["peak_mib"]
                keep()


if __name__ == "__main__":
    main()
