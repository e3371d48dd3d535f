"""What each unit does to the model's output by its direct path."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor, nn

from sae.dictionary import Dictionary
from sae.sites import Site, down_matrix, family_of
from sae.subject import Subject

CHUNK = 256
"""Units whose weights on the whole vocabulary exist at one time."""


@dataclass(frozen=True, slots=True, eq=False)
class TopLogits:
    """The ends of every unit's logit weights."""

    promoted: Int32[np.ndarray, "unit k"]
    """Token ids of the highest weights, falling."""
    promoted_weights: Float32[np.ndarray, "unit k"]
    """Their weights: logits per unit of activation above the unit's median token."""
    suppressed: Int32[np.ndarray, "unit k"]
    """Token ids of the lowest weights, rising."""
    suppressed_weights: Float32[np.ndarray, "unit k"]
    """Their weights."""


def logit_weights(
    subject: Subject, site: Site, dictionary: Dictionary, chunk: int = CHUNK
) -> Iterator[Float[Tensor, "unit vocabulary"]] | None:
    """Logits per unit of activation, `chunk` units at a time, each unit's median over the vocabulary shifted to 0.

    The linear path of Towards Monosemanticity: direction, W_down where the site is neurons, the final normalisation
    as the removal of the mean (LayerNorm only) and its gain, the unembedding. The normalisation's scale depends on
    the input and is left out. None where the site has no direct path to the logits.
    """
    if site.kind == "other" or site.layer is None:
        return None
    through_neurons = down_matrix(subject.model, site.layer) if site.kind == "mlp_post" else None
    return _weights(subject, through_neurons, dictionary.directions(), chunk)


def top_logits(subject: Subject, site: Site, dictionary: Dictionary, k: int = 10) -> TopLogits | None:
    """The `k` tokens that each unit promotes and suppresses most; None as in `logit_weights`."""
    chunks = logit_weights(subject, site, dictionary)
    if chunks is None:
        return None
    parts: list[list[np.ndarray]] = [[], [], [], []]
    for weights in chunks:
        for i, largest in ((0, True), (2, False)):
            top = weights.topk(min(k, weights.shape[1]), dim=1, largest=largest)
            parts[i].append(top.indices.cpu().numpy().astype(np.int32))
            parts[i + 1].append(top.values.cpu().numpy())
    return TopLogits(*(np.concatenate(part) for part in parts))


@torch.no_grad()
def _weights(
    subject: Subject, through_neurons: Tensor | None, directions: Tensor, chunk: int
) -> Iterator[Float[Tensor, "unit vocabulary"]]:
    family = family_of(subject.model)
    gain = cast(Tensor, subject.model.get_submodule(family.norm).weight).float()
    unembed = cast(Tensor, cast(nn.Module, subject.model.get_output_embeddings()).weight).float()
    for part in directions.split(chunk):
        path = part.to(subject.device).float()
        if through_neurons is not None:
            path = path @ through_neurons.float()
        if family.centred:
            path = path - path.mean(1, keepdim=True)
        weights = (path * gain) @ unembed.T
        yield weights - weights.median(1, keepdim=True).values
