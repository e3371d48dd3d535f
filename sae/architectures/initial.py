"""Where training starts: initial weights, and the two statistics of the inputs that they need."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sae.architectures.relu import ReluAutoencoder
from sae.config import TrainingRecipe

_APRIL_NORM = 0.1
"""Norm of the decoder rows at the start, of those that the April 2024 update allows (0.05 to 1)."""


def initial_autoencoder(recipe: TrainingRecipe, sample: Float[Tensor, "token d_in"]) -> ReluAutoencoder:
    """Weights before the first step, on the device of `sample`.

    Tied bias: PyTorch's default (Kaiming uniform) for both layers and the geometric median of `sample` as bias.
    Otherwise: random decoder rows of norm 0.1, the encoder equal to them, biases 0.
    """
    d_in, units = sample.shape[1], recipe.d_sae
    generator = torch.Generator().manual_seed(recipe.seed)
    scale = norm_scale(sample) if recipe.scale_inputs else 1.0
    if recipe.pre_encoder_bias:
        bound = 1 / math.sqrt(d_in)
        w_enc = torch.empty(units, d_in).uniform_(-bound, bound, generator=generator)
        b_enc = torch.empty(units).uniform_(-bound, bound, generator=generator)
        w_dec = torch.empty(units, d_in).uniform_(-1, 1, generator=generator) / math.sqrt(units)
        b_dec = geometric_median(sample * scale)
    else:
        w_dec = _APRIL_NORM * unit_rows(torch.randn(units, d_in, generator=generator))
        w_enc, b_enc, b_dec = w_dec.clone(), torch.zeros(units), torch.zeros(d_in)
    if recipe.unit_norm:
        w_dec = unit_rows(w_dec)
    tensors = (tensor.to(sample).contiguous() for tensor in (w_enc, b_enc, w_dec, b_dec))
    return ReluAutoencoder(*tensors, pre_encoder_bias=recipe.pre_encoder_bias, input_scale=scale)


def norm_scale(sample: Float[Tensor, "token d_in"]) -> float:
    """The number that, multiplied into `sample`, makes its mean norm the square root of its width."""
    mean = sample.norm(dim=1).mean().item()
    return math.sqrt(sample.shape[1]) / mean if mean > 0 else 1.0


def geometric_median(
    points: Float[Tensor, "token d_in"], *, tolerance: float = 1e-6, iterations: int = 100
) -> Float[Tensor, " d_in"]:
    """The point whose summed distance to `points` is least, by Weiszfeld's iteration from their mean.

    Stops when the point moves by less than `tolerance` of its mean distance to `points`.
    """
    at = points.mean(0)
    for _ in range(iterations):
        distances = (points - at).norm(dim=1)
        scale = distances.mean()
        if scale == 0:
            break
        weights = 1 / distances.clamp_min(1e-9 * scale)
        moved = (weights @ points) / weights.sum()
        shift, at = (moved - at).norm(), moved
        if shift < tolerance * scale:
            break
    return at


def unit_rows(matrix: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """`matrix` with its rows at norm 1; rows of zeros stay so."""
    norms = matrix.norm(dim=1, keepdim=True)
    return matrix / torch.where(norms > 0, norms, 1.0)
