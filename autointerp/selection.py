"""Which units a `--features` specification means."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int64

from sae.errors import UserError

_Number = TypeVar("_Number", int, float)
_SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(\d+))?")
_FORMS = "Give 0:4096, 0:4096:8, 3,17,900, random:256, alive, density:1e-5..1e-2, @file or all."


def resolve_features(
    spec: str, n_units: int, densities: Callable[[], Float[np.ndarray, " unit"]], seed: int
) -> Int64[np.ndarray, " chosen"]:
    """Indices that `spec` means, without repeats; rising, save for a list, which keeps its order.

    `densities` is only called for ``alive`` (density above 0) and ``density:LOW..HIGH`` (both ends included). Raises
    `UserError` for a malformed specification, an index out of range, or one that resolves to nothing.
    """
    chosen = _resolve(spec.strip(), n_units, densities, seed)
    if not len(chosen):
        raise UserError(f"--features {spec} resolves to no feature.", f"There are {n_units}.", _FORMS, usage=True)
    return chosen


def _resolve(
    spec: str, n_units: int, densities: Callable[[], Float[np.ndarray, " unit"]], seed: int
) -> Int64[np.ndarray, " chosen"]:
    if spec == "all":
        return np.arange(n_units)
    if spec == "alive":
        return np.flatnonzero(densities() > 0)
    kind, _, rest = spec.partition(":")
    if kind == "random":
        count = _number(rest, int, spec)
        if not 0 < count <= n_units:
            raise UserError(f"--features {spec} asks for {count} of {n_units} features.", usage=True)
        return np.sort(np.random.default_rng(seed).choice(n_units, size=count, replace=False))
    if kind == "density":
        low, dots, high = rest.partition("..")
        if not dots:
            raise UserError(f"--features cannot be {spec!r}.", do=_FORMS, usage=True)
        ends = _number(low, float, spec), _number(high, float, spec)
        values = densities()
        return np.flatnonzero((values >= ends[0]) & (values <= ends[1]))
    if spec.startswith("@"):
        return _listed(_file(Path(spec[1:])), n_units, spec)
    if match := _SLICE.fullmatch(spec):
        start, stop, step = (int(part) if part else None for part in match.groups())
        for end in (start, stop):
            if end is not None and abs(end) > n_units:
                _out_of_range(spec, end, n_units)
        if step == 0:
            raise UserError(f"--features {spec} has step 0.", do=_FORMS, usage=True)
        return np.arange(n_units)[start:stop:step]
    return _listed(spec.split(","), n_units, spec)


def _file(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").replace(",", " ").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the feature list {path}.", str(error), usage=True) from error


def _listed(words: list[str], n_units: int, spec: str) -> Int64[np.ndarray, " chosen"]:
    indices = list(dict.fromkeys(_number(word, int, spec) for word in words))
    for index in indices:
        if not 0 <= index < n_units:
            _out_of_range(spec, index, n_units)
    return np.asarray(indices, dtype=np.int64)


def _number(text: str, kind: type[_Number], spec: str) -> _Number:
    try:
        value = kind(text)
    except ValueError as error:
        raise UserError(f"--features cannot be {spec!r}.", f"{text!r} is no number.", _FORMS, usage=True) from error
    if not math.isfinite(value):
        raise UserError(f"--features cannot be {spec!r}.", f"{text!r} is not finite.", _FORMS, usage=True)
    return value


def _out_of_range(spec: str, index: int, n_units: int) -> None:
    raise UserError(
        f"--features {spec} asks for {index}.",
        f"The dictionary has {n_units} features, 0 to {n_units - 1}.",
        f"Use at most 0:{n_units}.",
        usage=True,
    )
