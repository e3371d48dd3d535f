"""The JumpReLU autoencoder: a unit fires only above its own threshold."""

from dataclasses import dataclass, replace

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

    def parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """``W_enc, b_enc, W_dec, b_dec, threshold``."""
        return self.W_enc, self.b_enc, self.W_dec, self.b_dec, self.threshold

    def folded(self) -> "JumpReluAutoencoder":
        """The same function with an `input_scale` of 1: the scale is in the weights."""
        scale = self.input_scale
        return replace(
            self, W_enc=self.W_enc * scale, W_dec=self.W_dec / scale, b_dec=self.b_dec / scale, input_scale=1.0
        )

    def with_unit_directions(self) -> "JumpReluAutoencoder":
        """The same reconstruction with decoder rows of norm 1, thresholds and activations in the site's own units.

        Rows of norm 0 stay as they are.
        """
        norms = self.W_dec.norm(dim=1)
        norms = torch.where(norms > 0, norms, 1.0)
        column = norms[:, None]
        return replace(
            self,
            W_enc=self.W_enc * column,
            b_enc=self.b_enc * norms,
            W_dec=self.W_dec / column,
            threshold=self.threshold * norms,
        )
