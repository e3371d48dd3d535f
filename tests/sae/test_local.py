"""The local documents are the same wherever the same versions are installed."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae.corpus.local import DISTRIBUTIONS, _cut, local_documents

Install = Callable[..., Path]

PURE = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
PLATFORM = "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-cp311-manylinux_2_28_x86_64\n"


def _prose(seed: str, lines: int = 10) -> str:
    return "".join(f"{seed} has a line of words, and this is line {line}\n" for line in range(lines))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lays down a distribution as an installer would; a path that begins with ``-`` has no hash."""

    def _install(name: str, files: Mapping[str, str | bytes], wheel: str = PURE) -> Path:
        info = f"{name}-1.0.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n\n{_prose(f'readme of {name}')}"
        record = list[str]()
        for path, content in {f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel, **files}.items():
            data = content if isinstance(content, bytes) else content.encode()
            target = tmp_path / path.removeprefix("-")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            hashed = "" if path.startswith("-") else f"sha256={digest}"
            record.append(f"{path.removeprefix('-')},{hashed},{len(data)}\n")
        (tmp_path / info / "RECORD").write_text("".join(record))
        return tmp_path

    monkeypatch.syspath_prepend(str(tmp_path))
    return _install


def test_only_texts_that_the_wheel_brought_are_read(install: Install) -> None:
    """Sources, documentation, licences and METADATA come; what an installer writes and binaries do not."""
    kept = ("one/a.py", "one/guide.md", "one/guide.rst", "one/LICENSE", "one-1.0.dist-info/licenses/LICENSE.txt")
    left = (
        "one-1.0.dist-info/INSTALLER",
        "one-1.0.dist-info/entry_points.txt",
        "one/a.so",
        "one/data.json",
        "-one/no_hash.py",
        "../one_script.py",
    )
    install("one", {path: _prose(path) for path in (*kept, *left)})
    found = local_documents(["one"])
    assert [document.id for document in found.documents] == sorted([*kept, "one-1.0.dist-info/METADATA"])
    assert {document.source for document in found.documents} == {"local"}
    assert found.missing == ()
    assert found.changed == 0


def test_a_changed_or_deleted_file_is_left_out_and_counted(install: Install) -> None:
    """Bytes that RECORD does not vouch for never enter a corpus."""
    site = install("one", {f"one/{name}.py": _prose(name) for name in "abc"})
    (site / "one/a.py").write_text(_prose("a").replace("line 3", "line E"))
    (site / "one/b.py").unlink()
    found = local_documents(["one"])
    assert [document.id for document in found.documents] == ["one-1.0.dist-info/METADATA", "one/c.py"]
    assert found.changed == 2


def test_what_is_not_pure_python_is_missing(install: Install) -> None:
    """A platform wheel's files differ between machines; an absent distribution is named, not an error."""
    install("one", {"one/a.py": _prose("a")})
    install("two", {"two/a.py": _prose("b")}, PLATFORM)
    install("three", {"three/a.py": _prose("c")}, PURE.replace("none-any", "none-win32"))
    found = local_documents(["two", "one", "nowhere-to-be-found", "three"])
    assert found.missing == ("nowhere-to-be-found", "three", "two")
    assert {document.id.split("/")[0] for document in found.documents} == {"one", "one-1.0.dist-info"}


def test_the_order_asked_for_does_not_matter(install: Install) -> None:
    """Documents stand by distribution and path."""
    for name in ("beta", "Alpha", "gamma"):
        install(name, {f"{name}/{file}.py": _prose(name + file) for file in "ba"})
    one, other = (local_documents(names) for names in (["beta", "Alpha", "gamma"], ["gamma", "beta", "Alpha", "beta"]))
    assert one == other
    tops = [re.split("[-/]", document.id)[0] for document in one.documents]
    assert tops == ["Alpha"] * 3 + ["beta"] * 3 + ["gamma"] * 3


def test_the_same_bytes_come_once(install: Install) -> None:
    """A licence that many distributions carry is one document."""
    for name in ("one", "two"):
        install(name, {f"{name}-1.0.dist-info/LICENSE": _prose("the licence")})
    ids = [document.id for document in local_documents(["one", "two"]).documents]
    assert [name for name in ids if "LICENSE" in name] == ["one-1.0.dist-info/LICENSE"]


def test_tables_empty_files_and_other_encodings_are_passed_over(install: Install) -> None:
    """They are no text, but nothing is wrong with them, so they are not counted as changed."""
    files = {
        "one/table.py": "(0x1f600, 0x1f64f), (0x2190, 0x21ff),\n" * 40,
        "one/__init__.py": "from one import a\n",
        "one/latin.py": _prose("caf\xe9").encode("latin-1"),
        "one/a.py": _prose("שלום"),
    }
    install("one", files)
    found = local_documents(["one"])
    assert [document.id for document in found.documents] == ["one-1.0.dist-info/METADATA", "one/a.py"]
    assert found.changed == 0


def test_a_distribution_gives_documentation_before_sources(install: Install) -> None:
    """Under a small cap the sources, chosen by hash, are what is left out."""
    files = {f"one/{at}.py": _prose(f"source {at}", 20) for at in range(30)}
    install("one", {**files, "one/zz.md": _prose("guide", 20)})
    found = local_documents(["one"], distribution_bytes=6_000)
    ids = [document.id for document in found.documents]
    assert "one/zz.md" in ids
    assert "one-1.0.dist-info/METADATA" in ids
    assert 2 < len(ids) < 8
    assert sum(len(document.text.encode()) for document in found.documents) <= 6_000
    sources = [name for name in ids if name.endswith(".py")]
    assert sources != sorted(files)[: len(sources)]


def test_the_total_is_shared_out_evenly(install: Install) -> None:
    """A small distribution comes whole; the large ones share what it leaves."""
    install("small", {"small/a.py": _prose("small")})
    for name in ("large", "huge"):
        install(name, {f"{name}/{at}.py": _prose(f"{name} {at}") for at in range(60)})
    sizes = dict.fromkeys(("small", "large", "huge"), 0)
    for document in local_documents(list(sizes), total_bytes=20_000).documents:
        sizes[re.split("[-/]", document.id)[0]] += len(document.text.encode())
    assert sizes["small"] > 800
    assert 19_000 - 1_000 < sum(sizes.values()) <= 20_000
    assert abs(sizes["large"] - sizes["huge"]) < 1_000


@given(st.text(alphabet="ab \n\r日é", min_size=200, max_size=600), st.integers(200, 700))
def test_a_cut_text_is_whole_lines_from_the_start(text: str, limit: int) -> None:
    """No character is split, and nothing is cut that fits."""
    data = text.encode()
    cut = _cut(data, limit)
    if len(data) <= limit:
        assert cut == text
    elif cut is not None:
        assert text.startswith(cut)
        assert cut.endswith("\n")
        assert len(cut.encode()) <= limit
        assert "\n" not in data[len(cut.encode()) : limit].decode(errors="ignore")
    else:
        assert data.rfind(b"\n", 0, limit) + 1 < 200


def test_the_default_distributions_are_all_here() -> None:
    """What the demonstration reads is installed, unchanged, and about 5 MB of many kinds."""
    found = local_documents()
    assert found.missing == ()
    assert found.changed == 0
    assert 4_000_000 < sum(len(document.text.encode()) for document in found.documents) <= 5_000_000
    assert len({document.id for document in found.documents}) == len(found.documents) > 500
    assert tuple(sorted(DISTRIBUTIONS, key=str.lower)) == DISTRIBUTIONS
