"""dictionary_learning: ``ae.pt`` beside ``config.json``."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from sae.architectures.jumprelu import JumpReluAutoencoder
from sae.architectures.relu import ReluAutoencoder
from sae.architectures.topk import TopKAutoencoder
from sae.dictionary import Dictionary, DictionaryInfo
from sae.errors import UserError
from sae.formats.saelens_read import gated_as_jumprelu
from sae.formats.stated import stated_variance
from sae.formats.tensors import checked, checked_k, files_digest, matrix_shape, positive, read_json, read_pt


def load_dictionary_learning(file: Path) -> tuple[Dictionary, DictionaryInfo]:
    """Read `file`, an ``ae.pt`` or a checkpoint ``ae_STEP.pt``; its class is in the ``config.json`` of its trainer.

    What `from_pretrained` of that library does on loading is done here too: decoder rows of `AutoEncoder` get norm 1.
    Raises `UserError` for malformed files and for classes that are no dictionary here.
    """
    folder = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    config_file = folder / "config.json"
    if not config_file.exists():
        raise UserError(
            f"{file} has no config.json beside it.",
            "The same tensors are a TopK or a BatchTopK autoencoder by the class it names.",
            "Copy the whole directory of the trainer.",
        )
    trainer = cast(Mapping[str, Any], read_json(config_file).get("trainer") or {})
    name = str(trainer.get("dict_class"))
    if name not in _CLASSES:
        raise UserError(
            f"{config_file} names the class {name}.",
            "Read as another one, it would give wrong activations.",
            f"Classes read here: {', '.join(_CLASSES)}.",
        )
    stored = read_pt(file)
    dictionary = _CLASSES[name](stored, file)
    info = DictionaryInfo(
        dictionary.d_in,
        dictionary.n_units,
        site=_site(trainer),
        subject=trainer.get("lm_name"),
        digest=files_digest([config_file, file]),
        explained_variance=stated_variance(folder) if folder == file.parent else None,
    )
    return dictionary, info


def _site(trainer: Mapping[str, Any]) -> str | None:
    """The module path, where ``submodule_name`` is one; its usual ``resid_post_layer_3`` by the layer it names."""
    name = trainer.get("submodule_name")
    layer = trainer.get("layer")
    if isinstance(name, str) and isinstance(layer, int) and name.startswith("resid_post_layer"):
        return f"blocks.{layer}.hook_resid_post"
    return name if isinstance(name, str) and "." in name else None


def _linear(stored: Mapping[str, Any], file: Path, more: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors stored by ``nn.Linear``, the decoder transposed; `more` maps names to ``d_in``, ``unit`` or ``one``."""
    units, d_in = matrix_shape(stored, "encoder.weight", file)
    sizes: dict[str, tuple[int, ...]] = {"d_in": (d_in,), "unit": (units,), "one": ()}
    shapes = {"encoder.weight": (units, d_in), "decoder.weight": (d_in, units)}
    tensors = checked(stored, {**shapes, **{name: sizes[size] for name, size in more.items()}}, file)
    return tensors | {"decoder.weight": tensors["decoder.weight"].T.contiguous()}


def _rows(stored: Mapping[str, Any], file: Path, threshold: str) -> dict[str, Tensor]:
    """Tensors of the classes that keep ``W_enc`` as (d_in, unit), transposed; `threshold` is ``unit`` or ``one``."""
    d_in, units = matrix_shape(stored, "W_enc", file)
    shapes = {"W_enc": (d_in, units), "b_enc": (units,), "W_dec": (units, d_in), "b_dec": (d_in,)}
    tensors = checked(stored, {**shapes, "threshold": (units,) if threshold == "unit" else ()}, file)
    return tensors | {"W_enc": tensors["W_enc"].T.contiguous()}


def _auto_encoder(stored: Mapping[str, Any], file: Path) -> Dictionary:
    t = _linear(stored, file, {"encoder.bias": "unit", "bias": "d_in"})
    relu = ReluAutoencoder(t["encoder.weight"], t["encoder.bias"], t["decoder.weight"], t["bias"], True)
    return relu.with_unit_directions()


def _auto_encoder_new(stored: Mapping[str, Any], file: Path) -> Dictionary:
    t = _linear(stored, file, {"encoder.bias": "unit", "decoder.bias": "d_in"})
    return ReluAutoencoder(t["encoder.weight"], t["encoder.bias"], t["decoder.weight"], t["decoder.bias"], False)


def _top_k(stored: Mapping[str, Any], file: Path) -> Dictionary:
    t = _linear(stored, file, {"encoder.bias": "unit", "b_dec": "d_in"})
    k = checked_k(positive(stored.get("k"), "k", file), len(t["encoder.bias"]), file)
    return TopKAutoencoder(t["encoder.weight"], t["encoder.bias"], t["decoder.weight"], t["b_dec"], k, True)


def _batch_top_k(stored: Mapping[str, Any], file: Path) -> Dictionary:
    t = _linear(stored, file, {"encoder.bias": "unit", "b_dec": "d_in", "threshold": "one"})
    threshold = t["threshold"].expand_as(t["encoder.bias"]).clone()
    weights = (t["encoder.weight"], t["encoder.bias"], t["decoder.weight"], t["b_dec"])
    return JumpReluAutoencoder(*weights, threshold, pre_encoder_bias=True)


def _matryoshka(stored: Mapping[str, Any], file: Path) -> Dictionary:
    t = _rows(stored, file, "one")
    threshold = t["threshold"].expand_as(t["b_enc"]).clone()
    return JumpReluAutoencoder(t["W_enc"], t["b_enc"], t["W_dec"], t["b_dec"], threshold, pre_encoder_bias=True)


def _jump_relu(stored: Mapping[str, Any], file: Path) -> Dictionary:
    t = _rows(stored, file, "unit")
    return JumpReluAutoencoder(t["W_enc"], t["b_enc"], t["W_dec"], t["b_dec"], t["threshold"], pre_encoder_bias=False)


def _gated(stored: Mapping[str, Any], file: Path) -> Dictionary:
    names = ("gate_bias", "r_mag", "mag_bias")
    t = _linear(stored, file, {"decoder_bias": "d_in", **dict.fromkeys(names, "unit")})
    weights = (t["encoder.weight"], t["decoder.weight"], t["decoder_bias"])
    return gated_as_jumprelu(*weights, *(t[name] for name in names), pre_encoder_bias=True)


_CLASSES: Mapping[str, Callable[[Mapping[str, Any], Path], Dictionary]] = {
    "AutoEncoder": _auto_encoder,
    "AutoEncoderNew": _auto_encoder_new,
    "AutoEncoderTopK": _top_k,
    "BatchTopKSAE": _batch_top_k,
    "MatryoshkaBatchTopKSAE": _matryoshka,
    "JumpReluAutoEncoder": _jump_relu,
    "GatedAutoEncoder": _gated,
}
