"""`manifest.json`: what made the numbers, written so that somebody else can make them again."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from autointerp.config import RunConfig
from sae.errors import UserError

SCHEMA = 1
_PACKAGES = (
    "autointerp-eval",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "anthropic",
    "openai",
    "genai-prices",
)


def update_manifest(directory: Path, sections: Mapping[str, object]) -> None:
    """Replace `sections` in the manifest and rename it into place."""
    write_json(directory / "manifest.json", {"schema": SCHEMA, **read_manifest(directory), **sections})


def read_manifest(directory: Path) -> dict[str, object]:
    """The manifest, empty where there is none; `UserError` where it is malformed."""
    path = directory / "manifest.json"
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is malformed.", str(error), "Delete it and run again.") from error


def environment() -> dict[str, object]:
    """Command line, versions and commit."""
    return {
        "command": ["autointerp", *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


@contextmanager
def timed(directory: Path, stage: str) -> Generator[None]:
    """Add the wall time of a stage to the manifest, whether it ends well or not; sessions of one run add up.

    Nothing is written where `directory` is not made.
    """
    begun = time.monotonic()
    try:
        yield
    finally:
        if directory.exists():
            _add_seconds(directory, stage, time.monotonic() - begun)


def content_key(parts: object) -> str:
    """SHA-256 of the canonical JSON of `parts`, hexadecimal."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_key(config: RunConfig) -> str:
    """Names a run, in its directory and in the store of answers: by what changes numbers."""
    return content_key(config.identity())


def write_json(path: Path, value: object) -> None:
    """Write `value` beside `path` and rename it into place."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)  # noqa: PTH105


def _add_seconds(directory: Path, stage: str, seconds: float) -> None:
    before = cast(Mapping[str, float], read_manifest(directory).get("seconds", {}))
    update_manifest(directory, {"seconds": {**before, stage: round(before.get(stage, 0.0) + seconds, 2)}})


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the checkout that this file lies in, ``+`` appended where files differ; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(here: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()
