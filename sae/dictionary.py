"""What is laid over a site: units of activation computed from the site's activations."""

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor


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
