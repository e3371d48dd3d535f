"""What training changes, and the dictionary that comes of it."""

from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from sae.architectures.jumprelu import JumpReluAutoencoder
from sae.architectures.relu import ReluAutoencoder
from sae.architectures.topk import TopKAutoencoder
from sae.config import L1, BatchTopK, JumpRelu, Sparsity, TopK

Trained: TypeAlias = ReluAutoencoder | TopKAutoencoder | JumpReluAutoencoder
"""What training gives."""


@dataclass(frozen=True, eq=False, slots=True)
class Inputs:
    """How the site's activations become a dictionary's inputs: ``(x - centre) * scale``."""

    centre: Float[Tensor, " d_in"]
    """Mean of the site, or zeros."""
    scale: float
    """One number above 0."""

    def __call__(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_in"]:
        """The inputs of activations `x`, multiplied out: in one pass over them."""
        return torch.add(self.centre * -self.scale, x, alpha=self.scale)


@dataclass(frozen=True, eq=False, slots=True)
class Weights:
    """The tensors of an autoencoder in training, changed in place. One contiguous row per unit."""

    W_enc: Float[Tensor, "unit d_in"]
    """Encoder."""
    b_enc: Float[Tensor, " unit"]
    """Encoder bias."""
    W_dec: Float[Tensor, "unit d_in"]
    """Decoder."""
    b_dec: Float[Tensor, " d_in"]
    """Decoder bias."""
    threshold: Float[Tensor, " #unit"]
    """What a pre-activation must exceed: one per unit, trained (JumpReLU), or one for all, running (BatchTopK); 0 for
    the others."""
    pre_encoder_bias: bool
    """Whether `b_dec` is subtracted from the input."""

    @property
    def d_in(self) -> int:
        """Width of the site."""
        return self.W_enc.shape[1]

    @property
    def n_units(self) -> int:
        """Number of units."""
        return self.W_enc.shape[0]

    def trained(self, sparsity: Sparsity) -> tuple[Tensor, ...]:
        """The tensors that have a gradient: ``W_enc, b_enc, W_dec, b_dec`` and, for JumpReLU, ``threshold``."""
        four = (self.W_enc, self.b_enc, self.W_dec, self.b_dec)
        return (*four, self.threshold) if isinstance(sparsity, JumpRelu) else four

    def of_units(self, sparsity: Sparsity) -> tuple[Tensor, ...]:
        """Those of them that have a row or an entry per unit."""
        return tuple(tensor for tensor in self.trained(sparsity) if tensor is not self.b_dec)

    def centred(self, inputs: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_in"]:
        """What the encoder is multiplied with."""
        return inputs - self.b_dec if self.pre_encoder_bias else inputs

    def folded(self, inputs: Inputs) -> "Weights":
        """Weights that do to the site's activations what these do to ``inputs(activations)``.

        Pre-activations are the same; reconstructions are in the site's units.
        """
        scale, centre = inputs.scale, inputs.centre
        shift = 0.0 if self.pre_encoder_bias else self.W_enc @ centre * scale
        return replace(
            self,
            W_enc=self.W_enc * scale,
            b_enc=self.b_enc - shift,
            W_dec=self.W_dec / scale,
            b_dec=self.b_dec / scale + centre,
        )

    def dictionary(self, sparsity: Sparsity, inputs: Inputs) -> Trained:
        """The autoencoder of the site's own activations, with decoder rows of norm 1. Its tensors are copies."""
        four, bias = self.folded(inputs).four(), self.pre_encoder_bias
        match sparsity:
            case L1():
                return ReluAutoencoder(*four, bias).with_unit_directions()
            case TopK(k=k):
                return TopKAutoencoder(*four, k, bias).with_unit_directions()
            case BatchTopK() | JumpRelu():
                threshold = self.threshold.expand(self.n_units)
                return JumpReluAutoencoder(*four, threshold, bias).with_unit_directions()

    def four(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``W_enc, b_enc, W_dec, b_dec``."""
        return self.W_enc, self.b_enc, self.W_dec, self.b_dec
