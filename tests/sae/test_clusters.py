"""Near-duplicates end up together, and nothing else does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae.corpus.clusters import NGRAM, RunHashes, cluster_documents
from sae.errors import UserError
from tests.sae.corpora import documents_of, noise, windows_of


def _clusters(documents: list[list[int]]) -> list[int]:
    return cluster_documents(documents_of(documents), windows_of(documents)).index.tolist()


def _partition(labels: list[int]) -> set[frozenset[int]]:
    return {frozenset(at for at, label in enumerate(labels) if label == one) for one in labels}


def _jaccard(left: list[int], right: list[int]) -> float:
    a, b = ({tuple(ids[at : at + NGRAM]) for at in range(len(ids) - NGRAM + 1)} for ids in (left, right))
    return len(a & b) / len(a | b)


def test_copies_and_edited_copies_are_joined() -> None:
    """A copy with a few tokens changed is a near-duplicate; another text is not."""
    text = noise(1, 400)
    edited = [*text[:100], 7, *text[101:300], 8, *text[301:]]
    assert _partition(_clusters([text, noise(2, 400), edited, text])) == {frozenset({0, 2, 3}), frozenset({1})}


@pytest.mark.parametrize("shared", [80, 180, 240, 260, 300, 390])
def test_half_of_the_union_decides(shared: int) -> None:
    """Two documents are joined exactly where the Jaccard similarity of their 13-gram sets is at least 0.5."""
    common = noise(1, shared)
    left, right = common + noise(2, 400 - shared), common + noise(3, 400 - shared)
    assert (len(_partition(_clusters([left, right]))) == 1) == (_jaccard(left, right) >= 0.5)


def test_a_chain_is_one_cluster() -> None:
    """Neighbours are near, the ends are not: whatever separates them would leak, so they stay together."""
    text = noise(4, 900)
    chain = [text[begin : begin + 500] for begin in (0, 100, 200, 300, 400)]
    assert _jaccard(chain[0], chain[-1]) < 0.5 <= _jaccard(chain[0], chain[1])
    assert len(set(_clusters(chain))) == 1


def test_many_pairs_at_the_threshold_are_nearly_all_found() -> None:
    """Banding misses few of the pairs whose similarity is only just enough."""
    documents = list[list[int]]()
    for pair in range(60):
        common = noise(3 * pair, 300)
        documents += [common + noise(3 * pair + 1, 100), common + noise(3 * pair + 2, 100)]
    labels = _clusters(documents)
    assert sum(labels[2 * pair] == labels[2 * pair + 1] for pair in range(60)) >= 58
    assert len(set(labels)) == 120 - sum(labels[2 * pair] == labels[2 * pair + 1] for pair in range(60))


@given(st.permutations(range(9)))
def test_clusters_do_not_depend_on_the_order(order: list[int]) -> None:
    """A document's cluster has the same key wherever the document stands."""
    text = noise(5, 200)
    documents = [
        text,
        text[:-20],
        text[20:],
        noise(6, 50),
        noise(7, 200),
        noise(7, 200),
        noise(8, 14),
        [1] * 5,
        [2] * 5,
    ]
    keys = _keys(documents)
    assert _keys([documents[at] for at in order]) == [keys[at] for at in order]
    assert len(set(keys)) == 6


def _keys(documents: list[list[int]]) -> list[str]:
    clusters = cluster_documents(documents_of(documents), windows_of(documents))
    assert clusters.keys == tuple(sorted(clusters.keys))
    return [clusters.keys[at] for at in clusters.index]


def test_a_common_header_joins_nothing() -> None:
    """Short files under one licence header are different texts, though most of their tokens are the same."""
    header = noise(9, 150)
    documents = [header + noise(100 + at, 40) for at in range(30)]
    assert _jaccard(documents[0], documents[1]) > 0.5
    assert len(set(_clusters(documents))) == 30
    assert len(set(_clusters(documents[:5]))) == 1


def test_many_copies_of_the_boilerplate_are_joined() -> None:
    """A document that is almost nothing but boilerplate is a copy of it: it must not fall apart into singles."""
    text = noise(10, 600)
    copies = [[*text, at] for at in range(1, 31)]
    assert len(set(_clusters(copies))) == 1


def test_a_large_cluster_is_refused_with_examples() -> None:
    """Near-duplicates above 5 % of the tokens of 40 documents or more stop the run and are named."""
    single = [noise(at, 100) for at in range(40)]
    text = noise(99, 400)
    with pytest.raises(UserError, match=r"2 near-duplicate documents hold 17% of the corpus, such as d40, d41"):
        _clusters([*single, text, text])
    assert len(set(_clusters([*single[:30], text, text]))) == 31
    assert len(set(_clusters([*single, text + text]))) == 41


def test_tokens_of_clusters_are_counted() -> None:
    """The largest share is that of the counted tokens."""
    text = noise(1, 100)
    documents = [text, text, noise(2, 200)]
    clusters = cluster_documents(documents_of(documents), windows_of(documents))
    assert sorted(clusters.tokens.tolist()) == [200, 200]
    assert clusters.largest == 0.5


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(1, 8))
def test_runs_hash_alike_exactly_when_they_are_alike(ids: list[int], n: int) -> None:
    """Every pair of runs of n tokens agrees in its hash if and only if it agrees in its tokens."""
    starts = np.arange(max(0, len(ids) - n + 1))
    hashes = RunHashes(np.array(ids, dtype=np.int32)).at(starts, n).tolist()
    runs = [tuple(ids[at : at + n]) for at in starts]
    assert len(set(hashes)) == len(set(runs)) == len(set(zip(hashes, runs, strict=True)))
