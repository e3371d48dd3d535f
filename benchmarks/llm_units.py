"""Units made from generated text, the same for everyone who is compared: the sizes of `monosemanticity-2023`."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pydantic import ConfigDict, TypeAdapter

from autointerp.protocols.monosemanticity_2023 import Monosemanticity2023
from autointerp.records.anchors import Activations, Pool, Text
from autointerp.records.unit import (
    N_INTERVALS,
    Excerpt,
    LogitEffect,
    Split,
    SplitStatistics,
    Unit,
    UnitRecord,
)
from autointerp.scorers.simulation import GroupSizes
from autointerp.seams import Unavailable

PROTOCOL = Monosemanticity2023()
RECORDS = TypeAdapter(list[UnitRecord], config=ConfigDict(arbitrary_types_allowed=True))
"""Writes and reads records as JSON, for the programs that run in another process."""
_SYLLABLES = [first + second for first in "bdfgklmnprstvw" for second in ("a", "e", "i", "o", "u", "an", "er", "il")]
_WORDS, _TRIGGERS, _EFFECTS = 4000, 3, 10
_FIRED_PER_INTERVAL, _TOKENS = 40, 100_000


def synthetic_records(n: int, seed: int = 0) -> list[UnitRecord]:
    """`n` units that fire on a few words of a made-up language, each with 49 excerpts to show and 60 to predict."""
    rng = np.random.default_rng(seed)
    words = _vocabulary(rng)
    return [_record(index, words, rng) for index in range(n)]


class RecordSource:
    """Implements `seams.Source` for records at hand."""

    def __init__(self, records: Sequence[UnitRecord]) -> None:
        self._records: Mapping[Unit, UnitRecord] = {record.unit: record for record in records}

    def units(self) -> Sequence[Unit]:
        """Every unit, in order."""
        return list(self._records)

    def record(self, unit: Unit) -> UnitRecord:
        """The unit's record."""
        return self._records[unit]

    def activations(self, unit: Unit, windows: Sequence[int]) -> Activations:  # noqa: ARG002
        """There is no subject."""
        raise Unavailable

    def text(self, split: Split) -> Text:  # noqa: ARG002
        """There are no windows."""
        raise Unavailable

    def pool(self, split: Split) -> Pool:  # noqa: ARG002
        """There are no windows."""
        raise Unavailable


def _vocabulary(rng: np.random.Generator) -> list[str]:
    lengths = rng.integers(1, 4, _WORDS)
    return [" " + "".join(rng.choice(_SYLLABLES, length)) for length in lengths]


def _record(index: int, words: Sequence[str], rng: np.random.Generator) -> UnitRecord:
    triggers, maximum = rng.choice(len(words), _TRIGGERS, replace=False), float(rng.uniform(2, 10))
    sizes: dict[Split, GroupSizes] = {"explain": PROTOCOL.evidence_sizes, "score": PROTOCOL.trial_sizes}
    counts = (_FIRED_PER_INTERVAL,) * N_INTERVALS
    fired = sum(counts)
    effects = [words[int(i)] for i in rng.choice(len(words), 2 * _EFFECTS, replace=False)]
    return UnitRecord(
        unit=Unit("features", index, str(index)),
        threshold=0.0,
        statistics={
            split: SplitStatistics(_TOKENS, fired, maximum, maximum * fired / _TOKENS / 2, counts) for split in sizes
        },
        excerpts={split: tuple(_excerpts(size, triggers, maximum, words, rng)) for split, size in sizes.items()},
        promoted=tuple(LogitEffect(token, 1.0) for token in effects[:_EFFECTS]),
        suppressed=tuple(LogitEffect(token, -1.0) for token in effects[_EFFECTS:]),
        token_means={int(trigger): maximum / 4 for trigger in triggers},
    )


def _excerpts(
    sizes: GroupSizes, triggers: np.ndarray, maximum: float, words: Sequence[str], rng: np.random.Generator
) -> Iterator[Excerpt]:
    """Random words; a trigger in the middle, except in random excerpts; only top and interval excerpts fire."""
    width = PROTOCOL.harvest.excerpt_tokens
    anchor, others = width // 2, np.setdiff1d(np.arange(len(words)), triggers)
    for group, interval, size in sizes.strata():
        for rank in range(size):
            ids = rng.choice(others, width, replace=False)
            if group != "random":
                ids[anchor] = rng.choice(triggers)
            share = {"top": 1 - 0.005 * rank, "interval": (interval - 0.5) / N_INTERVALS}.get(group, 0.0)
            activations = [0.0] * width
            activations[anchor], activations[anchor + 1] = maximum * share, maximum * share * 0.4
            yield Excerpt(
                window=int(rng.integers(2**31)),
                start=0,
                cluster=int(rng.integers(2**31)),
                ids=tuple(ids.tolist()),
                tokens=tuple(words[int(i)] for i in ids),
                activations=tuple(activations),
                anchor=anchor,
                group=group,
                interval=N_INTERVALS if group == "top" else interval,
            )
