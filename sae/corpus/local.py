"""Documents that every installation has: texts of the installed pure-Python distributions.

Their wheels carry no compiled code, so a pinned version has the same bytes on every machine and Python; the hash in
RECORD proves it for every file that is read.
"""

import base64
import hashlib
import string
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, PackagePath, distribution
from itertools import accumulate
from pathlib import Path

from sae.corpus.document import Document

DISTRIBUTIONS = (
    "annotated-types", "anthropic", "anyio", "asyncio-throttle", "attrs", "click", "cycler", "cyclopts",
    "docstring_parser", "filelock", "fsspec", "genai-prices", "h11", "httpcore2", "httpx2", "huggingface_hub", "idna",
    "jaxtyping", "Jinja2", "markdown-it-py", "mdurl", "mpmath", "networkx", "openai", "opentelemetry-api", "packaging",
    "pydantic", "Pygments", "pyparsing", "python-dateutil", "python-dotenv", "rich", "rich-rst", "sniffio", "sympy",
    "tenacity", "tqdm", "transformers", "truststore", "typer", "typing-inspection", "typing_extensions",
    "wadler_lindig",
)  # fmt: skip
"""What the runtime dependencies bring with them on every platform and Python, without compiled code."""

_DOCUMENTATION = (".md", ".rst", ".txt")
_LEGAL = ("license", "licence", "copying", "notice", "authors")
_SHORTEST = 200
"""Bytes below which a file is mostly an empty module."""
_NO_WORD = bytes(set(range(128)) - set(f"{string.ascii_letters}{string.whitespace}".encode()))
_TABLE = 0.4
"""Share of digits and punctuation above which a file is a table of data."""


@dataclass(frozen=True, slots=True)
class LocalTexts:
    """Texts of installed distributions, and what was left out."""

    documents: tuple[Document, ...]
    """In the order of distribution and path; ids are paths below site-packages, such as ``rich/console.py``."""
    missing: tuple[str, ...]
    """Distributions that are not installed, or not from a pure-Python wheel."""
    changed: int
    """Files left out because their bytes are not those of RECORD."""


def local_documents(
    distributions: Sequence[str] = DISTRIBUTIONS,
    *,
    file_bytes: int = 20_000,
    distribution_bytes: int = 300_000,
    total_bytes: int = 5_000_000,
) -> LocalTexts:
    """Sources, documentation and licences of `distributions`, the same on every machine with the same versions.

    A longer file is cut at the last line end within `file_bytes`. A distribution gives at most `distribution_bytes`,
    and at most an equal share of what smaller ones leave of `total_bytes`: documentation and licences first, then
    sources in the order of their hashes, which favours no folder. Files with the same bytes are given once; tables
    of data, nearly empty files and what is not UTF-8 are passed over.
    """
    found, missing, seen, changed = dict[str, list[Document]](), list[str](), set[str](), 0
    for name in sorted(set(distributions), key=str.lower):
        files = _files(name)
        if files is None:
            missing.append(name)
            continue
        texts, bad = _texts(files, seen, file_bytes, distribution_bytes)
        found[name] = texts
        changed += bad
    kept, left = dict[str, list[Document]](), total_bytes
    for done, name in enumerate(sorted(found, key=lambda name: _size(found[name]))):
        kept[name] = _within(found[name], left // (len(found) - done))
        left -= _size(kept[name])
    documents = (document for name in found for document in sorted(kept[name], key=lambda document: document.id))
    return LocalTexts(tuple(documents), tuple(missing), changed)


def _files(name: str) -> list[PackagePath] | None:
    """What RECORD lists with a hash, documentation first, then by hash; None without a pure-Python wheel."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    wheel = (found.read_text("WHEEL") or "").splitlines()
    tags = [line for line in wheel if line.startswith("Tag:")]
    if "Root-Is-Purelib: true" not in wheel or not all(tag.endswith("-none-any") for tag in tags):
        return None
    files = (file for file in found.files or () if file.hash is not None and file.hash.mode == "sha256")
    return sorted((file for file in files if _is_text(file)), key=lambda file: (file.suffix == ".py", _digest(file)))


def _is_text(file: PackagePath) -> bool:
    """Whether a wheel brought it as a text: not a script or metadata that the installer wrote."""
    is_legal = file.stem.lower() in _LEGAL
    if ".dist-info" in file.parts[0]:
        return is_legal or file.name == "METADATA"
    return file.parts[0] != ".." and (is_legal or file.suffix in {".py", *_DOCUMENTATION})


def _digest(file: PackagePath) -> str:
    return file.hash.value if file.hash else ""


def _texts(files: Sequence[PackagePath], seen: set[str], file_bytes: int, limit: int) -> tuple[list[Document], int]:
    """The documents of one distribution up to `limit` bytes, and how many files differ from RECORD."""
    documents, changed = list[Document](), 0
    for file in files:
        if limit < _SHORTEST:
            break
        if _digest(file) in seen or (file.size or 0) < _SHORTEST:
            continue
        data = _verified(file)
        if data is None:
            changed += 1
            continue
        seen.add(_digest(file))
        text = _cut(data, min(file_bytes, limit))
        if text is not None:
            documents.append(Document(file.as_posix(), text, "local"))
            limit -= len(text.encode())
    return documents, changed


def _verified(file: PackagePath) -> bytes | None:
    try:
        data = Path(file.locate()).read_bytes()
    except OSError:
        return None
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return data if digest == _digest(file) else None


def _cut(data: bytes, limit: int) -> str | None:
    """The first lines within `limit` bytes; None for what is no text worth reading."""
    if len(data) > limit:
        data = data[: data.rfind(b"\n", 0, limit) + 1]
    if len(data) < _SHORTEST or len(data) - len(data.translate(None, _NO_WORD)) > _TABLE * len(data):
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _size(documents: Sequence[Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


def _within(documents: Sequence[Document], limit: int) -> list[Document]:
    """The first of `documents` that `limit` bytes hold."""
    ends = accumulate(len(document.text.encode()) for document in documents)
    return [document for document, end in zip(documents, ends, strict=True) if end <= limit]
