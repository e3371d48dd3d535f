"""EleutherAI's sparsify: ``cfg.json`` beside ``sae.safetensors``, a directory per hook point."""

import re
from pathlib import Path

from sae.architectures.topk import TopKAutoencoder
from sae.dictionary import DictionaryInfo
from sae.errors import UserError
from sae.formats.stated import stated_variance
from sae.formats.tensors import checked, checked_k, files_digest, positive, read_json, read_safetensors

WEIGHTS = "sae.safetensors"


def load_sparsify(directory: Path) -> tuple[TopKAutoencoder, DictionaryInfo]:
    """Read `directory`, whose name is its site's path below the model where it has a layer, such as ``layers.3.mlp``.

    Raises `UserError` for malformed files, transcoders, skip connections and activations other than TopK.
    """
    config_file, file = directory / "cfg.json", directory / WEIGHTS
    config = read_json(config_file)
    if config.get("transcode") or config.get("skip_connection"):
        raise UserError(
            f"{config_file} describes a transcoder.",
            "It reads one site and writes another, so it is no dictionary of either.",
            "Give an autoencoder: transcode and skip_connection are false.",
        )
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise UserError(f"{config_file} asks for the activation {activation!r}.", do="Only 'topk' is read here.")
    d_in = positive(config.get("d_in"), "d_in", config_file)
    units = config.get("num_latents") or d_in * positive(config.get("expansion_factor"), "expansion_factor", file)
    units = positive(units, "num_latents", config_file)
    k = checked_k(positive(config.get("k"), "k", config_file), units, config_file)
    shapes = {"encoder.weight": (units, d_in), "encoder.bias": (units,), "W_dec": (units, d_in), "b_dec": (d_in,)}
    tensors = checked(read_safetensors(file), shapes, file)
    info = DictionaryInfo(
        d_in,
        units,
        site=directory.name if re.search(r"\.\d+(\.|$)", directory.name) else None,
        subject=None,
        digest=files_digest([config_file, file]),
        explained_variance=stated_variance(directory),
    )
    return TopKAutoencoder(*(tensors[name] for name in shapes), k=k, pre_encoder_bias=True), info
