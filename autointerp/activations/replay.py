"""A stream of activations that is computed once and read again, as long as it is small enough to keep."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from autointerp.activations.plan import Block

Batch: TypeAlias = tuple[range, Mapping[str, Block]]
MOST_BYTES = 2_000_000_000
"""Disk that a kept stream may take; a larger one is computed again."""
_COLUMNS = ("window", "position", "unit", "value")


@dataclass(frozen=True, slots=True, eq=False)
class KeptBlock:
    """A `Block` read back."""

    window: np.ndarray
    position: np.ndarray
    unit: np.ndarray
    value: np.ndarray


class Replay:
    """Calls `stream` for the first pass, and again for later ones only where its blocks outgrew `most` bytes."""

    def __init__(self, stream: Callable[[], Iterator[Batch]], most: int = MOST_BYTES) -> None:
        self._stream, self._most = stream, most
        self._folder = tempfile.TemporaryDirectory(prefix="autointerp-")
        self._kept: list[tuple[range, dict[str, Path]]] | None = None

    def __call__(self) -> Iterator[Batch]:
        """One pass over all batches."""
        return self._record() if self._kept is None else self._read(self._kept)

    def close(self) -> None:
        """Delete what was kept."""
        self._folder.cleanup()

    def _record(self) -> Iterator[Batch]:
        kept: list[tuple[range, dict[str, Path]]] = []
        written = 0
        for windows, blocks in self._stream():
            if written <= self._most:
                paths: dict[str, Path] = {}
                for number, (label, block) in enumerate(blocks.items()):
                    paths[label] = Path(self._folder.name) / f"{windows.start}-{number}.npz"
                    columns = {name: getattr(block, name) for name in _COLUMNS}
                    written += sum(column.nbytes for column in columns.values())
                    np.savez(paths[label], **columns)
                kept.append((windows, paths))
            yield windows, blocks
        if written <= self._most:
            self._kept = kept

    def _read(self, kept: list[tuple[range, dict[str, Path]]]) -> Iterator[Batch]:
        for windows, paths in kept:
            blocks: dict[str, Block] = {}
            for label, path in paths.items():
                with np.load(path) as columns:
                    blocks[label] = KeptBlock(*(columns[name] for name in _COLUMNS))
            yield windows, blocks
