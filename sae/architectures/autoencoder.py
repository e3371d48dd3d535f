"""What all autoencoders share: an affine encoder and decoder around a sparsifying step."""

from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

_Own = TypeVar("_Own", bound="Autoencoder")


class Autoencoder:
    """The base of the autoencoders, which are frozen dataclasses and add `encode`; it has no field of its own.

    Both matrices have one contiguous row per unit: norms, gathers and Adam then read memory in order.
    """

    __slots__ = ()

    W_enc: Float[Tensor, "unit d_in"]
    b_enc: Float[Tensor, " unit"]
    W_dec: Float[Tensor, "unit d_in"]
    b_dec: Float[Tensor, " d_in"]
    pre_encoder_bias: bool
    input_scale: float

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return self.W_enc.shape[1]

    @property
    def n_units(self) -> int:
        """Number of units."""
        return self.W_enc.shape[0]

    def pre_activations(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
        """``(x - b_dec) @ W_enc.T + b_enc``, without ``b_dec`` where there is no pre-encoder bias; `x` unscaled."""
        x = x * self.input_scale if self.input_scale != 1.0 else x
        return torch.addmm(self.b_enc, x - self.b_dec if self.pre_encoder_bias else x, self.W_enc.T)

    def decode(self, activations: Float[Tensor, "token unit"]) -> Float[Tensor, "token d_in"]:
        """Reconstruction of the site's activations."""
        return torch.addmm(self.b_dec, activations, self.W_dec) / self.input_scale

    def directions(self) -> Float[Tensor, "unit d_in"]:
        """What one unit of activation adds to the site."""
        return self.W_dec / self.input_scale

    def names(self) -> tuple[str, ...]:
        """The indices."""
        return tuple(map(str, range(self.n_units)))

    def parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``W_enc, b_enc, W_dec, b_dec``."""
        return self.W_enc, self.b_enc, self.W_dec, self.b_dec

    def folded(self: _Own) -> _Own:
        """The same function with an `input_scale` of 1: the scale is in the weights."""
        scale = self.input_scale
        return self._replaced(
            W_enc=self.W_enc * scale, W_dec=self.W_dec / scale, b_dec=self.b_dec / scale, input_scale=1.0
        )

    def with_unit_directions(self: _Own) -> _Own:
        """The same reconstruction with decoder rows of norm 1, so that activations are in the site's own units.

        Rows of norm 0 stay as they are. Where units compete, rows must have one norm, or other ones win.
        """
        norms = self.W_dec.norm(dim=1)
        return self._with_rows_over(torch.where(norms > 0, norms, 1.0))

    def _with_rows_over(self: _Own, norms: Float[Tensor, " unit"]) -> _Own:
        column = norms[:, None]
        return self._replaced(W_enc=self.W_enc * column, b_enc=self.b_enc * norms, W_dec=self.W_dec / column)

    def _replaced(self: _Own, **changes: Any) -> _Own:
        return replace(self, **changes)  # type: ignore[type-var]
