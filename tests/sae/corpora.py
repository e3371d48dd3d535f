"""Small corpora for the tests of the corpus rooms, without a tokenizer."""

from collections.abc import Sequence

import numpy as np

from sae.corpus.document import Document
from sae.corpus.windows import Windows


def windows_of(documents: Sequence[Sequence[int]], context: int = 33, first: int = 1) -> Windows:
    """Windows of documents given as token ids, with BOS 0 where `first` is 1, cut as `cut_windows` cuts."""
    rows, lengths, owners, offsets = [], [], [], []
    for owner, ids in enumerate(documents):
        for begin in range(0, len(ids), context - first):
            piece = list(ids[begin : begin + context - first])
            rows.append([0] * first + piece + [0] * (context - first - len(piece)))
            lengths.append(first + len(piece))
            owners.append(owner)
            offsets.append(begin)
    columns = (np.array(column, dtype=np.int32) for column in (lengths, owners, offsets))
    return Windows(np.array(rows, dtype=np.int32).reshape(-1, context), *columns, first=first)


def documents_of(documents: Sequence[Sequence[int]]) -> list[Document]:
    """Documents whose texts are these token ids in writing; the id is the place."""
    return [Document(f"d{at}", " ".join(map(str, ids)), "files") for at, ids in enumerate(documents)]


def noise(seed: int, length: int) -> list[int]:
    """Token ids that no other seed repeats."""
    return np.random.default_rng(seed).integers(1, 50_000, size=length).tolist()
