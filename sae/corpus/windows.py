"""Documents cut into fixed-length token windows."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32
from transformers import PreTrainedTokenizerBase

from sae.corpus.document import Document
from sae.errors import UserError

SHORTEST = 16
"""Real tokens below which the tail of a document makes no window of its own."""
_AT_ONCE = 256


@dataclass(frozen=True, eq=False, slots=True)
class Windows:
    """Token windows of one length; a window never crosses a document."""

    tokens: Int32[np.ndarray, "window position"]
    """Token ids. Position 0 is BOS where the tokenizer has one; past ``length`` comes padding."""
    length: Int32[np.ndarray, " window"]
    """Positions that are not padding, BOS included."""
    document: Int32[np.ndarray, " window"]
    """Index of the document in the corpus."""
    offset: Int32[np.ndarray, " window"]
    """Character of the document at which the first real token starts."""
    first: int
    """First position that counts: 1 where every window starts with BOS, else 0."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def context(self) -> int:
        """Positions per window."""
        return self.tokens.shape[1]

    @property
    def n_tokens(self) -> int:
        """Positions that count: neither BOS nor padding."""
        return int(self.length.sum()) - self.first * len(self)

    @property
    def digest(self) -> str:
        """SHA-256 over the tokens and lengths, hexadecimal."""
        return hashlib.sha256(self.tokens.tobytes() + self.length.tobytes()).hexdigest()

    def counted(self) -> np.ndarray:
        """Which positions count, as booleans of shape (window, position): neither BOS nor padding."""
        at = np.arange(self.context)[None, :]
        return (at >= self.first) & (at < self.length[:, None])

    def select(self, index: np.ndarray) -> "Windows":
        """The windows at `index` (integers or booleans), in that order."""
        return Windows(self.tokens[index], self.length[index], self.document[index], self.offset[index], self.first)


def cut_windows(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, context: int, *, prepend_bos: bool = True
) -> Windows:
    """Tokenize `documents` and cut each into windows of `context` positions.

    BOS is prepended to every window where the tokenizer has one and `prepend_bos` asks for it. A tail of fewer
    than `SHORTEST` real tokens is left out. Raises `UserError` where `context` has no room for a token.
    """
    bos = tokenizer.bos_token_id if prepend_bos else None
    first = 0 if bos is None else 1
    if context <= first:
        raise UserError(f"A context of {context} positions has no room for text.", do=f"Give at least {first + 1}.")
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    rows, lengths, owners, offsets = [], [], [], []
    for index, ids, starts in _tokenized(documents, tokenizer):
        for begin in range(0, len(ids), context - first):
            piece = ids[begin : begin + context - first]
            if len(piece) < min(SHORTEST, context - first):
                continue
            row = np.full(context, pad, dtype=np.int32)
            if bos is not None:
                row[0] = bos
            row[first : first + len(piece)] = piece
            rows.append(row)
            lengths.append(first + len(piece))
            owners.append(index)
            offsets.append(starts[begin])
    tokens = np.stack(rows) if rows else np.empty((0, context), dtype=np.int32)
    as_int = [np.asarray(column, dtype=np.int32) for column in (lengths, owners, offsets)]
    return Windows(tokens, *as_int, first=first)


def _tokenized(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase
) -> Iterable[tuple[int, list[int], list[int]]]:
    for begin in range(0, len(documents), _AT_ONCE):
        texts = [document.text for document in documents[begin : begin + _AT_ONCE]]
        encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        for i, (ids, spans) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)):
            yield begin + i, ids, [start for start, _ in spans]
