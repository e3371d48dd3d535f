"""API keys: read from the environment or `.env`, never written anywhere."""

import os
import re
from pathlib import Path

from sae.errors import UserError

_SHORTEST_SECRET = 8
"""Characters below which a value is no secret but a placeholder: hiding it would garble ordinary text."""
_LOOKS_SECRET = re.compile(r"\bsk-[\w*.-]{6,}|\bBearer\s+[\w*.~+/=-]+", re.IGNORECASE)
_handed_out: set[str] = set()


def setting(name: str) -> str | None:
    """Value of `name` in the environment, else in `.env` of the working directory; nothing is exported.

    Raises `UserError` where `.env` is not text.
    """
    if value := os.environ.get(name):
        return value
    file = Path(".env")
    if not file.is_file():
        return None
    from dotenv import dotenv_values

    try:
        return dotenv_values(file, interpolate=False).get(name) or None
    except UnicodeDecodeError as error:
        raise UserError(f"{file.resolve()} is not UTF-8 text.") from error


def find_key(name: str) -> str | None:
    """The API key in the variable `name`, if there is one; from now on `redact` hides it."""
    key = (setting(name) or "").strip()
    if len(key) >= _SHORTEST_SECRET:
        _handed_out.add(key)
    return key or None


def api_key(name: str) -> str:
    """The API key in the variable `name`; raises `UserError` naming the variable where there is none."""
    if key := find_key(name):
        return key
    raise UserError(
        f"There is no {name}.",
        "Keys are read from the environment, or from .env in the working directory, and from nowhere else.",
        f"Set it (export {name}=...), or choose another model.",
    )


def redact_known(text: str) -> str:
    """`text` without any key that this process has read: for bodies, whose other words must stay as they are."""
    for key in _handed_out:
        text = text.replace(key, "[key]")
    return text


def redact(text: str) -> str:
    """`text` without any key that this process has read, nor anything that looks like one: for messages."""
    return _LOOKS_SECRET.sub("[key]", redact_known(text))
