"""Writes `results/benchmarks/sae_pool.md`: how well the shuffle pool mixes, and what a draw costs, by its size.

    python -m benchmarks.sae_pool

Rows carry the number of the document they are from, documents follow each other in the stream, and the trainer's own
pool draws the batches. How often two rows of one document meet, in a batch or so many batches apart, is told as a
multiple of how often they would, had all rows been shuffled.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from sae.pool import Pool

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
BATCH, WIDTH, LENGTH = 4096, 512, 1024
"""Rows of a batch, numbers of a row, rows of a document."""
BATCHES = (1, 4, 16, 64, 256)
LAGS = (0, 1, 8, 32)
TAKEN = 768
"""Batches drawn before the measurement ends."""


def documents(start):
    """Numbers of documents, a document to a piece, without end."""
    return (torch.full((LENGTH, 1), float(i)) for i in itertools.count(start))


def shuffled():
    """The batches of a full shuffle of as many rows."""
    rows = np.repeat(np.arange(TAKEN * BATCH // LENGTH), LENGTH)
    yield from np.random.default_rng(0).permutation(rows).reshape(TAKEN, BATCH)


def drawn(batches):
    """The batches of a pool, from when it is full on."""
    pool = Pool(documents, size=batches * BATCH, batch=BATCH, seed=0)
    for _ in range(TAKEN):
        yield pool.draw()[:, 0].long().numpy()


def meetings(found):
    """Pairs of rows from one document, for every lag, mean over the batches."""
    found = [np.unique(batch, return_counts=True) for batch in found]
    for lag in LAGS:
        met = []
        for (first, times), (second, others) in zip(found, found[lag:], strict=False):
            _, i, j = np.intersect1d(first, second, assume_unique=True, return_indices=True)
            met.append(float((times[i] * (others[j] - (lag == 0))).sum()))
        yield statistics.mean(met)


def draw_time(batches, rounds):
    """Milliseconds of a draw whose fresh rows are there already."""
    fresh = torch.randn(BATCH, WIDTH)
    pool = Pool(lambda _: itertools.repeat(fresh), size=batches * BATCH, batch=BATCH, seed=0)
    spent = []
    for _ in range(rounds):
        begun = time.perf_counter()
        pool.draw()
        spent.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(spent)


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args().out
    full = list(meetings(shuffled()))
    source = torch.randn(BATCH, WIDTH)
    lines = [
        "# The shuffle pool",
        "",
        f"Batches of {BATCH:,} rows; documents of {LENGTH:,} rows that follow each other; {TAKEN} batches. Pairs of",
        "rows of one document, as a multiple of those after a full shuffle of all rows: in a batch, and so many",
        f"batches apart. Milliseconds of a draw and its refill at width {WIDTH}, median of 256, the fresh rows given.",
        "The trainer's own stream is better mixed: its windows come in a random order. Written by",
        "`python -m benchmarks.sae_pool`.",
        "",
        "| pool, batches | MiB | in a batch | 1 apart | 8 apart | 32 apart | ms per draw |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for batches in BATCHES:
        times = [met / whole for met, whole in zip(meetings(drawn(batches)), full, strict=True)]
        cells = [f"{each:.1f}" for each in [*times, draw_time(batches, 256)]]
        lines.append(f"| {batches} | {batches * source.nbytes / 2**20:,.0f} | " + " | ".join(cells) + " |")
    (out / "sae_pool.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
