"""Documents from a user's own files: text, JSON lines and Parquet."""

import glob
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sae.corpus.document import Document
from sae.errors import UserError, nearest

SUFFIXES = (".txt", ".jsonl", ".parquet")
_ROWS_AT_ONCE = 1024
_CHOOSE = "Choose the column with --text-column."


def file_documents(patterns: Sequence[str], text_column: str = "text") -> Iterator[Document]:
    """One document per text file, per JSON line and per Parquet row, in the order of the sorted paths.

    `patterns` are paths or globs (``**`` descends); a file that several match is read once. An id is the path below
    the folder that all files share, and the row. Empty and null texts are passed over. Raises `UserError` where
    nothing matches, a suffix is unknown, a file is malformed, or the column is missing or holds no text.
    """
    paths = _resolve(patterns)
    root = os.path.commonpath([path.parent for path in paths]) if paths else ""
    for path in paths:
        name = path.relative_to(root).as_posix()
        try:
            for row, text in enumerate(_texts(path, text_column)):
                if text:
                    yield Document(id=f"{name}:{row}", text=text, source="files")
        except (OSError, UnicodeError) as error:
            raise UserError(
                f"Cannot read the corpus file {path}.", str(error), "Give a readable UTF-8 file."
            ) from error


def _resolve(patterns: Sequence[str]) -> list[Path]:
    paths: set[Path] = set()
    for pattern in patterns:
        # Not resolved: what a link points to may have another suffix. Path.glob takes no absolute pattern.
        names = glob.glob(pattern, recursive=True)  # noqa: PTH207
        found = [Path(os.path.abspath(name)) for name in names if Path(name).is_file()]  # noqa: PTH100
        if not found:
            raise UserError(f"No corpus file matches {pattern}.", do="Check the path; quote globs in the shell.")
        paths.update(found)
    return sorted(paths)


def _texts(path: Path, text_column: str) -> Iterator[str | None]:
    """One text per row of the file, or None."""
    match path.suffix:
        case ".txt":
            return iter([path.read_text(encoding="utf-8")])
        case ".jsonl":
            return _json_lines(path, text_column)
        case ".parquet":
            return _parquet(path, text_column)
        case suffix:
            raise UserError(f"The corpus file {path} has the unknown suffix {suffix!r}.", do=nearest(suffix, SUFFIXES))


def _json_lines(path: Path, text_column: str) -> Iterator[str | None]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _json_text(line, text_column, f"Line {number} of {path}")


def _json_text(line: str, text_column: str, where: str) -> str | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON.", str(error), "Give one JSON object per line.") from error
    keys = [str(key) for key in row] if isinstance(row, dict) else []
    if text_column not in keys or not isinstance(text := row[text_column], str | None):
        raise UserError(
            f"{where} has no text under {text_column!r}.",
            do=f"{_CHOOSE} {nearest(text_column, keys)}",
        )
    if text is not None:
        text.encode()  # JSON can write half a surrogate pair, which no tokenizer takes.
    return text


def _parquet(path: Path, text_column: str) -> Iterator[str | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            if text_column not in table.schema_arrow.names:
                raise UserError(
                    f"{path} has no column {text_column!r}.",
                    do=f"{_CHOOSE} {nearest(text_column, table.schema_arrow.names)}",
                )
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[text_column]):
                texts = batch.column(0).to_pylist()
                if not all(isinstance(text, str | None) for text in texts):
                    held = batch.column(0).type
                    raise UserError(f"The column {text_column!r} of {path} holds {held}, not text.", do=_CHOOSE)
                yield from texts
    except pa.ArrowException as error:
        raise UserError(f"{path} is not a readable Parquet file.", str(error)) from error
