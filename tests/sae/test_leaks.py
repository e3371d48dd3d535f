"""Near-duplicates in two splits are found, whatever the clusters say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae.corpus.clusters import NGRAM, cluster_documents
from sae.corpus.leaks import ALIKE, near_duplicates
from sae.corpus.splits import check_no_leak, split_windows
from sae.errors import UserError
from tests.sae.corpora import documents_of, noise, windows_of


def _grams(ids: list[int]) -> set[tuple[int, ...]]:
    return {tuple(ids[at : at + NGRAM]) for at in range(len(ids) - NGRAM + 1)}


@given(st.integers(60, 400))
def test_documents_are_near_duplicates_exactly_from_the_limit_on(shared: int) -> None:
    """What is found is the pair whose 13-grams have a Jaccard similarity of at least 0.7."""
    common = noise(1, shared)
    documents = [common + noise(2, 400 - shared), noise(3, 300), common + noise(4, 400 - shared), noise(5, 200)]
    windows = windows_of(documents, context=128)
    on_left = np.isin(windows.document, [0, 3])
    alike = len(_grams(documents[0]) & _grams(documents[2])) / len(_grams(documents[0]) | _grams(documents[2]))
    found = near_duplicates(windows, on_left, ~on_left)
    if alike < ALIKE:
        assert found is None
    else:
        assert found == (0, 2, pytest.approx(alike))


def test_a_copy_without_one_verbatim_window_stops_the_run() -> None:
    """Clusters that lost a near-duplicate, a token of every window changed: the run stops and both are named."""
    documents = [noise(at, 500) for at in range(12)]
    plain = windows_of(documents, context=128)
    splits = split_windows(plain, documents_of(documents), cluster_documents(documents_of(documents), plain))
    code = {int(document): int(of) for document, of in zip(plain.document, splits.code, strict=True)}
    seen, scored = (next(at for at in range(12) if code[at] == split) for split in (0, len(splits.names) - 1))
    documents[scored] = [token + (at % 100 == 50) for at, token in enumerate(documents[seen])]
    windows = windows_of(documents, context=128)
    check_no_leak(splits, plain, documents_of([noise(at, 500) for at in range(12)]))
    with pytest.raises(UserError, match=f"(d{seen} and d{scored}|d{scored} and d{seen}) are near-duplicates"):
        check_no_leak(splits, windows, documents_of(documents))


def test_nothing_in_common_is_no_leak() -> None:
    """Documents of one side only, or too short for an n-gram, have no near-duplicates on the other."""
    windows = windows_of([noise(1, 200), noise(2, 200), noise(1, 8)], context=128)
    on_left = windows.document == 0
    assert near_duplicates(windows, on_left, ~on_left) is None
    assert near_duplicates(windows, on_left, np.zeros_like(on_left)) is None
