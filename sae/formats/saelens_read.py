"""Reading SAELens directories: version 6, and the flat configurations before it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from sae.architectures.jumprelu import JumpReluAutoencoder
from sae.architectures.normalised import NormalisedAutoencoder
from sae.architectures.relu import ReluAutoencoder
from sae.architectures.topk import TopKAutoencoder
from sae.dictionary import Dictionary, DictionaryInfo
from sae.errors import UserError, nearest
from sae.formats.stated import stated_variance
from sae.formats.tensors import checked, checked_k, files_digest, positive, read_json, read_safetensors

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"

Architecture = Literal["standard", "topk", "jumprelu", "gated", "batchtopk", "matryoshka_batchtopk"]
_ARCHITECTURES: tuple[Architecture, ...] = (
    "standard",
    "topk",
    "jumprelu",
    "gated",
    "batchtopk",
    "matryoshka_batchtopk",
)


def load_saelens(directory: Path) -> tuple[Dictionary, DictionaryInfo]:
    """Read `directory` as float32.

    Raises `UserError` for missing or malformed files, an architecture, activation or input normalisation that
    cannot be computed here, or a tensor whose shape is not the configuration's.
    """
    config_file, weights_file = directory / CONFIG, directory / WEIGHTS
    config = read_json(config_file)
    architecture = _architecture(config, config_file)
    d_in, units = (positive(config.get(key), key, config_file) for key in ("d_in", "d_sae"))
    autoencoder = _autoencoder(architecture, config, d_in, units, weights_file)
    metadata = cast(Mapping[str, Any], config.get("metadata") or config)
    info = DictionaryInfo(
        d_in,
        units,
        site=metadata.get("hook_name") or metadata.get("hook_point"),
        subject=metadata.get("model_name"),
        digest=files_digest([file for file in (config_file, weights_file, directory / SCALER) if file.exists()]),
        explained_variance=stated_variance(directory),
    )
    return _normalised(autoencoder, config, directory), info


def _autoencoder(
    architecture: Architecture, config: Mapping[str, Any], d_in: int, units: int, file: Path
) -> ReluAutoencoder | JumpReluAutoencoder | TopKAutoencoder:
    bias = bool(config.get("apply_b_dec_to_input", True))
    matrices = {"W_enc": (d_in, units), "W_dec": (units, d_in), "b_dec": (d_in,)}
    own: dict[str, tuple[int, ...]]
    match architecture:
        case "standard" | "topk":
            own = {"b_enc": (units,)}
        case "jumprelu":
            own = {"b_enc": (units,), "threshold": (units,)}
        case "gated":
            own = dict.fromkeys(("b_gate", "b_mag", "r_mag"), (units,))
        case "batchtopk" | "matryoshka_batchtopk":
            own = {"b_enc": (units,), "topk_threshold": ()}
    tensors = checked(read_safetensors(file), {**matrices, **own}, file)
    w_enc, w_dec, b_dec = tensors["W_enc"].T.contiguous(), tensors["W_dec"], tensors["b_dec"]
    match architecture:
        case "standard":
            return ReluAutoencoder(w_enc, tensors["b_enc"], w_dec, b_dec, bias)
        case "jumprelu":
            return JumpReluAutoencoder(w_enc, tensors["b_enc"], w_dec, b_dec, tensors["threshold"], bias)
        case "gated":
            gates = (tensors["b_gate"], tensors["r_mag"], tensors["b_mag"])
            return gated_as_jumprelu(w_enc, w_dec, b_dec, *gates, pre_encoder_bias=bias)
        case "topk":
            flat = config.get("activation_fn_kwargs") or {}  # before version 6
            k = checked_k(positive(config.get("k", flat.get("k")), "k", file.parent / CONFIG), units, file)
            topk = TopKAutoencoder(w_enc, tensors["b_enc"], w_dec, b_dec, k, bias)
            return _rescaled(topk) if config.get("rescale_acts_by_decoder_norm", False) else topk
        case "batchtopk" | "matryoshka_batchtopk":
            relu = ReluAutoencoder(w_enc, tensors["b_enc"], w_dec, b_dec, bias)
            relu = relu.with_unit_directions() if config.get("rescale_acts_by_decoder_norm", True) else relu
            threshold = tensors["topk_threshold"].expand(units).clone()
            return JumpReluAutoencoder(*relu.parameters(), threshold, bias)


def gated_as_jumprelu(
    w_enc: Tensor,
    w_dec: Tensor,
    b_dec: Tensor,
    b_gate: Tensor,
    r_mag: Tensor,
    b_mag: Tensor,
    *,
    pre_encoder_bias: bool,
) -> JumpReluAutoencoder:
    """A gated autoencoder with tied weights, written as the JumpReLU that it equals (Rajamanoharan et al. 2024b).

    The gate ``w x + b_gate > 0`` is ``z > b_mag - exp(r_mag) b_gate`` for the magnitude ``z = exp(r_mag) w x + b_mag``.
    """
    gain = r_mag.exp()
    return JumpReluAutoencoder(
        w_enc * gain[:, None], b_mag, w_dec, b_dec, b_mag - gain * b_gate, pre_encoder_bias=pre_encoder_bias
    )


def _rescaled(topk: TopKAutoencoder) -> TopKAutoencoder:
    """SAELens's ``rescale_acts_by_decoder_norm``: units compete by pre-activation times decoder norm."""
    norms = topk.W_dec.norm(dim=1)
    norms = torch.where(norms > 0, norms, 1.0)
    column = norms[:, None]
    return replace(topk, W_enc=topk.W_enc * column, b_enc=topk.b_enc * norms, W_dec=topk.W_dec / column)


