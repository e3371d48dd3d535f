"""One call gives documents, windows and splits, the same every time."""

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

import sae.corpus.corpus as room
from sae.corpus.corpus import DEFAULT, Corpus, load_corpus, load_documents
from sae.corpus.document import Document
from sae.corpus.generated import generated_documents
from sae.corpus.local import LocalTexts
from sae.errors import UserError
from sae.pretrain import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 600 entries."""
    return train_tokenizer(list(generated_documents(5, seed=9)), 600)


@pytest.fixture(scope="module")
def corpus(tokenizer: PreTrainedTokenizerFast) -> Corpus:
    """The embedded default, 40,000 tokens of it."""
    return load_corpus(DEFAULT, "text", 40_000, tokenizer, 64, 0)


def _load(tokenizer: PreTrainedTokenizerFast, *spec: str, tokens: int = 40_000, seed: int = 0) -> Corpus:
    return load_corpus(spec, "text", tokens, tokenizer, 64, seed)


def test_it_takes_documents_until_there_are_enough(corpus: Corpus) -> None:
    """The last document is the one that reaches the number, and it is whole."""
    last = corpus.windows.select(corpus.windows.document == len(corpus.documents) - 1)
    assert corpus.windows.n_tokens - last.n_tokens < 40_000 <= corpus.windows.n_tokens
    assert corpus.notes == ()


def test_windows_belong_to_their_documents(corpus: Corpus, tokenizer: PreTrainedTokenizerFast) -> None:
    """Each window's text stands in its document at its offset."""
    counted = corpus.windows.counted()
    for row in range(0, len(corpus.windows), 37):
        text = tokenizer.decode(corpus.windows.tokens[row][counted[row]].tolist()).strip("\ufffd")
        document = corpus.documents[corpus.windows.document[row]].text
        assert document[corpus.windows.offset[row] :][: len(text) + 1].count(text) == 1


def test_sources_are_interleaved_by_their_weights(corpus: Corpus) -> None:
    """Local text is 60 % of the characters, and both sources come from the start."""
    sizes = dict.fromkeys(DEFAULT, 0)
    for document in corpus.documents:
        sizes[document.source] += len(document.text)
    longest = max(len(document.text) for document in corpus.documents)
    assert abs(sizes["local"] / 3 - sizes["generated"] / 2) <= longest
    assert {document.source for document in corpus.documents[:4]} == set(DEFAULT)
    assert [count.source for count in corpus.sources] == list(DEFAULT)
    assert sum(count.tokens for count in corpus.sources) == corpus.windows.n_tokens
    assert sum(count.documents for count in corpus.sources) == len(corpus.documents)


def test_the_same_call_gives_the_same_corpus(tokenizer: PreTrainedTokenizerFast) -> None:
    """Documents and digest depend on the arguments alone; another seed is another corpus."""
    one, again, other = (_load(tokenizer, "generated", tokens=20_000, seed=seed) for seed in (1, 1, 2))
    assert one.digest == again.digest != other.digest
    assert one.windows.tokens.tolist() == again.windows.tokens.tolist()
    assert one.splits.code.tolist() == again.splits.code.tolist()


def test_every_window_has_a_split(corpus: Corpus) -> None:
    """The halves are about even, and cover what was not dropped."""
    explain, score = corpus.splits.rows("explain"), corpus.splits.rows("score")
    assert len(explain) + len(score) + corpus.splits.dropped == len(corpus.windows)
    assert not set(corpus.windows.document[explain]) & set(corpus.windows.document[score])


def test_files_run_out_and_the_rest_is_noted(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """A corpus smaller than asked for is taken, and says so."""
    for at in range(12):
        (tmp_path / f"{at}.txt").write_text(f"number {at} is a number. " * (10 + at))
    corpus = _load(tokenizer, str(tmp_path / "*.txt"), tokens=10**6)
    assert len(corpus.documents) == 12
    assert corpus.notes == (f"The corpus has {corpus.windows.n_tokens:,} of the 1,000,000 tokens asked for.",)
    mixed = _load(tokenizer, str(tmp_path / "*.txt"), "generated")
    assert next((count.source, count.documents) for count in mixed.sources) == ("files", 12)
    assert mixed.notes == ()


def test_what_is_missing_of_local_is_noted(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without some of the distributions has another corpus, and should know."""
    texts = tuple(Document(str(at), f"{at} words and more words " * 30, "local") for at in range(8))
    monkeypatch.setattr(room, "local_documents", lambda: LocalTexts(texts, ("rich", "sympy"), 3))
    missing, changed, _ = _load(tokenizer, "local").notes
    assert "rich, sympy" in missing
    assert "3 local files differ" in changed


def test_the_digest_is_over_ids_and_texts(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Changing a letter or a name changes it; moving the folder does not."""
    digests = list[str]()
    for folder, name, word in (("a", "x", "red"), ("b", "x", "red"), ("c", "y", "red"), ("d", "x", "rid")):
        (tmp_path / folder).mkdir()
        rows = (
            f'{{"text": "{word if at == 7 else at} and {at * at} and again and again and again"}}\n' for at in range(40)
        )
        (tmp_path / folder / f"{name}.jsonl").write_text("".join(rows))
        digests.append(_load(tokenizer, str(tmp_path / folder / "*")).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_documents_alone_are_the_first_of_the_corpus(corpus: Corpus) -> None:
    """A tokenizer is trained on the text that its model is."""
    documents = load_documents(DEFAULT, "text", 30_000, 0)
    assert tuple(documents) == corpus.documents[: len(documents)]
    assert sum(len(document.text) for document in documents[:-1]) < 30_000
    assert sum(len(document.text) for document in documents) >= 30_000
    assert documents != load_documents(DEFAULT, "text", 30_000, 1)


def test_an_empty_corpus_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Files without a window's worth of text are no corpus."""
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(UserError, match=r"has too little text[\s\S]*1 documents"):
        _load(tokenizer, str(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match="has no text"):
        load_documents([str(tmp_path / "a.txt")], "text", 100, 0)


def test_a_misspelt_source_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    """A word that is neither a source nor a file is taken for a source."""
    with pytest.raises(UserError, match=r"'generate'[\s\S]*Did you mean generated"):
        _load(tokenizer, "local", "generate")


def test_spans_survive(corpus: Corpus) -> None:
    """Generated documents keep the truth about their characters."""
    kinds = {span.kind for document in corpus.documents for span in document.spans}
    assert len(kinds) > 5
    assert np.all([not document.spans for document in corpus.documents if document.source == "local"])
