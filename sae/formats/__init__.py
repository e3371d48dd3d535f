"""Dictionaries on disk: detection and reading. Every shape is checked, and nothing unknown is guessed."""

from pathlib import Path

from sae.dictionary import Dictionary, DictionaryInfo
from sae.errors import UserError
from sae.formats.dictionary_learning import load_dictionary_learning
from sae.formats.gemma_scope import load_gemma_scope
from sae.formats.openai import load_openai
from sae.formats.saelens_read import WEIGHTS, load_saelens
from sae.formats.sparsify import WEIGHTS as SPARSIFY_WEIGHTS
from sae.formats.sparsify import load_sparsify
from sae.formats.tensors import read_pt

_FITS = (
    f"What fits: a directory of SAELens (cfg.json and {WEIGHTS}), of sparsify (cfg.json and {SPARSIFY_WEIGHTS}) or of "
    "dictionary_learning (config.json and ae.pt), Gemma Scope's params.npz, or OpenAI's .pt."
)
_MOST_SHOWN = 8


def load_dictionary(path: str | Path) -> tuple[Dictionary, DictionaryInfo]:
    """Read the autoencoder at `path`, whatever its format, as float32 on the CPU.

    `path` is a directory or one of the files in it. Raises `UserError` where nothing is there, no format fits, a
    file is malformed, or the autoencoder computes something that a dictionary here cannot.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"There is no dictionary at {path}.", do=_FITS)
    if path.name in {"cfg.json", WEIGHTS, SPARSIFY_WEIGHTS}:
        path = path.parent
    if path.is_file():
        return _load_file(path)
    for weights, load in {WEIGHTS: load_saelens, SPARSIFY_WEIGHTS: load_sparsify}.items():
        if (path / weights).exists():
            return load(path)
    for name in ("ae.pt", "params.npz"):
        if (path / name).exists():
            return _load_file(path / name)
    if (path / "cfg.json").exists():
        return load_saelens(path)
    raise UserError(f"{path} is not a dictionary in a format known here.", _holds(path), _FITS)


def _load_file(file: Path) -> tuple[Dictionary, DictionaryInfo]:
    match file.suffix:
        case ".npz":
            return load_gemma_scope(file)
        case ".pt" if file.name.startswith("ae"):
            return load_dictionary_learning(file)
        case ".pt":
            stored = read_pt(file)
            if "latent_bias" in stored:
                return load_openai(stored, file)
            return load_dictionary_learning(file)
        case _:
            raise UserError(f"{file} is not a dictionary in a format known here.", do=_FITS)


def _holds(directory: Path) -> str:
    """What is in `directory`, and which of the folders below it would fit."""
    found = sorted(child.name for child in directory.iterdir())
    below = sorted(
        {
            str(file.parent.relative_to(directory))
            for name in (WEIGHTS, SPARSIFY_WEIGHTS, "ae.pt", "params.npz")
            for file in directory.rglob(name)
        }
    )
    if below:
        return f"Dictionaries below it: {_listed(below)}."
    return f"It holds: {_listed(found) or 'nothing'}."


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more
