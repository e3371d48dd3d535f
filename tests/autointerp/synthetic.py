"""Units made up by the tests: activations that a token and its neighbour decide."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autointerp.records.anchors import Pool, Text
from autointerp.records.unit import Excerpt, Group, LogitEffect, Split, SplitStatistics, Unit, UnitRecord
from autointerp.seams import Unavailable

WIDTH = 9
MAXIMUM = 6.0
HARVESTED: dict[Group, int] = {"top": 20, "interval": 4, "random": 15, "out_of_context": 30}


def excerpt(split: Split, group: Group, interval: int, rng: np.random.Generator, *, contextual: bool = True) -> Excerpt:
    """An excerpt of 200 tokens' vocabulary, even windows and clusters for explain, odd ones for score."""
    ids = rng.integers(200, size=WIDTH)
    activations = np.where(ids < 30, ids / 5, 0.0)
    if contextual:
        activations *= np.where(np.roll(ids, 1) % 2 == 0, 1.0, 0.3)
    if group == "random":
        activations *= rng.random() < 0.3
    elif group != "out_of_context":
        activations[4] = MAXIMUM if group == "top" else (interval - rng.random()) / 12 * MAXIMUM
    place = 2 * int(rng.integers(40)) + (split == "score")
    return Excerpt(
        window=place,
        start=int(rng.integers(100)),
        cluster=place,
        ids=tuple(ids.tolist()),
        tokens=tuple(f"{split}{i}" for i in ids),
        activations=tuple(activations.tolist()),
        anchor=4,
        group=group,
        interval=interval,
        bigram=tuple(np.where(ids < 30, ids / 6, 0.0).tolist()) if split == "score" else (),
    )


def excerpts(split: Split, rng: np.random.Generator, *, contextual: bool = True) -> tuple[Excerpt, ...]:
    """As many of every group as a harvest keeps."""
    found: list[Excerpt] = []
    for group, n in HARVESTED.items():
        for interval in range(1, 13) if group == "interval" else (12 if group == "top" else 0,):
            found += [excerpt(split, group, interval, rng, contextual=contextual) for _ in range(n)]
    return tuple(found)


def record(seed: int = 0, *, contextual: bool = True) -> UnitRecord:
    """A unit that fires on both splits, with spare excerpts of every group."""
    rng = np.random.default_rng(seed)
    counts = tuple(range(24, 0, -2))
    statistics = SplitStatistics(10_000, sum(counts), MAXIMUM, 0.05, counts)
    return UnitRecord(
        unit=Unit("secret-arm", 4321, "4321"),
        threshold=0.0,
        statistics={"explain": statistics, "score": statistics},
        excerpts={
            "explain": excerpts("explain", rng, contextual=contextual),
            "score": excerpts("score", rng, contextual=contextual),
        },
        promoted=(LogitEffect(" up", 1.5),),
        suppressed=(LogitEffect(" down", -2.5),),
        token_means={i: i / 5 for i in range(30)},
    )


@dataclass(frozen=True)
class OneUnit:
    """A source of one record, which recomputes nothing."""

    held: UnitRecord

    def units(self) -> Sequence[Unit]:
        return [self.held.unit]

    def record(self, unit: Unit) -> UnitRecord:
        return self.held

    def activations(self, unit: Unit, windows: Sequence[int]) -> np.ndarray:
        raise Unavailable("no subject")

    def pool(self, split: Split) -> Pool:
        raise Unavailable("no pool")

    def text(self, split: Split) -> Text:
        raise Unavailable("no text")


def with_excerpts(unit: UnitRecord, split: Split, kept: tuple[Excerpt, ...]) -> UnitRecord:
    """`unit` with other excerpts in one split."""
    return replace(unit, excerpts={**unit.excerpts, split: kept})


def with_statistics(unit: UnitRecord, split: Split, statistics: SplitStatistics) -> UnitRecord:
    """`unit` with other statistics in one split."""
    return replace(unit, statistics={**unit.statistics, split: statistics})


SILENT = SplitStatistics(10_000, 0, 0.0, 0.0, (0,) * 12)
