"""The TopK autoencoder: on each token only the `k` units with the largest pre-activations fire."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae.architectures.autoencoder import Autoencoder


@dataclass(frozen=True, eq=False, slots=True)
class TopKAutoencoder(Autoencoder):
    """``relu(z)`` at the `k` largest of the pre-activations ``z``, else 0 (Gao et al. 2024).

    Units compete, so that a decoder row's norm cannot be moved into the encoder without changing who wins.
    """

    W_enc: Float[Tensor, "unit d_in"]
    """Encoder."""
    b_enc: Float[Tensor, " unit"]
    """Encoder bias."""
    W_dec: Float[Tensor, "unit d_in"]
    """Decoder."""
    b_dec: Float[Tensor, " d_in"]
    """Decoder bias."""
    k: int
    """Most units that fire on a token, 1 to the number of units; fewer where fewer pre-activations are above 0."""
    pre_encoder_bias: bool
    """Whether `b_dec` is subtracted from the input."""
    input_scale: float = 1.0
    """What the site's activations are multiplied by before all else; `decode` divides by it."""

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
        """Activation of every unit, >= 0."""
        z = self.pre_activations(x)
        values, units = z.topk(self.k, sorted=False)
        return torch.zeros_like(z).scatter_(1, units, values.relu_())
