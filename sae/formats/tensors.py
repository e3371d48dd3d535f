"""What every reader of weights checks and computes."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
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
