"""What every reader of weights checks and computes."""

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae.errors import UserError


def checked(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], where: Path) -> dict[str, Tensor]:
    """The named tensors as float32. Raises `UserError` for one that is missing, misshapen or not finite."""
    read: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name not in tensors:
            raise UserError(f"{where} has no tensor {name}.", f"It has: {', '.join(sorted(tensors)) or 'none'}.")
        tensor = tensors[name]
        if tuple(tensor.shape) != tuple(shape):
            raise UserError(
                f"{name} in {where} has shape {tuple(tensor.shape)}.", f"The configuration gives {tuple(shape)}."
            )
        read[name] = tensor.to(torch.float32)
        if not torch.isfinite(read[name]).all():
            raise UserError(f"{name} in {where} holds NaN or infinite values.", do="Use an undamaged copy.")
    return read


def files_digest(files: Sequence[Path]) -> str:
    """SHA-256 over the names and bytes of `files`, in the order given, hexadecimal."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + str(file.stat().st_size).encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. Raises `UserError` where it cannot be read or is something else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON.", str(error), "Copy it again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} does not hold a JSON object.", do="Give the file that the training wrote.")
    return cast(dict[str, Any], value)


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors in `file`. Raises `UserError` where it cannot be read."""
    if not file.exists():
        raise UserError(f"{file.parent} has no {file.name}.", do="Copy the whole directory.")
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read.", str(error), "Copy it again.") from error


def read_pt(file: Path) -> dict[str, Any]:
    """The dict in a ``.pt`` file of tensors and plain values; code in it is never run (``weights_only``)."""
    try:
        value = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        why = str(error).splitlines()[0] if str(error) else "The file is empty or cut off."
        raise UserError(
            f"{file} cannot be read as tensors.", why, "Only files that torch.load reads with weights_only=True fit."
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{file} holds a {type(value).__name__}.", do="A dict of names and tensors fits.")
    return cast(dict[str, Any], value)


def positive(value: object, key: str, file: Path) -> int:
    """`value` where it is a whole number above 0; `UserError` naming `key` otherwise."""
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{file} gives {key} as {value!r}.", do="It must be a whole number above 0.")
    return value


def matrix_shape(tensors: Mapping[str, Any], name: str, file: Path) -> tuple[int, int]:
    """Rows and columns of the matrix `name`; `UserError` where there is none."""
    matrix = tensors.get(name)
    if not isinstance(matrix, Tensor) or matrix.ndim != 2:
        raise UserError(f"{file} has no matrix {name}.", f"It has: {', '.join(sorted(tensors)) or 'nothing'}.")
    return matrix.shape[0], matrix.shape[1]


def checked_k(k: int, units: int, file: Path) -> int:
    """`k` where that many of `units` can fire; `UserError` otherwise."""
    if k > units:
        raise UserError(f"{file} lets {k} units fire, but has {units}.", do="Use an undamaged copy.")
    return k
