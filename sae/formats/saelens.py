"""SAELens 6 directories: ``cfg.json`` beside ``sae_weights.safetensors``."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae.architectures.jumprelu import JumpReluAutoencoder
from sae.architectures.relu import ReluAutoencoder
from sae.dictionary import DictionaryInfo
from sae.errors import UserError, nearest
from sae.formats.tensors import checked, files_digest

_VERSION = "6.54.12"
"""SAELens release whose files these are; readers take files without a version for an older, flat layout."""
_NEVER = 1e-10
"""Firing rate written for units that never fired, whose logarithm would be infinite."""
_ARCHITECTURES = ("standard", "jumprelu")
_CONFIG, _WEIGHTS, _SPARSITY, _SCALER = (
    "cfg.json",
    "sae_weights.safetensors",
    "sparsity.safetensors",
    "activation_scaler.json",
)


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
    training: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The recipe, as names and values that JSON can hold."""


def save_saelens(
    directory: Path,
    autoencoder: ReluAutoencoder,
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
    weights = {
        "W_enc": folded.W_enc.T,
        "b_enc": folded.b_enc,
        "W_dec": folded.W_dec,
        "b_dec": folded.b_dec,
    }
    _save_tensors(directory / _WEIGHTS, {name: tensor.to(dtype) for name, tensor in weights.items()})
    if firing_rate is not None:
        _save_tensors(directory / _SPARSITY, {"sparsity": firing_rate.float().clamp_min(_NEVER).log10()})
    config = _config(folded, metadata, str(dtype).removeprefix("torch."))
    partial = directory / f"{_CONFIG}.partial"
    partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    partial.replace(directory / _CONFIG)


def load_saelens(directory: Path) -> tuple[ReluAutoencoder | JumpReluAutoencoder, DictionaryInfo]:
    """Read `directory` as float32.

    Raises `UserError` for missing or malformed files, an architecture, activation or input normalisation that
    cannot be computed here, or a tensor whose shape is not the configuration's.
    """
    config_file, weights_file = directory / _CONFIG, directory / _WEIGHTS
    config = _read_json(config_file)
    architecture = _checked_architecture(config, config_file)
    d_in, units = (_positive(config, key, config_file) for key in ("d_in", "d_sae"))
    scale = _input_scale(config, directory)
    if not weights_file.exists():
        raise UserError(f"{directory} has no {_WEIGHTS}.", do="Copy the whole SAELens directory.")
    try:
        stored = load_file(weights_file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{weights_file} cannot be read.", str(error), "Copy it again.") from error
    shapes = {"W_enc": (d_in, units), "b_enc": (units,), "W_dec": (units, d_in), "b_dec": (d_in,)}
    if architecture == "jumprelu":
        shapes["threshold"] = (units,)
    tensors = checked(stored, shapes, weights_file)
    common = (tensors["W_enc"].T.contiguous(), tensors["b_enc"], tensors["W_dec"], tensors["b_dec"])
    bias = bool(config.get("apply_b_dec_to_input", True))
    metadata = cast(Mapping[str, Any], config.get("metadata") or config)
    info = DictionaryInfo(
        d_in,
        units,
        site=metadata.get("hook_name") or metadata.get("hook_point"),
        subject=metadata.get("model_name"),
        digest=files_digest([file for file in (config_file, weights_file, directory / _SCALER) if file.exists()]),
    )
    if architecture == "jumprelu":
        return JumpReluAutoencoder(*common, tensors["threshold"], pre_encoder_bias=bias, input_scale=scale), info
    return ReluAutoencoder(*common, pre_encoder_bias=bias, input_scale=scale), info


def _config(folded: ReluAutoencoder, metadata: SaeMetadata, dtype: str) -> dict[str, Any]:
    return {
        "architecture": "standard",
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
            "training_architecture": "standard",
            "training_architecture_details": dict(metadata.training),
            "l0": metadata.l0,
            "num_dead_features": metadata.dead,
        },
    }


def _checked_architecture(config: Mapping[str, Any], file: Path) -> str:
    architecture = config.get("architecture", "standard")
    if architecture not in _ARCHITECTURES:
        raise UserError(
            f"{file} describes an autoencoder of architecture {architecture!r}.",
            "Read as another one, it would give wrong activations.",
            f"Architectures read here: {', '.join(_ARCHITECTURES)}.",
        )
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if activation != "relu":
        raise UserError(f"{file} asks for the activation function {activation!r}.", do="Only 'relu' is read here.")
    if config.get("finetuning_scaling_factor"):
        raise UserError(
            f"{file} has a fine-tuned scale per unit.",
            "Without it, the reconstructions would be wrong.",
            "Fold finetuning_scaling_factor into the weights with SAELens and save again.",
        )
    reshape = config.get("reshape_activations", "none")
    if reshape not in {"none", "hook_z"}:
        raise UserError(f"{file} reshapes its input by {reshape!r}.", do="Only 'none' and 'hook_z' are read here.")
    return architecture


def _input_scale(config: Mapping[str, Any], directory: Path) -> float:
    normalization = config.get("normalize_activations", "none")
    match normalization:
        case "none" | None | False:
            return 1.0
        case "expected_average_only_in":
            if not (directory / _SCALER).exists():
                raise UserError(
                    f"{directory} expects inputs multiplied by one number that its files do not hold.",
                    "normalize_activations is 'expected_average_only_in' and the scale is not folded into the weights.",
                    f"Fold it with SAELens before saving, or add {_SCALER} from the training checkpoint.",
                )
            factor = _read_json(directory / _SCALER).get("scaling_factor")
            if not isinstance(factor, int | float) or not math.isfinite(factor) or factor <= 0:
                raise UserError(f"{directory / _SCALER} gives the scaling_factor {factor!r}.", do="Give it above 0.")
            return float(factor)
        case "layer_norm" | "constant_norm_rescale":
            raise UserError(
                f"{directory} normalises every input by itself (normalize_activations is {normalization!r}).",
                "Its reconstructions then need the input's norm besides the activations of the units.",
                "Use an autoencoder whose normalize_activations is 'none'.",
            )
        case _:
            known = ("none", "expected_average_only_in", "layer_norm", "constant_norm_rescale")
            raise UserError(
                f"{directory} asks for normalize_activations {normalization!r}.", do=nearest(str(normalization), known)
            )


def _positive(config: Mapping[str, Any], key: str, file: Path) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{file} gives {key} as {value!r}.", do="It must be a whole number above 0.")
    return value


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON.", str(error), "Copy it again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} does not hold a JSON object.", do="Give the cfg.json that SAELens wrote.")
    return cast(dict[str, Any], value)


def _save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    partial = file.with_name(f"{file.name}.partial")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(file)
