"""The ReLU autoencoder."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sae.architectures.autoencoder import Autoencoder


@dataclass(frozen=True, eq=False, slots=True)
class ReluAutoencoder(Autoencoder):
    """``relu(z)``, with the pre-activations ``z`` that all autoencoders have."""

    W_enc: Float[Tensor, "unit d_in"]
    """Encoder."""
    b_enc: Float[Tensor, " unit"]
    """Encoder bias."""
    W_dec: Float[Tensor, "unit d_in"]
    """Decoder."""
    b_dec: Float[Tensor, " d_in"]
    """Decoder bias."""
    pre_encoder_bias: bool
    """Whether `b_dec` is subtracted from the input."""
    input_scale: float = 1.0
    """What the site's activations are multiplied by before all else; `decode` divides by it."""

    def encode(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
        """Activation of every unit, >= 0."""
        return self.pre_activations(x).relu_()
