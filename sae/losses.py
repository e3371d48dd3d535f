"""The objective, as plain differentiable formulas; `sae.step` has its gradient written out by hand."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sae.architectures.relu import ReluAutoencoder


@dataclass(frozen=True, slots=True)
class Objective:
    """Squared error plus weighted L1, as in Bricken et al. 2023 or in Anthropic's update of April 2024."""

    mean_over_elements: bool
    """Whether the squared error is a mean over the elements of a vector, else their sum."""
    norm_weighted: bool
    """Whether each activation counts times the norm of its decoder row."""

    def elements(self, d_in: int) -> int:
        """What a vector's summed squared error is divided by."""
        return d_in if self.mean_over_elements else 1


def input_losses(
    autoencoder: ReluAutoencoder, scaled: Float[Tensor, "token d_in"], objective: Objective, l1: float
) -> Float[Tensor, " token"]:
    """The loss of each input. `scaled`: inputs already multiplied by the autoencoder's `input_scale`."""
    w_enc, b_enc, w_dec, b_dec = autoencoder.parameters()
    centred = scaled - b_dec if autoencoder.pre_encoder_bias else scaled
    activations = (centred @ w_enc.T + b_enc).relu()
    errors = activations @ w_dec + b_dec - scaled
    squared = errors.square().sum(1) / objective.elements(autoencoder.d_in)
    weighted = activations @ w_dec.norm(dim=1) if objective.norm_weighted else activations.sum(1)
    return squared + l1 * weighted
