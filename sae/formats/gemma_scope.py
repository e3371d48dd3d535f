"""Gemma Scope's ``params.npz``: JumpReLU autoencoders without a pre-encoder bias (Lieberum et al. 2024)."""

import zipfile
from pathlib import Path

import numpy as np
import torch

from sae.architectures.jumprelu import JumpReluAutoencoder
from sae.dictionary import DictionaryInfo
from sae.errors import UserError
from sae.formats.tensors import checked, files_digest


def load_gemma_scope(file: Path) -> tuple[JumpReluAutoencoder, DictionaryInfo]:
    """Read `file`; it names neither its subject nor its site. Raises `UserError` where it is malformed."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: torch.from_numpy(np.asarray(archive[name], dtype=np.float32)) for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} cannot be read as an npz of arrays.", str(error), "Download it again.") from error
    if "W_enc" not in arrays or arrays["W_enc"].ndim != 2:
        raise UserError(
            f"{file} has no matrix W_enc.",
            f"It has: {', '.join(sorted(arrays)) or 'nothing'}.",
            "Gemma Scope's files hold W_enc, W_dec, b_enc, b_dec and threshold.",
        )
    d_in, units = arrays["W_enc"].shape
    shapes = {"W_enc": (d_in, units), "W_dec": (units, d_in), "b_enc": (units,), "b_dec": (d_in,)}
    tensors = checked(arrays, {**shapes, "threshold": (units,)}, file)
    autoencoder = JumpReluAutoencoder(
        tensors["W_enc"].T.contiguous(),
        tensors["b_enc"],
        tensors["W_dec"],
        tensors["b_dec"],
        tensors["threshold"],
        pre_encoder_bias=False,
    )
    return autoencoder, DictionaryInfo(d_in, units, site=None, subject=None, digest=files_digest([file]))
