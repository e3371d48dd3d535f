"""A subject's activations on disk, so that later passes and later runs need not compute them again.

A directory holds ``manifest.json``, which says whose activations these are, and a safetensors file per piece of the
run's first pass, `WINDOWS_AT_ONCE` windows each in the seeded order of that pass. They are kept in the subject's own
precision, so that what is read is what was computed. Every file is written under another name and renamed.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sae.corpus.windows import Windows
from sae.errors import UserError, differences
from sae.sites import Site
from sae.subject import Subject

WINDOWS_AT_ONCE = 64
"""Windows of a piece."""
_MANIFEST, _KEY = "manifest.json", "activations"


def window_order(n: int, seed: int, number: int) -> Int64[np.ndarray, " window"]:
    """The order of `n` windows in pass `number`, counted from 0."""
    return np.random.default_rng([seed, number]).permutation(n)


class ActivationCache:
    """Reads what is stored, computes what is not, and stores the pieces of the first pass."""

    def __init__(self, place: Path, subject: Subject, site: Site, windows: Windows, seed: int) -> None:
        """Raises `UserError` where `place` holds other activations or damaged ones, or the disk has no room."""
        self._place, self._subject, self._site, self._windows = place, subject, site, windows
        order = window_order(len(windows), seed, 0)
        begins = range(WINDOWS_AT_ONCE, len(order), WINDOWS_AT_ONCE)
        self._pieces = np.split(order, begins)
        self._length = windows.counted().sum(1)
        self._piece, self._offset = np.empty_like(order), np.empty_like(order)
        for number, piece in enumerate(self._pieces):
            self._piece[piece] = number
            self._offset[piece] = np.cumsum(self._length[piece]) - self._length[piece]
        self._dtype = subject.model.dtype
        place.mkdir(parents=True, exist_ok=True)
        _claim(place / _MANIFEST, self._identity(seed))
        self._stored = np.array([self._check(number) for number in range(len(self._pieces))])
        self._check_room()

    def rows(self, index: Int64[np.ndarray, " window"]) -> Float[Tensor, "token width"]:
        """The activations of the windows at `index`, as `Subject.rows` gives them."""
        number = int(self._piece[index[0]])
        if self._stored[self._piece[index]].all():
            return self._read(index)
        rows = self._subject.rows(self._site, self._windows.select(index))
        if np.array_equal(index, self._pieces[number]):
            self._write(number, rows)
        return rows

    def _identity(self, seed: int) -> dict[str, Any]:
        return {
            "subject": self._subject.digest,
            "site": self._site.name,
            "width": self._site.width,
            "windows": self._windows.digest,
            "tokens": self._windows.n_tokens,
            "dtype": str(self._dtype).removeprefix("torch."),
            "seed": seed,
            "windows_per_file": WINDOWS_AT_ONCE,
        }

    def _file(self, number: int) -> Path:
        return self._place / f"activations-{number:06}.safetensors"

    def _check(self, number: int) -> bool:
        """Whether the piece is stored. Raises `UserError` where its file is not what it should be."""
        file = self._file(number)
        if not file.exists():
            return False
        expected = [int(self._length[self._pieces[number]].sum()), self._site.width]
        try:
            with safe_open(file, "pt") as opened:
                found = opened.get_slice(_KEY).get_shape()
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} cannot be read.", str(error), "Remove it; it will be written again.") from error
        if found != expected:
            raise UserError(f"{file} holds {found} numbers, not {expected}.", do="Remove it.")
        return True

    def _check_room(self) -> None:
        missing = np.concatenate([np.empty(0, np.int64), *(self._pieces[i] for i in np.flatnonzero(~self._stored))])
        needed = int(self._length[missing].sum()) * self._site.width * self._dtype.itemsize
        free = shutil.disk_usage(self._place).free
        if needed > free:
            raise UserError(
                f"The activations need {needed / 1e9:,.1f} GB in {self._place}, and {free / 1e9:,.1f} GB are free.",
                do="Give another directory, a smaller corpus, or none: activations are then computed as needed.",
            )

    def _read(self, index: Int64[np.ndarray, " window"]) -> Tensor:
        ends = np.cumsum(self._length[index])
        rows = torch.empty(int(ends[-1]), self._site.width, dtype=self._dtype)
        for number in np.unique(self._piece[index]).tolist():
            with safe_open(self._file(number), "pt") as opened:
                stored = opened.get_slice(_KEY)
                for at in np.flatnonzero(self._piece[index] == number).tolist():
                    begin, length = int(self._offset[index[at]]), int(self._length[index[at]])
                    rows[ends[at] - length : ends[at]] = stored[begin : begin + length]
        return rows.to(self._subject.device).float()

    def _write(self, number: int, rows: Tensor) -> None:
        file = self._file(number)
        partial = file.with_name(f"{file.name}.partial")
        save_file({_KEY: rows.to(self._dtype).cpu()}, partial)
        partial.replace(file)
        self._stored[number] = True


def _claim(manifest: Path, identity: dict[str, Any]) -> None:
    """Write the manifest, or raise `UserError` where there is one that differs."""
    if manifest.exists():
        if different := differences(json.loads(manifest.read_text("utf-8")), identity):
            raise UserError(
                f"{manifest.parent} holds other activations: {'; '.join(different)}.",
                do="Repeat with what they were made with, or choose another directory.",
            )
        return
    partial = manifest.with_name(f"{manifest.name}.partial")
    partial.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
    partial.replace(manifest)