def _architecture(config: Mapping[str, Any], file: Path) -> Architecture:
    named = config.get("architecture", "standard")
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if named in {"standard", "topk"} and activation == "topk":
        named = "topk"
    elif activation != "relu":
        raise UserError(
            f"{file} asks for the activation function {activation!r}.", do="Only 'relu' and 'topk' are read here."
        )
    if named not in _ARCHITECTURES:
        raise UserError(
            f"{file} describes an autoencoder of architecture {named!r}.",
            "Read as another one, it would give wrong activations.",
            f"Architectures read here: {', '.join(_ARCHITECTURES)}.",
        )
    if config.get("finetuning_scaling_factor"):
        raise UserError(
            f"{file} has a fine-tuned scale per unit.",
            "Without it, the reconstructions would be wrong.",
            "Fold finetuning_scaling_factor into the weights with SAELens and save again.",
        )
    reshape = config.get("reshape_activations", "none")
    if reshape not in {"none", "hook_z"}:
        raise UserError(f"{file} reshapes its input by {reshape!r}.", do="Only 'none' and 'hook_z' are read here.")
    return named


def _normalised(
    autoencoder: ReluAutoencoder | JumpReluAutoencoder | TopKAutoencoder, config: Mapping[str, Any], directory: Path
) -> Dictionary:
    normalization = config.get("normalize_activations", "none")
    match normalization:
        case "none" | None | False:
            return autoencoder
        case "expected_average_only_in" | True:  # a bool before version 3
            return replace(autoencoder, input_scale=_scale(directory))
        case "layer_norm" | "constant_norm_rescale":
            return NormalisedAutoencoder(autoencoder, normalization)
        case _:
            known = ("none", "expected_average_only_in", "layer_norm", "constant_norm_rescale")
            raise UserError(
                f"{directory} asks for normalize_activations {normalization!r}.", do=nearest(str(normalization), known)
            )


def _scale(directory: Path) -> float:
    if not (directory / SCALER).exists():
        raise UserError(
            f"{directory} expects inputs multiplied by one number that its files do not hold.",
            "normalize_activations is 'expected_average_only_in' and the scale is not folded into the weights.",
            f"Fold it with SAELens before saving, or add {SCALER} from the training checkpoint.",
        )
    factor = read_json(directory / SCALER).get("scaling_factor")
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor <= 0:
        raise UserError(f"{directory / SCALER} gives the scaling_factor {factor!r}.", do="Give it above 0.")
    return float(factor)
