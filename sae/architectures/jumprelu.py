"""The JumpReLU autoencoder, for inference: a unit fires only above its own threshold."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class JumpReluAutoencoder:
    """``relu(z)`` where ``z > threshold``, else 0; ``z`` as in the ReLU autoencoder (Rajamanoharan et al. 2024)."""

    W_enc: Float[Tensor, "unit d_in"]
    """Encoder."""
    b_enc: Float[Tensor, " unit"]
    """Encoder bias."""
    W_dec: Float[Tensor, "unit d_in"]
    """Decoder."""
    b_dec: Float[Tensor, " d_in"]
    """Decoder bias."""
    threshold: Float[Tensor, " unit"]
    """What a pre-activation must exceed for its unit to fire."""
    pre_encoder_bias: bool
    """Whether `b_dec` is subtracted from the input."""
    input_scale: float = 1.0
    """What the site's activations are multiplied by before all else; `decode` divides by it."""

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return self.W_enc.shape[1]

    @property
    def n_units(self) -> int:
        """Number of units."""
        return self.W_enc.shape[0]

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
        """Activation of every unit, >= 0."""
        x = x * self.input_scale
        z = torch.addmm(self.b_enc, x - self.b_dec if self.pre_encoder_bias else x, self.W_enc.T)
        return torch.where(z > self.threshold, z.relu(), 0.0)

    def decode(self, activations: Float[Tensor, "token unit"]) -> Float[Tensor, "token d_in"]:
        """Reconstruction of the site's activations."""
        return torch.addmm(self.b_dec, activations, self.W_dec) / self.input_scale

    def directions(self) -> Float[Tensor, "unit d_in"]:
        """What one unit of activation adds to the site."""
        return self.W_dec / self.input_scale

    def names(self) -> tuple[str, ...]:
        """The indices."""
        return tuple(map(str, range(self.n_units)))
