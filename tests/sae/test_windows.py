"""Windows hold every token of a document once, and know where they came from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from sae.corpus.document import Document
from sae.corpus.windows import SHORTEST, cut_windows
from sae.errors import UserError
from sae.pretrain import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 300 entries, BOS and all."""
    return train_tokenizer([Document("d", "the cat sat on the mat " * 20, "files")], 300)


def _documents(texts: list[str]) -> list[Document]:
    return [Document(f"d{at}", text, "files") for at, text in enumerate(texts)]


@given(texts=st.lists(st.text(max_size=150), max_size=5), context=st.integers(2, 40), bos=st.booleans())
def test_nothing_is_lost_but_short_tails(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], context: int, bos: bool
) -> None:
    """A document's windows in a row are its tokens, save a tail below the shortest; BOS and padding do not count."""
    texts = [text for text in texts if "endoftext" not in text]
    windows = cut_windows(_documents(texts), tokenizer, context, prepend_bos=bos)
    counted = windows.counted()
    room = context - bos
    assert windows.first == int(bos)
    assert windows.n_tokens == counted.sum()
    for at, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        tail = len(ids) % room
        kept = len(ids) - (tail if tail < min(SHORTEST, room) else 0)
        mine = windows.document == at
        assert windows.tokens[mine][counted[mine]].tolist() == ids[:kept]
    if bos:
        assert (windows.tokens[:, 0] == tokenizer.bos_token_id).all()


def test_the_offset_is_where_the_window_begins(tokenizer: PreTrainedTokenizerFast) -> None:
    """The document's text from one offset to the next is the window's text."""
    document = Document("d", "the cat sat on the mat, and then the dog sat on the cat. " * 6, "files")
    windows = cut_windows([document], tokenizer, 20)
    ends = [*windows.offset[1:].tolist(), None]
    for row, (begin, end) in enumerate(zip(windows.offset.tolist(), ends, strict=True)):
        text = tokenizer.decode(windows.tokens[row][windows.counted()[row]].tolist())
        assert document.text[begin:end].startswith(text) if end is None else document.text[begin:end] == text
    assert len(windows) > 3


def test_selected_windows_keep_their_columns(tokenizer: PreTrainedTokenizerFast) -> None:
    """`select` takes integers in any order and booleans."""
    windows = cut_windows(_documents(["the cat sat " * 30, "the mat " * 30]), tokenizer, 18)
    order = np.array([2, 0])
    chosen = windows.select(order)
    assert chosen.document.tolist() == windows.document[order].tolist()
    assert chosen.tokens.tolist() == windows.tokens[order].tolist()
    assert len(windows.select(windows.document == 1)) == (windows.document == 1).sum() > 0


def test_no_documents_give_no_windows(tokenizer: PreTrainedTokenizerFast) -> None:
    """An empty corpus has the right shape."""
    windows = cut_windows([], tokenizer, 32)
    assert len(windows) == windows.n_tokens == 0
    assert windows.context == 32


def test_a_context_without_room_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    """BOS alone would fill the window."""
    with pytest.raises(UserError, match="at least 2"):
        cut_windows(_documents(["the cat"]), tokenizer, 1)
