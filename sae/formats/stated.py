"""The explained variance that a dictionary's files state, where they do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

_LAST_BYTES = 65_536
"""Enough of a log's end to hold its last line."""


def stated_variance(directory: Path) -> float | None:
    """Share of the site's variance that the files in `directory` say is explained; None where they say nothing.

    Read are ``metrics.json`` of the `train` command (``fvu``), ``eval_results.json`` of dictionary_learning
    (``frac_variance_explained``) or of SAELens's ``evals`` (``reconstruction_quality``), and the last line of a
    ``metrics.jsonl`` with SAELens's names.
    """
    for file in (directory / "metrics.json", directory / "eval_results.json"):
        value = _in_evaluation(_object(file.read_bytes())) if file.exists() else None
        if value is not None:
            return value
    log = directory / "metrics.jsonl"
    if log.exists():
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LAST_BYTES))
            lines = file.read().splitlines()
        return _number(_object(lines[-1] if lines else b"").get("metrics/explained_variance"))
    return None


def _in_evaluation(values: Mapping[str, Any]) -> float | None:
    unexplained = _number(values.get("fvu"))
    if unexplained is not None:
        return 1 - unexplained
    quality = (_mapping(values.get("metrics")) or values).get("reconstruction_quality")
    saelens = _number(_mapping(quality).get("explained_variance"))
    return saelens if saelens is not None else _number(values.get("frac_variance_explained"))


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(text))
    except ValueError:
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
