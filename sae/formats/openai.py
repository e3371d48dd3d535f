"""OpenAI's sparse_autoencoder: one ``.pt`` file with a state dict (Gao et al. 2024)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from sae.architectures.normalised import NormalisedAutoencoder
from sae.architectures.relu import ReluAutoencoder
from sae.architectures.topk import TopKAutoencoder
from sae.dictionary import Dictionary, DictionaryInfo
from sae.errors import UserError
from sae.formats.tensors import checked, checked_k, files_digest, matrix_shape, positive


def load_openai(stored: Mapping[str, Any], file: Path) -> tuple[Dictionary, DictionaryInfo]:
    """The autoencoder whose state dict is `stored`; it names neither its subject nor its site.

    A TopK one normalises every input by its own mean and deviation: that is how OpenAI's own reader tells them
    apart. Raises `UserError` for malformed tensors and unknown activations.
    """
    units, d_in = matrix_shape(stored, "encoder.weight", file)
    shapes = {"encoder.weight": (units, d_in), "latent_bias": (units,), "pre_bias": (d_in,)}
    tensors = checked(stored, {**shapes, "decoder.weight": (d_in, units)}, file)
    weights = (
        tensors["encoder.weight"],
        tensors["latent_bias"],
        tensors["decoder.weight"].T.contiguous(),
        tensors["pre_bias"],
    )
    activation = stored.get("activation", "ReLU")
    state = cast(Mapping[str, Any], stored.get("activation_state_dict") or {})
    after = state.get("postact_fn", "ReLU")
    dictionary: Dictionary
    match activation:
        case "ReLU":
            dictionary = ReluAutoencoder(*weights, pre_encoder_bias=True)
        case "TopK" if after == "ReLU":
            k = checked_k(positive(state.get("k"), "k", file), units, file)
            dictionary = NormalisedAutoencoder(TopKAutoencoder(*weights, k=k, pre_encoder_bias=True), "layer_norm")
        case _:
            raise UserError(
                f"{file} asks for the activation {activation!r} followed by {after!r}.",
                "Read as another one, it would give wrong activations.",
                "Read here: ReLU, and TopK followed by ReLU.",
            )
    return dictionary, DictionaryInfo(d_in, units, site=None, subject=None, digest=files_digest([file]))
