"""Corpora and activations made up for the tests of the harvest, with the dense truth beside them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autointerp.activations.harvest import ArmUnits, HarvestSizes, harvest
from autointerp.activations.plan import SPLITS, LogitTokens, SplitSizes
from autointerp.activations.store import Store
from sae.corpus.windows import Windows

VOCABULARY = 23
SMALL = HarvestSizes(
    excerpt_tokens=5,
    n_intervals=4,
    pool=30,
    explain=SplitSizes(top=4, per_interval=2, random=3, out_of_context=6),
    score=SplitSizes(top=3, per_interval=2, random=5, out_of_context=7),
)


@dataclass(frozen=True)
class TestBlock:
    """What a stream gives for one arm and one batch."""

    __test__ = False
    window: np.ndarray
    position: np.ndarray
    unit: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class World:
    """A corpus and the dense activations of two arms: ``features`` with thresholds of 0, ``neurons`` with others."""

    windows: Windows
    split: np.ndarray
    cluster: np.ndarray
    dense: Mapping[str, np.ndarray]
    arms: Mapping[str, ArmUnits]
    sizes: HarvestSizes = field(default=SMALL)

    def stream(self, batches: Sequence[range]) -> Iterator[tuple[range, Mapping[str, TestBlock]]]:
        for batch in batches:
            blocks = {}
            for arm, dense in self.dense.items():
                window, position, unit = (
                    column.astype(np.int32) for column in np.nonzero(dense[batch.start : batch.stop])
                )
                window += np.int32(batch.start)
                blocks[arm] = TestBlock(window, position, unit, dense[window, position, unit])
            yield batch, blocks

    def harvest(self, out: Path, batches: Sequence[range] | None = None, seed: int = 0) -> Store:
        chosen = [range(len(self.windows))] if batches is None else batches
        vocabulary = [f"t{i}" for i in range(VOCABULARY)]
        harvest(
            self.arms,
            self.windows,
            self.split,
            self.cluster,
            vocabulary,
            lambda: self.stream(chosen),
            out,
            sizes=self.sizes,
            seed=seed,
            key=f"key {seed}",
        )
        return Store.open(out)

    def fires(self, arm: str, index: int) -> np.ndarray:
        """Where unit `index` fires, as booleans of shape (window, position)."""
        units = self.arms[arm]
        return self.dense[arm][..., index] > units.thresholds[list(units.units).index(index)]


def batches_of(n: int, size: int) -> list[range]:
    """`n` windows in batches of `size`."""
    return [range(begin, min(begin + size, n)) for begin in range(0, n, size)]


def world(seed: int = 0, n_windows: int = 40, context: int = 12, first: int = 1, n_units: int = 7) -> World:
    """Random windows, some too short for an excerpt; ties between activations; the last feature is dead."""
    rng = np.random.default_rng(seed)
    length = np.where(rng.random(n_windows) < 0.7, context, rng.integers(first + 1, context + 1, n_windows))
    tokens = rng.integers(1, VOCABULARY, (n_windows, context)).astype(np.int32)
    if first:
        tokens[:, 0] = 0
    tokens[np.arange(context) >= length[:, None]] = 0
    document = np.arange(n_windows, dtype=np.int32) // 3
    windows = Windows(tokens, length.astype(np.int32), document, np.zeros(n_windows, dtype=np.int32), first)
    explain, score = SPLITS.index("explain"), SPLITS.index("score")
    split = rng.choice([explain, score, -1], p=[0.45, 0.45, 0.1], size=document.max() + 1).astype(np.int8)[document]
    split[:6] = [explain, explain, explain, score, score, score]
    dense = {}
    for arm, density in (("features", 0.3), ("neurons", 0.7)):
        value = np.round(rng.exponential(1, (n_windows, context, n_units)), 2 if arm == "features" else 6) + 0.01
        value *= rng.random(value.shape) < density * rng.random(n_units)
        value[~windows.counted()] = 0
        value[..., -1] = 0
        dense[arm] = value.astype(np.float32)
    logits = LogitTokens(
        promoted=rng.integers(VOCABULARY, size=(n_units, 3)).astype(np.int32),
        promoted_weights=rng.random((n_units, 3)).astype(np.float32),
        suppressed=rng.integers(VOCABULARY, size=(n_units, 3)).astype(np.int32),
        suppressed_weights=-rng.random((n_units, 3)).astype(np.float32),
    )
    some = np.arange(0, n_units, 2)
    arms = {
        "features": ArmUnits(np.arange(n_units), tuple(map(str, range(n_units))), np.zeros(n_units), logits),
        "neurons": ArmUnits(some, tuple(f"{i}+" for i in some), np.full(len(some), 0.4)),
    }
    return World(windows, split, (document // 2).astype(np.int32), dense, arms)
