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
                try:
                    paths = {label: self._keep(f"{windows.start}-{i}", blocks[label]) for i, label in enumerate(blocks)}
                except OSError:  # a full disk: what is not kept is computed again
                    written = self._most + 1
                else:
                    written += sum(path.stat().st_size for path in paths.values())
                    kept.append((windows, paths))
            yield windows, blocks
        if written <= self._most:
            self._kept = kept

    def _keep(self, name: str, block: Block) -> Path:
        path = Path(self._folder.name) / f"{name}.npz"
        np.savez(path, **{column: getattr(block, column) for column in _COLUMNS})
        return path

    def _read(self, kept: list[tuple[range, dict[str, Path]]]) -> Iterator[Batch]:
        for windows, paths in kept:
            blocks: dict[str, Block] = {}
            for label, path in paths.items():
                with np.load(path) as columns:
                    blocks[label] = KeptBlock(*(columns[name] for name in _COLUMNS))
            yield windows, blocks
