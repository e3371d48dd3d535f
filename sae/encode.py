"""What both kinds of step begin with: the operands of the pre-activations, and the ReLU on these."""

import torch
from jaxtyping import Float
from torch import Tensor

from sae.architectures.weights import Weights
from sae.outcome import count_above

_ALIGNED = 32
"""Columns come in multiples of this, which are two tiles of AMX."""


class Operands:
    """The two operands of the product that gives the pre-activations of a batch, biases and all.

    They are wider than the site by a column, and some of zeros: ones beside the inputs, biases beside the encoder. A
    bias added by `torch.addmm` costs a pass over (token, unit), and rows of a power of two share places in the cache.
    """

    def __init__(self, weights: Weights, batch: int, dtype: torch.dtype) -> None:
        self._weights, self._d_in = weights, weights.d_in
        width = -(-(weights.d_in + 1) // _ALIGNED) * _ALIGNED
        self.encoder: Float[Tensor, "unit column"] = weights.W_enc.new_zeros(weights.n_units, width, dtype=dtype)
        """Encoder and bias."""
        self.inputs: Float[Tensor, "token column"] = weights.W_enc.new_zeros(batch, width, dtype=dtype)
        """Inputs and ones."""
        self.inputs[:, self._d_in] = 1

    def write(self, centred: Float[Tensor, "token d_in"]) -> None:
        """Copy a batch and the encoder as it is now into them."""
        self.inputs[:, : self._d_in].copy_(centred)
        self.encoder[:, : self._d_in].copy_(self._weights.W_enc)
        self.encoder[:, self._d_in].copy_(self._weights.b_enc)


def in_integers(values: Tensor) -> bool:
    """Whether signs are compared as integers: a processor does so ten times faster than in bfloat16."""
    return values.dtype == torch.bfloat16 and values.device.type == "cpu"


def rectify(values: Tensor) -> None:
    """ReLU, in place. As an integer a bfloat16 has the same sign, so that all below 0 becomes 0."""
    if in_integers(values):
        values.view(torch.int16).clamp_(min=0)
    else:
        values.relu_()


def count_firings(activations: Float[Tensor, "..."]) -> int:
    """How many activations are above 0."""
    return count_above(activations.view(torch.int16) if in_integers(activations) else activations)
