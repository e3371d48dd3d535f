"""The generated documents are what they say they are."""

import base64
import hashlib
import json
import unicodedata
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from typing_extensions import override

from sae.corpus.document import Document
from sae.corpus.generated import KINDS, generated_documents

SCRIPTS = {"hebrew": "HEBREW", "arabic": "ARABIC", "korean": "HANGUL", "cyrillic": "CYRILLIC", "english": "LATIN"}


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return list(generated_documents(60, seed=7))


def _texts(documents: list[Document], kind: str) -> list[str]:
    found = [d.text[s.start : s.end] for d in documents for s in d.spans if s.kind == kind]
    assert found
    return found


class _Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "img":
            self.stack.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def test_same_seed_same_documents(documents: list[Document]) -> None:
    assert list(generated_documents(60, seed=7)) == documents
    assert next(generated_documents(1, seed=8)).text != documents[0].text


def test_bytes_are_the_same_on_every_machine(documents: list[Document]) -> None:
    text = "".join(document.text for document in documents)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "043deafdb244f84a5fe062644b72e8c667e3c0542fb160eb7da49d20ba49bd34"


def test_document_does_not_depend_on_count(documents: list[Document]) -> None:
    assert list(generated_documents(3, seed=7)) == documents[:3]


def test_ids_and_source(documents: list[Document]) -> None:
    assert [document.id for document in documents] == [f"generated/7/{i}" for i in range(60)]
    assert {document.source for document in documents} == {"generated"}


def test_every_kind_occurs_and_documents_mix_one_to_five(documents: list[Document]) -> None:
    mixes = [{span.kind for span in document.spans} for document in documents]
    assert set[str]().union(*mixes) == set(KINDS)
    assert {len(mix) for mix in mixes} == {1, 2, 3, 4, 5}


def test_length_is_about_what_was_asked() -> None:
    for characters in (1000, 4000):
        for document in generated_documents(20, seed=1, characters=characters):
            assert characters <= len(document.text) <= characters + 1200


def test_spans_are_in_order_disjoint_and_cover_most(documents: list[Document]) -> None:
    for document in documents:
        end = 0
        for span in document.spans:
            assert end <= span.start < span.end <= len(document.text)
            end = span.end
        assert sum(span.end - span.start for span in document.spans) > 0.7 * len(document.text)


def test_segments_are_of_the_agreed_size(documents: list[Document]) -> None:
    for document in documents:
        for span in document.spans:
            assert (16 if span.kind == "base64" else 75) <= span.end - span.start <= 900


def test_dna_is_bases(documents: list[Document]) -> None:
    assert set("".join(_texts(documents, "dna"))) == set("ACGTacgt\n")


def test_hex_is_hex(documents: list[Document]) -> None:
    assert set("".join(_texts(documents, "hex"))) <= set("0123456789abcdef #,-\n")


def test_base64_decodes_and_wraps(documents: list[Document]) -> None:
    texts = _texts(documents, "base64")
    for text in texts:
        lines = text.split("\n")
        assert base64.b64decode("".join(lines), validate=True)
        assert all(len(line) == 76 for line in lines[:-1])
    assert {"\n" in text for text in texts} == {True, False}
    assert any(f";base64,{text}" in document.text for document in documents for text in texts)


def test_json_parses_to_objects(documents: list[Document]) -> None:
    for text in _texts(documents, "json"):
        assert isinstance(json.loads(text), dict)


def test_urls_have_scheme_and_host(documents: list[Document]) -> None:
    for text in _texts(documents, "url"):
        for line in text.split("\n"):
            parts = urlsplit(line)
            assert parts.scheme in {"http", "https", "ftp"}
            assert "." in parts.netloc


def test_sql_ends_its_statements(documents: list[Document]) -> None:
    for text in _texts(documents, "sql"):
        assert text.startswith(("SELECT", "INSERT", "UPDATE", "CREATE"))
        assert text.endswith(";")


def test_html_is_balanced(documents: list[Document]) -> None:
    for text in _texts(documents, "html"):
        parser = _Balance()
        parser.feed(text)
        assert parser.stack == []


@pytest.mark.parametrize(("kind", "script"), SCRIPTS.items())
def test_prose_is_in_its_script(documents: list[Document], kind: str, script: str) -> None:
    for text in _texts(documents, kind):
        letters = [character for character in text if character.isalpha()]
        own = sum(unicodedata.name(letter).startswith(script) for letter in letters)
        assert own > (0.85 if kind == "english" else 0.999) * len(letters)
        assert len(letters) > 0.5 * len(text)


@pytest.mark.parametrize("kind", SCRIPTS)
def test_word_lists_are_ample(documents: list[Document], kind: str) -> None:
    assert len(set(" ".join(_texts(documents, kind)).split())) > 150
