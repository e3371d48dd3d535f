"""What is laid over a site: units of activation computed from the site's activations."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 512
"""Tokens encoded at one time: enough to keep the product busy, few enough to stay near the processor."""


@runtime_checkable
class Dictionary(Protocol):
    """An autoencoder, or a baseline that behaves like one. Units are non-negative."""

    @property
    def d_in(self) -> int:
        """Width of the site."""
        ...

    @property
    def n_units(self) -> int:
        """Number of units."""
        ...

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
        """Activation of every unit, >= 0."""
        ...

    def decode(self, activations: Float[Tensor, "token unit"]) -> Float[Tensor, "token d_in"]:
        """Reconstruction of the site's activations."""
        ...

    def directions(self) -> Float[Tensor, "unit d_in"]:
        """What one unit of activation adds to the site."""
        ...

    def names(self) -> tuple[str, ...]:
        """What people read for each unit: the index, or the neuron and its tail, such as ``77+``."""
        ...


@dataclass(frozen=True, slots=True)
class DictionaryInfo:
    """Where a dictionary came from and what it fits, as far as its files say."""

    d_in: int
    """Width of the site it expects."""
    n_units: int
    """Number of units."""
    site: str | None
    """Site it was trained at, in TransformerLens or module-path form."""
    subject: str | None
    """Model it was trained on."""
    digest: str
    """SHA-256 over its weights and configuration, hexadecimal."""
    explained_variance: float | None = None
    """Share of the site's variance that its files say it explains, 1 for all of it; None where they say nothing."""


@torch.no_grad()
def encoded(
    dictionary: Dictionary, rows: Float[Tensor, "token d_in"]
) -> Iterator[tuple[int, Float[Tensor, "token unit"]]]:
    """Unit activations of `rows`, `CHUNK` rows at a time, each with the index of its first row."""
    for begin in range(0, len(rows), CHUNK):
        yield begin, dictionary.encode(rows[begin : begin + CHUNK])


_Placed = TypeVar("_Placed", bound=Dictionary)


def on_device(dictionary: _Placed, device: str | torch.device) -> _Placed:
    """The same dictionary with its tensors, and those of a dictionary inside it, on `device`."""
    if not dataclasses.is_dataclass(dictionary) or isinstance(dictionary, type):
        return dictionary
    moved: dict[str, Any] = {}
    for field in dataclasses.fields(dictionary):
        value = getattr(dictionary, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value.to(device)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            moved[field.name] = on_device(value, device)  # type: ignore[type-var]
    return dataclasses.replace(dictionary, **moved)


def as_tensor(values: Float[np.ndarray, "..."], device: str | torch.device) -> Float[Tensor, "..."]:
    """`values` as float32 on `device`."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(device)
