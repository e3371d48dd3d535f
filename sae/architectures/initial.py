"""Where training starts: initial weights, and the two statistics of the inputs that they need."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sae.architectures.weights import Inputs, Weights
from sae.config import L1, JumpRelu, TrainingRecipe

_APRIL_NORM = 0.1
"""Norm of the decoder rows at the start, of those that the April 2024 update allows (0.05 to 1)."""


def input_transform(recipe: TrainingRecipe, sample: Float[Tensor, "token d_in"]) -> Inputs:
    """How the recipe centres and scales, by the statistics of `sample`."""
    centre = sample.mean(0) if recipe.centre else torch.zeros_like(sample[0])
    centred = sample - centre
    match recipe.scaling:
        case "none":
            scale = 1.0
        case "mean-norm":
            scale = _ratio(math.sqrt(sample.shape[1]), centred.norm(dim=1).mean().item())
        case "mean-square":
            scale = _ratio(1.0, math.sqrt(centred.square().sum(1).mean().item()))
    return Inputs(centre, scale)


def initial_weights(recipe: TrainingRecipe, inputs: Float[Tensor, "token d_in"]) -> Weights:
    """Weights before the first step, on the device of `inputs`, which are centred and scaled already.

    L1 with a tied bias: PyTorch's default (Kaiming uniform) for both layers and the geometric median of `inputs` as
    bias. Otherwise: random decoder rows, of norm 0.1 or 1, the encoder equal to them, biases 0 or, where inputs are
    not centred, the mean of the inputs as tied bias.
    """
    d_in, units = inputs.shape[1], recipe.d_sae
    generator = torch.Generator().manual_seed(recipe.seed)
    threshold = torch.zeros(1)
    if isinstance(recipe.sparsity, L1) and recipe.pre_encoder_bias:
        bound = 1 / math.sqrt(d_in)
        w_enc = torch.empty(units, d_in).uniform_(-bound, bound, generator=generator)
        b_enc = torch.empty(units).uniform_(-bound, bound, generator=generator)
        w_dec = torch.empty(units, d_in).uniform_(-1, 1, generator=generator) / math.sqrt(units)
        b_dec = geometric_median(inputs)
        if recipe.unit_norm:
            w_dec = unit_rows(w_dec)
    else:
        w_dec = unit_rows(torch.randn(units, d_in, generator=generator)) * (1 if recipe.unit_norm else _APRIL_NORM)
        w_enc, b_enc = w_dec.clone(), torch.zeros(units)
        b_dec = inputs.mean(0) if recipe.pre_encoder_bias and not recipe.centre else torch.zeros(d_in)
        if isinstance(recipe.sparsity, JumpRelu):
            threshold = torch.full((units,), recipe.sparsity.threshold)
    tensors = (tensor.to(inputs).contiguous() for tensor in (w_enc, b_enc, w_dec, b_dec, threshold))
    return Weights(*tensors, pre_encoder_bias=recipe.pre_encoder_bias)


def _ratio(wanted: float, found: float) -> float:
    return wanted / found if found > 0 else 1.0


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
