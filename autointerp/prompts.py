"""Versioned prompts: the texts are data, read here; each room renders its own.

A prompt's room holds a pure pair: ``render`` makes a `Request`, ``read`` turns a `Reply` into a value or a `Failure`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

from sae.errors import UserError, nearest

ROOT = Path(__file__).parent / "_prompts"
"""Shipped prompts, ``name/version/file``. Versions are added, never edited."""
ASKED_AGAIN = ("invalid", "truncated")
"""Kinds of failure after which one fresh draw may help; the same question is put again, never a longer one."""
DRAWS = 2
"""Answers asked for, at most, where none can be read."""
_FILES = ("demonstrations.json", "schema.json", "system.txt", "user.txt")
"""A prompt whose answer is no text has no ``schema.json``."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One version of one prompt."""

    name: str
    """What it asks for: ``explain``, ``simulate`` or ``slots``."""
    version: str
    """Such as ``v1``."""
    system: Template
    """Instructions, with a place for the demonstrations: the prefix that all calls share."""
    user: Template
    """What one call adds."""
    demonstrations: str
    """JSON text, in the form that the prompt's room reads."""
    schema: str | None
    """JSON schema of the answer as canonical JSON text: keys sorted, no spaces; None where the answer is no text."""
    digest: str
    """SHA-256 over the names and bytes of its files, hexadecimal."""


@cache
def load_prompt(name: str, version: str) -> Prompt:
    """A shipped prompt. Raises `UserError` with the nearest one where there is none of that name and version."""
    folder = ROOT / name / version
    if f"{name}/{version}" not in _shipped():
        raise UserError(f"There is no prompt {name}/{version}.", do=nearest(f"{name}/{version}", _shipped()))
    texts = {file: (folder / file).read_text(encoding="utf-8") for file in _files(folder)}
    schema = texts.get("schema.json")
    return Prompt(
        name=name,
        version=version,
        system=Template(texts["system.txt"].strip()),
        user=Template(texts["user.txt"].strip()),
        demonstrations=texts["demonstrations.json"],
        schema=schema and json.dumps(json.loads(schema), sort_keys=True, separators=(",", ":")),
        digest=_digest(folder),
    )


def prompt_digests() -> Mapping[str, str]:
    """`Prompt.digest` of every shipped prompt, by ``name/version``."""
    return {shipped: _digest(ROOT / shipped) for shipped in _shipped()}


def _shipped() -> list[str]:
    return sorted(file.parent.relative_to(ROOT).as_posix() for file in ROOT.glob("*/*/system.txt"))


def _files(folder: Path) -> list[str]:
    return [file for file in _FILES if file != "schema.json" or (folder / file).exists()]


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(folder):
        content = (folder / file).read_bytes()
        # The length keeps a byte from moving between files unnoticed.
        digest.update(f"{file} {len(content)}\n".encode() + content)
    return digest.hexdigest()
