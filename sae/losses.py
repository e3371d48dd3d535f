"""The objectives, as plain differentiable formulas; `sae.step` has their gradients written out by hand."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae.architectures.weights import Weights
from sae.config import L1, BatchTopK, JumpRelu, Sparsity, TopK, TrainingRecipe


def objective(
    weights: Weights,
    recipe: TrainingRecipe,
    inputs: Float[Tensor, "token d_in"],
    weight: float,
    dead: Int64[Tensor, " dead"] | None = None,
) -> Float[Tensor, ""]:
    """Mean of `input_losses`, and the loss that only the `dead` units of the architectures other than L1 have."""
    loss = input_losses(weights, recipe, inputs, weight).mean()
    match recipe.sparsity:
        case TopK() | BatchTopK() as sparsity:
            return loss + auxiliary_loss(weights, recipe, sparsity, inputs, dead)
        case JumpRelu() as sparsity:
            return loss + pre_activation_loss(weights, sparsity, inputs, dead)
        case L1():
            return loss


def input_losses(
    weights: Weights, recipe: TrainingRecipe, inputs: Float[Tensor, "token d_in"], weight: float
) -> Float[Tensor, " token"]:
    """Squared error of each input plus `weight` times its penalty. `inputs` are centred and scaled already.

    The penalty is the sum of the activations, weighted by decoder norms where the recipe says so (L1), or the number
    of units that fire (JumpReLU). BatchTopK's units compete over all of `inputs`.
    """
    z = pre_activations(weights, inputs)
    activations = sparsified(z, weights, recipe.sparsity)
    errors = activations @ weights.W_dec + weights.b_dec - inputs
    squared = errors.square().sum(1) / recipe.elements(weights.d_in)
    match recipe.sparsity:
        case L1(norm_weighted=True):
            return squared + weight * (activations @ weights.W_dec.norm(dim=1))
        case L1():
            return squared + weight * activations.sum(1)
        case JumpRelu(bandwidth=bandwidth):
            return squared + weight * _apply(_Fires, z, weights.threshold, bandwidth).sum(1)
        case TopK() | BatchTopK():
            return squared


def pre_activations(weights: Weights, inputs: Float[Tensor, "token d_in"]) -> Float[Tensor, "token unit"]:
    """What the units sparsify."""
    return weights.centred(inputs) @ weights.W_enc.T + weights.b_enc


def sparsified(z: Float[Tensor, "token unit"], weights: Weights, sparsity: Sparsity) -> Float[Tensor, "token unit"]:
    """The activations of pre-activations `z`."""
    match sparsity:
        case L1():
            return z.relu()
        case TopK(k=k):
            values, units = z.topk(k)
            return torch.zeros_like(z).scatter(1, units, values.relu())
        case BatchTopK(k=k):
            values, at = z.relu().flatten().topk(k * len(z))
            return torch.zeros_like(z).flatten().scatter(0, at, values).view_as(z)
        case JumpRelu(bandwidth=bandwidth):
            return _apply(_Jump, z, weights.threshold, bandwidth)


def auxiliary_loss(
    weights: Weights,
    recipe: TrainingRecipe,
    sparsity: TopK | BatchTopK,
    inputs: Float[Tensor, "token d_in"],
    dead: Int64[Tensor, " dead"] | None,
) -> Float[Tensor, ""]:
    """``aux_weight * |e - e_hat|^2 * var(x) / var(e)``: how badly `dead` units reconstruct the error ``e = x - x_hat``.

    ``e_hat`` decodes the `aux_k` largest pre-activations among the dead units, without a bias. Nothing flows back
    through ``e`` or the variances (Gao et al. 2024, appendix A.2; both errors normalised, as in their code).
    """
    z = pre_activations(weights, inputs)
    if dead is None or not len(dead):
        return z.new_zeros(())
    activations = sparsified(z, weights, sparsity)
    left = (inputs - activations @ weights.W_dec - weights.b_dec).detach()
    values, units = z[:, dead].topk(min(sparsity.aux_k or weights.d_in // 2, len(dead)))
    chosen = torch.zeros_like(z[:, dead]).scatter(1, units, values.relu())
    error = (chosen @ weights.W_dec[dead] - left).square().sum(1).mean() / recipe.elements(weights.d_in)
    return error * (sparsity.aux_weight * auxiliary_ratio(inputs, left))


def pre_activation_loss(
    weights: Weights, sparsity: JumpRelu, inputs: Float[Tensor, "token d_in"], dead: Int64[Tensor, " dead"] | None
) -> Float[Tensor, ""]:
    """``pre_act_weight * relu(threshold - z)``, summed over the `dead` units, mean over inputs.

    Of Anthropic's update of January 2025, where all units have it; for dead ones alone, as in SAELens.
    """
    z = pre_activations(weights, inputs)
    if dead is None or not len(dead):
        return z.new_zeros(())
    return sparsity.pre_act_weight * (weights.threshold[dead] - z[:, dead]).relu().sum(1).mean()


def auxiliary_ratio(inputs: Float[Tensor, "token d_in"], left: Float[Tensor, "token d_in"]) -> Float[Tensor, ""]:
    """Variance of the inputs over that of the error that is left, about their means; 0 where there is no error."""
    of_inputs, of_left = ((each - each.mean(0)).square().sum() for each in (inputs, left))
    return torch.where(of_left > 0, of_inputs / of_left, 0.0)


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    return function.apply(*arguments)  # type: ignore[no-any-return]


class _Jump(torch.autograd.Function):
    """``z`` above its threshold, else 0. The threshold's gradient is a straight-through estimate (eq. 11 of the paper):
    ``-threshold / bandwidth`` where ``z`` is less than half a bandwidth from it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return torch.where(z > threshold, z, 0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        z, threshold = ctx.saved_tensors
        (gradient,) = gradients
        near = (z - threshold).abs() < ctx.bandwidth / 2
        of_threshold = -(gradient * near * threshold).sum(0) / ctx.bandwidth
        return gradient * (z > threshold), of_threshold, None


class _Fires(torch.autograd.Function):
    """1 above the threshold, else 0; the gradient goes to the threshold alone, ``-1 / bandwidth`` near it (eq. 12)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        z, threshold = ctx.saved_tensors
        (gradient,) = gradients
        near = (z - threshold).abs() < ctx.bandwidth / 2
        return None, -(gradient * near).sum(0) / ctx.bandwidth, None
