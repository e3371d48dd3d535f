"""An autoencoder that normalises every input by its own statistics, and gives them back to the reconstruction."""

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from sae.dictionary import Dictionary
from sae.errors import UserError

_EPSILON = 1e-5
"""Added to the standard deviation, as OpenAI's sparse_autoencoder and SAELens do."""


@dataclass(frozen=True, eq=False, slots=True)
class NormalisedAutoencoder:
    """`inner` on normalised inputs.

    ``layer_norm``: each input less its mean over its standard deviation. ``constant_norm_rescale``: each input at a
    norm of the square root of its width. Activations and directions are those of `inner`, in normalised units.
    """

    inner: Dictionary
    """What sees the normalised inputs."""
    kind: Literal["layer_norm", "constant_norm_rescale"]
    """Which normalisation, by SAELens's name."""

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return self.inner.d_in

    @property
    def n_units(self) -> int:
        """Number of units."""
        return self.inner.n_units

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
        """Activation of every unit, >= 0."""
        return self.inner.encode(self._normalised(x)[0])

    def decode(self, activations: Float[Tensor, "token unit"]) -> Float[Tensor, "token d_in"]:  # noqa: ARG002
        """Always a `UserError`: the inputs' own statistics are not in the activations. See `reconstruct`."""
        raise UserError(
            f"The reconstruction of this autoencoder needs the inputs besides the activations ({self.kind}).",
            do="Use a dictionary that does not normalise every input by itself.",
        )

    def reconstruct(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_in"]:
        """What it makes of `x`, in the site's units."""
        normalised, shift, scale = self._normalised(x)
        return self.inner.decode(self.inner.encode(normalised)) * scale + shift

    def directions(self) -> Float[Tensor, "unit d_in"]:
        """What one unit of activation adds to the normalised input."""
        return self.inner.directions()

    def names(self) -> tuple[str, ...]:
        """The names of `inner`."""
        return self.inner.names()

    def _normalised(self, x: Tensor) -> tuple[Tensor, Tensor | float, Tensor]:
        match self.kind:
            case "layer_norm":
                shift = x.mean(1, keepdim=True)
                scale = x.std(1, keepdim=True)
                return (x - shift) / (scale + _EPSILON), shift, scale
            case "constant_norm_rescale":
                scale = x.norm(dim=1, keepdim=True) / math.sqrt(x.shape[1])
                return x / scale, 0.0, scale
