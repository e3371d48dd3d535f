"""The language-model layer against the loopback server: units per second beside delphi's, CPU per call, the throttle.

    python -m benchmarks.llm_throughput --delphi-venv ~/.cache/autointerp/eai-delphi

Needs a package index once, to make delphi's environment. Every measurement runs in a process of its own beside the
server's; rounds are interleaved, since absolute times depend on the machine's other load: read the ratios. The tables
go to ``results/benchmarks/llm_throughput.md``, the raw rows to the file beside it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import llm_tables
from benchmarks.llm_units import RECORDS, synthetic_records
from benchmarks.our_side import PER_MINUTE, START
from tests.servers.loopback import launch

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "benchmarks" / "llm_throughput.md"
LATENCY = 0.05
"""Seconds before every reply."""
OURS = ("1:6", "10:48", "32:96", "64:96")
DELPHI = ("classify:1:6", "classify:10:32", "classify:64:64", "simulate:1:3", "simulate:10:10")
"""Per round: (scorers,) units at once, units in all."""
_PACKAGES = ("eai-delphi==0.1.3", "orjson", "aiofiles", "asyncer", "simple_parsing", "docstring_parser", "tiktoken")
"""What the classes used import and our environment lacks; the rest (torch, transformers, httpx) is taken from ours."""

_PAGE = """\
# The language-model layer against the loopback server

Written by `python -m benchmarks.llm_throughput`. The server is a process of its own, {latency} ms before every reply.
Medians over the rounds ({rounds}, interleaved), least and most in brackets. Absolute times depend on the machine's
other load (its mean over 1, 5 and 15 minutes is given; after the last round it was {load}): read the ratios.

{facts}

## Units

{throughput}

Ratios of medians, ours over delphi's:

{ratios}

{differences}

## CPU per call

The same simulator requests (20 excerpts each) by the SDK's own typed methods, with the SDK's own connections, and by
`Client.answer`, which renders, keys, reserves, sends, settles and stores. CPU of the whole process, its writer thread
included.

{calls}

## Throttle

The server refuses what exceeds its limit in any 60 seconds. The limit can only be met once that window is full, so the
run is longer than a minute.

{throttle}
"""


def make_delphi(folder: Path) -> Path:
    """The Python of delphi's environment, which is made where there is none."""
    python = folder / "bin" / "python"
    done = folder / "ready"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *_PACKAGES], check=True)
        purelib = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        (purelib / "host.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
        done.write_text("\n".join(_PACKAGES), "utf-8")
    return python


def run_side(*command: str | Path) -> list[dict[str, Any]]:
    """The rows that a program of one side prints."""
    done = subprocess.run([*map(str, command)], cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def measure(delphi: Path, rounds: int, scale: float, calls: int, seconds: float) -> dict[str, Any]:
    """All rows, by measurement; `scale` multiplies the units of every setting."""
    ours, theirs = _scaled(OURS, scale), _scaled(DELPHI, scale)
    units = max(int(setting.rpartition(":")[2]) for setting in (*ours, *theirs))
    found: dict[str, Any] = {"units": [], "calls": []}
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records.json"
        records.write_bytes(RECORDS.dump_json(synthetic_records(units)))
        flags = ("--delay", str(LATENCY), "--answers", "benchmarks.llm_answers:answer")
        side = (sys.executable, "-m", "benchmarks.our_side")
        for number in range(rounds):
            with launch(*flags) as url:
                given = ("--url", url, "--records", records)
                found["units"] += run_side(*side, "units", *given, "--settings", *ours)
                found["units"] += run_side(delphi, "benchmarks/delphi_side.py", *given, "--settings", *theirs)
                first = ["--ours-first"] if number % 2 else []
                found["calls"] += run_side(*side, "calls", *given, "--calls", str(calls), *first)
            print(f"round {number + 1} of {rounds} done", file=sys.stderr)
        with launch(*flags, "--rpm", str(PER_MINUTE), "--window", "60") as url:
            given = ("--url", url, "--records", records)
            [found["throttle"]] = run_side(*side, "throttle", *given, "--seconds", str(seconds))
    return found


def machine() -> dict[str, str]:
    """What absolute times depend on."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "processor": f"{os.cpu_count()} cores, {cpu[0].partition(':')[2].strip() if cpu else platform.machine()}",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("openai", "anthropic", "httpx", "torch")},
        "eai-delphi": _PACKAGES[0].partition("==")[2],
    }


def page(found: dict[str, Any]) -> str:
    """The report in Markdown."""
    figures = llm_tables.summarise(found["units"])
    return _PAGE.format(
        latency=f"{1000 * LATENCY:.0f}",
        rounds=found["rounds"],
        facts=", ".join(f"{name} {value}" for name, value in found["machine"].items()),
        load=found["machine_after"]["load"],
        throughput=llm_tables.throughput_table(figures),
        ratios=llm_tables.ratio_table(figures),
        differences=llm_tables.DIFFERENCES,
        calls=llm_tables.calls_table(found["calls"]),
        throttle=llm_tables.throttle_table(found["throttle"], PER_MINUTE),
    )


def _scaled(settings: tuple[str, ...], scale: float) -> list[str]:
    parts = [setting.rpartition(":") for setting in settings]
    return [f"{head}:{max(1, round(int(n) * scale))}" for head, _, n in parts]


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delphi-venv", type=Path, default=Path("~/.cache/autointerp/eai-delphi"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the units of every setting")
    parser.add_argument("--calls", type=int, default=512, help="per SDK, side and concurrency, each round")
    parser.add_argument("--throttle-seconds", type=float, default=90.0)
    given = parser.parse_args()
    if given.throttle_seconds <= START:
        parser.error(f"the throttle's run must be longer than its start-up of {START:.0f} seconds")
    delphi, before = make_delphi(given.delphi_venv.expanduser().resolve()), machine()
    rows = measure(delphi, given.rounds, given.scale, given.calls, given.throttle_seconds)
    found = {"machine": before, "machine_after": machine(), "rounds": given.rounds, **rows}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    OUT.write_text(page(found), "utf-8")
    print(OUT.read_text("utf-8"))


if __name__ == "__main__":
    main()
