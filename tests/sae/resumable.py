"""A small sweep over every architecture, run by the tests of resuming in this process and, to be killed, in another."""

import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from sae.architectures.weights import Trained
from sae.config import TrainingRecipe
from sae.recipes import batchtopk, bricken_2023, jumprelu, topk
from sae.trainee import TrainLog
from sae.trainer import sweep_on

STEPS = 120
SIZES = {
    "d_sae": 48,
    "tokens": STEPS * 64,
    "batch": 64,
    "pool_batches": 4,
    "log_every": 64,
    "checkpoint_every": 20 * 64,
}
RECIPES: Mapping[str, TrainingRecipe] = {
    "l1": bricken_2023(**SIZES, l1=0.5, learning_rate=1e-2, dead_window=0.1, seed=3),
    "topk": topk(**SIZES, k=3, aux_k=4, dead_window=0.02, learning_rate=3e-3),
    "batchtopk": batchtopk(**SIZES, k=3, dead_window=0.01, precision="medium"),
    "jumprelu": jumprelu(**SIZES, l0=0.05, bandwidth=0.2, threshold=0.5, resample_at=(0.2,), dead_window=0.03),
}
"""With all that a checkpoint must hold: resampling and its generator, running and trained thresholds, dead units."""


def rows(start: int) -> Iterator[torch.Tensor]:
    """Pieces of 50 vectors: no whole number of them makes a batch."""
    for piece in itertools.count(start):
        generator = torch.Generator().manual_seed(piece)
        yield torch.rand(50, 24, generator=generator).pow(4)


def run(out: Path, *, resume: bool, stop_at: int | None = None) -> Mapping[str, Trained]:
    """The whole sweep, or what is left of it; interrupted at the end of step `stop_at`, where there is one."""

    def on_log(log: TrainLog) -> None:
        if log.name == "jumprelu":
            print(log.tokens, flush=True)  # noqa: T201
            if stop_at is not None and log.tokens >= stop_at * 64:
                raise KeyboardInterrupt

    return sweep_on(rows, RECIPES, out, on_log=on_log, source={"rows": "random"}, resume=resume)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), resume="--resume" in sys.argv)
