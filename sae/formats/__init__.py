"""Dictionaries on disk: detection and reading. Every shape is checked, and nothing unknown is guessed."""

from pathlib import Path

from sae.dictionary import Dictionary, DictionaryInfo
from sae.errors import UserError
from sae.formats.gemma_scope import load_gemma_scope
from sae.formats.saelens import load_saelens

_FITS = (
    "What fits: a SAELens directory (cfg.json and sae_weights.safetensors), or Gemma Scope's params.npz or its folder."
)


def load_dictionary(path: str | Path) -> tuple[Dictionary, DictionaryInfo]:
    """Read the autoencoder at `path`, whatever its format, as float32 on the CPU.

    Raises `UserError` where nothing is there, no format fits, a file is malformed, or the autoencoder computes
    something that a dictionary here cannot.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"There is no dictionary at {path}.", do=_FITS)
    if path.name in {"cfg.json", "sae_weights.safetensors"}:
        path = path.parent
    if path.is_file() and path.suffix == ".npz":
        return load_gemma_scope(path)
    if path.is_dir() and (path / "cfg.json").exists():
        return load_saelens(path)
    if path.is_dir() and (path / "params.npz").exists():
        return load_gemma_scope(path / "params.npz")
    found = ", ".join(sorted(child.name for child in path.iterdir())[:8]) if path.is_dir() else ""
    raise UserError(
        f"{path} is not a dictionary in a format known here.",
        f"It holds: {found or 'nothing'}." if path.is_dir() else "",
        _FITS,
    )
