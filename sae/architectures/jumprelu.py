"""The JumpReLU autoencoder: a unit fires only above its own threshold."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae.architectures.autoencoder import Autoencoder


@dataclass(frozen=True, eq=False, slots=True)
class JumpReluAutoencoder(Autoencoder):
    """``relu(z)`` where ``z > threshold``, else 0, on pre-activations ``z`` (Rajamanoharan et al. 2024)."""

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

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
        """Activation of every unit, >= 0."""
        z = self.pre_activations(x)
        return torch.where(z > self.threshold, z.relu(), 0.0)

    def _with_rows_over(self, norms: Float[Tensor, " unit"]) -> "JumpReluAutoencoder":
        column = norms[:, None]
        return self._replaced(
            W_enc=self.W_enc * column,
            b_enc=self.b_enc * norms,
            W_dec=self.W_dec / column,
            threshold=self.threshold * norms,
        )
