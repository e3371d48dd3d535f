"""The small sweep of `resumable`, shared by the processes that torchrun starts.

Each rank is given every other piece of half a batch. With a pool of one batch, a batch of the run holds the same
vectors on any number of ranks.
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from sae.architectures.weights import Trained
from sae.config import TrainingRecipe
from sae.pool import Rows
from sae.ranks import ALONE, Ranks, joined
from sae.trainer import sweep_on
from tests.sae.resumable import RECIPES

PIECE = 32
SIMPLE: Mapping[str, TrainingRecipe] = {
    name: dataclasses.replace(recipe, pool_batches=1, resample_at=(), precision="fp32")
    for name, recipe in RECIPES.items()
}
"""Without what depends on the order of a pool."""


def rows(ranks: Ranks) -> Rows:
    """This rank's pieces."""

    def pieces(start: int) -> Iterator[torch.Tensor]:
        for number in itertools.count(start * ranks.count + ranks.rank, ranks.count):
            yield torch.rand(PIECE, 24, generator=torch.Generator().manual_seed(number)).pow(4)

    return pieces


def run(out: Path, recipes: Mapping[str, TrainingRecipe], ranks: Ranks = ALONE) -> Mapping[str, Trained]:
    """The whole sweep, or what is left of it."""

    def on_log(log: object) -> None:
        print("step", flush=True)  # noqa: T201

    return sweep_on(rows(ranks), recipes, out, on_log=on_log, source={"rows": "ranked"}, resume=True, ranks=ranks)


def tensors(finished: Mapping[str, Trained]) -> dict[str, torch.Tensor]:
    """Every tensor of every dictionary, by name."""
    return {
        f"{name}.{field.name}": value.contiguous()
        for name, each in finished.items()
        for field in dataclasses.fields(each)
        if isinstance(value := getattr(each, field.name), torch.Tensor)
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu") as ranks:
        place = Path(sys.argv[1])
        finished = run(place, SIMPLE if sys.argv[2] == "simple" else RECIPES, ranks)
    save_file(tensors(finished), place / f"rank-{ranks.rank}.safetensors")
