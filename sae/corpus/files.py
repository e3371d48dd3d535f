"""Documents from a user's own files: text, JSON lines and Parquet."""

import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from sae.corpus.document import Document
from sae.errors import UserError, nearest

SUFFIXES = (".txt", ".jsonl", ".parquet")
_ROWS_AT_ONCE = 1024


def file_documents(patterns: Sequence[str], text_column: str = "text") -> Iterator[Document]:
    """One document per text file, per JSON line and per Parquet row, in the order of the sorted paths.

    `patterns` are paths or globs (``**`` descends). Rows without text are passed over. Raises `UserError` where
    nothing matches, a suffix is unknown, a file is malformed or the column is missing.
    """
    for path in _resolve(patterns):
        try:
            yield from _read(path, text_column)
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"Cannot read the corpus file {path}.", str(error), "Give a readable UTF-8 file.") from error


def _resolve(patterns: Sequence[str]) -> list[Path]:
    paths: set[Path] = set()
    for pattern in patterns:
        found = [Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file()]
        if not found:
            raise UserError(f"No corpus file matches {pattern}.", do="Check the path; quote globs in the shell.")
        paths.update(found)
    return sorted(paths)


def _read(path: Path, text_column: str) -> Iterator[Document]:
    match path.suffix:
        case ".txt":
            texts = iter([path.read_text(encoding="utf-8")])
        case ".jsonl":
            texts = _json_lines(path, text_column)
        case ".parquet":
            texts = _parquet(path, text_column)
        case suffix:
            raise UserError(f"The corpus file {path} has the unknown suffix {suffix!r}.", do=nearest(suffix, SUFFIXES))
    for row, text in enumerate(texts):
        if text:
            yield Document(id=f"{path.name}:{row}", text=text, source="files")


def _json_lines(path: Path, text_column: str) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get(text_column), str):
                keys = list(row) if isinstance(row, dict) else []
                raise UserError(
                    f"Line {number} of {path} has no text under {text_column!r}.",
                    do=f"Choose it with --text-column. {nearest(text_column, keys)}",
                )
            yield row[text_column]


def _parquet(path: Path, text_column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            if text_column not in table.schema_arrow.names:
                raise UserError(
                    f"{path} has no column {text_column!r}.",
                    do=f"Choose it with --text-column. {nearest(text_column, table.schema_arrow.names)}",
                )
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[text_column]):
                yield from (text for text in batch.column(0).to_pylist() if isinstance(text, str))
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a readable Parquet file.", str(error)) from error
