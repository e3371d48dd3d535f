"""A user's files become documents, and bad ones a clear message."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sae.corpus.document import Document
from sae.corpus.files import file_documents
from sae.errors import UserError


def _read(path: Path | str, column: str = "text") -> list[Document]:
    return list(file_documents([str(path)], column))


def _jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_three_formats(tmp_path: Path) -> None:
    """A text file is one document; JSON lines and Parquet give one per row, empty and null ones passed over."""
    (tmp_path / "a.txt").write_text("שלום\nworld", encoding="utf-8")
    _jsonl(tmp_path / "b.jsonl", {"text": "one"}, {"text": ""}, {"text": None}, {"text": "two", "n": 3})
    pq.write_table(pa.table({"text": ["three", None, "four"], "n": [1, 2, 3]}), tmp_path / "c.parquet")
    found = _read(tmp_path / "*")
    assert [document.text for document in found] == ["שלום\nworld", "one", "two", "three", "four"]
    assert [document.id for document in found] == [
        "a.txt:0", "b.jsonl:0", "b.jsonl:3", "c.parquet:0", "c.parquet:2"
    ]  # fmt: skip
    assert {document.source for document in found} == {"files"}


def test_ids_are_unique_and_do_not_tell_where_the_files_lie(tmp_path: Path) -> None:
    """Files of one name in two folders differ in their ids, which are the same wherever the folders are moved."""
    ids = list[list[str]]()
    for home in ("x", "y/z"):
        for folder in ("one", "two"):
            (tmp_path / home / folder).mkdir(parents=True)
            (tmp_path / home / folder / "a.txt").write_text("text")
        ids.append([document.id for document in _read(tmp_path / home / "**")])
    assert ids == [["one/a.txt:0", "two/a.txt:0"]] * 2


def test_a_file_that_matches_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path, an absolute one and a glob can name the same file."""
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    assert len(list(file_documents(["a.txt", str(tmp_path / "a.txt"), "*.txt", "./a.txt"]))) == 1


def test_a_link_keeps_its_own_suffix(tmp_path: Path) -> None:
    """Download caches link names with a suffix to files without one."""
    (tmp_path / "blob").write_text("text")
    (tmp_path / "a.txt").symlink_to(tmp_path / "blob")
    assert [document.id for document in _read(tmp_path / "a.txt")] == ["a.txt:0"]


def test_another_column(tmp_path: Path) -> None:
    """The text's column has any name."""
    _jsonl(tmp_path / "a.jsonl", {"body": "one"})
    pq.write_table(pa.table({"body": pa.array(["two"], pa.large_string())}), tmp_path / "b.parquet")
    assert [document.text for document in _read(tmp_path / "*", "body")] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text\n", r"unknown suffix '\.csv'"),
        ("a.txt", b"\xff\xfe", r"Cannot read the corpus file .*a\.txt[\s\S]*UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"Line 2 of .* is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n\n["text"]\n', r"Line 3 of .* has no text under 'text'"),
        ("a.jsonl", b'{"txet": "x"}\n', r"Line 1 of .*\n.*--text-column\. Did you mean txet\?"),
        ("a.jsonl", b'{"text": 5}\n', r"Line 1 of .* has no text under 'text'"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"Cannot read .*\n.*surrogates"),
        ("a.jsonl", b"[" * 200_000 + b"\n", r"Line 1 of .* is not JSON"),
        ("a.jsonl", b"\xff\n", r"Cannot read the corpus file"),
        ("a.parquet", b"not parquet", r"not a readable Parquet file"),
        ("a.parquet", b"", r"not a readable Parquet file"),
    ],
)  # fmt: skip
def test_malformed_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """The message names the file, and the line where there are lines."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        _read(tmp_path / name)


def test_a_parquet_file_cut_short(tmp_path: Path) -> None:
    """A download that broke off is a clear message, too."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["word " * 50] * 100}), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="not a readable Parquet file"):
        _read(path)


@pytest.mark.parametrize(
    ("column", "message"),
    [("txt", r"no column 'txt'\.\n.*Did you mean text"), ("n", r"The column 'n' .* holds int64, not text")],
)
def test_a_wrong_parquet_column(tmp_path: Path, column: str, message: str) -> None:
    """A missing column names the nearest; a column of numbers is no text."""
    pq.write_table(pa.table({"text": ["x"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        _read(tmp_path / "a.parquet", column)


@pytest.mark.parametrize("pattern", ["nothing.txt", "*.parquet", "folder"])
def test_nothing_matches(tmp_path: Path, pattern: str) -> None:
    """A typing error is not an empty corpus; neither is a folder."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="No corpus file matches"):
        _read(tmp_path / pattern)
