"""Writing SAELens 6 directories: ``cfg.json`` beside ``sae_weights.safetensors``."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from sae.architectures.jumprelu import JumpReluAutoencoder
from sae.architectures.relu import ReluAutoencoder
from sae.architectures.topk import TopKAutoencoder
from sae.formats.saelens_read import CONFIG, WEIGHTS

_VERSION = "6.54.12"
"""SAELens release whose files these are; readers take files without a version for an older, flat layout."""
_NEVER = 1e-10
"""Firing rate written for units that never fired, whose logarithm would be infinite."""
_SPARSITY = "sparsity.safetensors"

Autoencoder: TypeAlias = ReluAutoencoder | JumpReluAutoencoder | TopKAutoencoder
"""What can be written; BatchTopK is written as the JumpReLU that it is at inference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SaeMetadata:
    """Where an autoencoder came from: the keys that SAELens keeps under ``metadata``. None where unknown."""

    subject: str | None = None
    """Directory or hub id of the model."""
    site: str | None = None
    """TransformerLens name of the site."""
    corpus: str | None = None
    """What the windows were cut from."""
    context: int | None = None
    """Positions per window."""
    prepend_bos: bool | None = None
    """Whether every window starts with BOS."""
    l0: float | None = None
    """Mean number of units that fire on a token."""
    dead: int | None = None
    """Units that are dead by the recipe's window."""
    trained_as: str | None = None
    """SAELens's name of the architecture in training, such as ``batchtopk``; None where it is the one written."""
    training: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The recipe, as names and values that JSON can hold."""


def save_saelens(
    directory: Path,
    autoencoder: Autoencoder,
    metadata: SaeMetadata,
    *,
    firing_rate: Float[Tensor, " unit"] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `autoencoder` for SAELens; its input scale goes into the weights.

    `firing_rate` (share of tokens on which each unit fires) is written as its log10. Each file is written beside its
    place and renamed into it, the configuration last.
    """
    directory.mkdir(parents=True, exist_ok=True)
    folded = autoencoder.folded()
    weights = {"W_enc": folded.W_enc.T, "b_enc": folded.b_enc, "W_dec": folded.W_dec, "b_dec": folded.b_dec}
    architecture, own = "standard", {}
    match folded:
        case ReluAutoencoder():
            pass
        case TopKAutoencoder():
            architecture, own = "topk", {"k": folded.k, "rescale_acts_by_decoder_norm": False}
        case JumpReluAutoencoder():
            architecture, weights["threshold"] = "jumprelu", folded.threshold
    _save_tensors(directory / WEIGHTS, {name: tensor.to(dtype) for name, tensor in weights.items()})
    if firing_rate is not None:
        _save_tensors(directory / _SPARSITY, {"sparsity": firing_rate.float().clamp_min(_NEVER).log10()})
    config = _config(folded, architecture, metadata, str(dtype).removeprefix("torch.")) | own
    partial = directory / f"{CONFIG}.partial"
    partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    partial.replace(directory / CONFIG)


def _config(folded: Autoencoder, architecture: str, metadata: SaeMetadata, dtype: str) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "d_in": folded.d_in,
        "d_sae": folded.n_units,
        "dtype": dtype,
        "device": "cpu",
        "apply_b_dec_to_input": folded.pre_encoder_bias,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": _VERSION,
            "sae_lens_training_version": _VERSION,
            "model_name": metadata.subject,
            "model_class_name": "AutoModelForCausalLM",
            "hook_name": metadata.site,
            "hook_head_index": None,
            "dataset_path": metadata.corpus,
            "context_size": metadata.context,
            "prepend_bos": metadata.prepend_bos,
            "seqpos_slice": [None],
            "model_from_pretrained_kwargs": {},
            "exclude_special_tokens": True,
            "training_architecture": metadata.trained_as or architecture,
            "training_architecture_details": dict(metadata.training),
            "l0": metadata.l0,
            "num_dead_features": metadata.dead,
        },
    }


def _save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    partial = file.with_name(f"{file.name}.partial")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.replace(file)
