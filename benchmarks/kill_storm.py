"""A run of 3,000 calls at concurrency 64, killed a hundred times by SIGKILL: what was injected, what was lost.

    .venv/bin/python -m benchmarks.kill_storm

Once with an ample and once with a tight budget; the table goes to ``results/benchmarks/kill_storm.md``.
"""

import tempfile
from pathlib import Path

from tests.servers.storm import CONCURRENCY, Storm, Toll, endure

KILLS, CALLS = 100, 3000
OUT = Path(__file__).parents[1] / "results" / "benchmarks" / "kill_storm.md"
ROWS = {
    "processes killed": "killed",
    "processes that reached their budget or the end first": "spared",
    "comparisons of bill, store and cap": "checks",
    "times that not billed <= committed <= cap": "breaches",
    "settled answers requested again": "asked_again",
    "answers missing at the end": "missing",
    "answers unlike an undisturbed run's": "different",
    "requests received by the server": "requests",
    "answers billed again: under way at a kill, or lost on the network": "paid_twice",
    "billed, nano-dollars": "billed",
    "committed, nano-dollars": "committed",
}


def main() -> None:
    """Write the table, and print it."""
    tolls: list[Toll] = []
    for tight in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            tolls.append(endure(Storm(CALLS, KILLS, tight), Path(folder)))
    rows = [(name, *(f"{_value(toll, field):,}" for toll in tolls)) for name, field in ROWS.items()]
    faults = sorted(set().union(*(toll.injected for toll in tolls)))
    rows += [(f"injected: {fault}", *(f"{toll.injected[fault]:,}" for toll in tolls)) for fault in faults]
    lines = ["| | ample budget | tight budget |", "|---|---:|---:|", *(f"| {' | '.join(row)} |" for row in rows)]
    title = f"# {KILLS} kills over {CALLS} calls at concurrency {CONCURRENCY}"
    how = "Written by `python -m benchmarks.kill_storm`. With a tight budget each process may spend only a little more."
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join([title, "", how, "", *lines, ""]), encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))


def _value(toll: Toll, field: str) -> int:
    return toll.lives - toll.killed if field == "spared" else getattr(toll, field)


if __name__ == "__main__":
    main()
