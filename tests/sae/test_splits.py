"""No document, no cluster and no verbatim window is on both sides."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sae.corpus.clusters import Clusters, cluster_documents
from sae.corpus.splits import DROPPED, Splits, check_no_leak, occurs_in, split_windows
from sae.corpus.windows import Windows
from sae.errors import UserError
from tests.sae.corpora import documents_of, noise, windows_of


def _split(documents: list[list[int]], **shares: float) -> tuple[Windows, Clusters, Splits]:
    texts, windows = documents_of(documents), windows_of(documents)
    clusters = cluster_documents(texts, windows)
    return windows, clusters, split_windows(windows, texts, clusters, shares or {"explain": 0.5, "score": 0.5})


_PIECES = st.lists(st.integers(0, 25), min_size=1, max_size=6)


@given(st.lists(_PIECES, min_size=8, max_size=20))
def test_splits_share_nothing(recipes: list[list[int]]) -> None:
    """Documents made of common pieces never put a document, a cluster or a window's tokens on both sides."""
    documents = [[token for piece in recipe for token in noise(piece, 32)] for recipe in recipes]
    try:
        windows, clusters, splits = _split(documents)
    except UserError:
        assume(False)
        raise
    explain, score = splits.rows("explain"), splits.rows("score")
    assert not set(windows.document[explain]) & set(windows.document[score])
    assert not set(clusters.index[windows.document[explain]]) & set(clusters.index[windows.document[score]])
    seen = {windows.tokens[row].tobytes() for row in explain}
    assert all(windows.tokens[row].tobytes() not in seen for row in score)
    assert len(explain) + len(score) + splits.dropped == len(windows)
    assert (splits.cluster == clusters.index[windows.document]).all()


@given(st.data())
def test_verbatim_windows_are_found_at_any_offset(data: st.DataObject) -> None:
    """What is found is what a search token by token finds, document by document."""
    documents = data.draw(st.lists(st.lists(st.integers(1, 2), min_size=16, max_size=70), min_size=2, max_size=6))
    first = data.draw(st.integers(0, 1))
    windows = windows_of(documents, context=20, first=first)
    hay = np.array(data.draw(st.lists(st.booleans(), min_size=len(documents), max_size=len(documents))))
    needles = ~hay[windows.document]
    found = occurs_in(windows, needles, hay[windows.document])
    texts = ["".join(map(str, ids)) for at, ids in enumerate(documents) if hay[at]]
    for row in range(len(windows)):
        real = "".join(map(str, windows.tokens[row, first : windows.length[row]]))
        long_enough = len(real) >= 16
        assert found[row] == (needles[row] and long_enough and any(real in text for text in texts))


def test_a_copied_window_is_dropped_and_counted() -> None:
    """A score window that an explain document has at another offset belongs to no split."""
    documents = [noise(at, 320) for at in range(20)]
    windows, _, splits = _split(documents)
    score = windows.document[splits.rows("score")[0]]
    explain = windows.document[splits.rows("explain")[0]]
    copied = [ids.copy() for ids in documents]
    copied[explain][5:37] = documents[score][32:64]
    _, _, after = _split(copied)
    changed = np.flatnonzero(after.code != splits.code)
    if after.cluster.tolist() == splits.cluster.tolist():
        assert after.code[changed].tolist() == [DROPPED]
    assert after.dropped == 1


def test_a_cluster_keeps_its_split_whatever_else_is_there() -> None:
    """The split of a document does not move when others are added."""
    few, many = [noise(at, 64) for at in range(10)], [noise(at, 64) for at in range(40)]
    assert _split(many)[2].code[:20].tolist() == _split(few)[2].code.tolist()


def test_clusters_of_many_documents_favour_no_split() -> None:
    """The key of a large cluster is the least of many hashes, yet its split is a fair draw."""
    documents = [[*noise(at, 60), copy] for at in range(200) for copy in (1, 2, 3, 4)]
    _, _, splits = _split(documents)
    assert 0.4 < len(splits.rows("explain")) / len(splits.code) < 0.6


def test_more_splits_by_share() -> None:
    """Named shares need not be halves, nor add up to 1."""
    windows, _, splits = _split([noise(at, 32) for at in range(400)], explain=2.0, score=1.0, calibrate=1.0)
    shares = [len(splits.rows(name)) / len(windows) for name in ("explain", "score", "calibrate")]
    assert np.abs(np.array(shares) - [0.5, 0.25, 0.25]).max() < 0.08


def test_an_empty_split_is_refused() -> None:
    """One document cannot be on both sides."""
    with pytest.raises(UserError, match=r"The (explain|score) split of the corpus is empty[\s\S]*1 documents"):
        _split([noise(1, 500)])


@pytest.mark.parametrize("leak", ["document", "cluster", "windows"])
def test_a_leak_stops_the_run(leak: str) -> None:
    """A document, a cluster or a window's tokens in two splits are an error, wherever the splits came from."""
    documents = [noise(at, 96) for at in range(12)]
    windows, _, splits = _split(documents)
    row, other = splits.rows("score")[0], splits.rows("explain")[0]
    match leak:
        case "document":
            code = splits.code.copy()
            code[row] = 0
            splits = dataclasses.replace(splits, code=code)
        case "cluster":
            cluster = splits.cluster.copy()
            cluster[windows.document == windows.document[row]] = splits.cluster[other]
            splits = dataclasses.replace(splits, cluster=cluster)
        case _:
            windows.tokens[row] = windows.tokens[other]
    with pytest.raises(UserError, match=f"A leak: .*{leak}"):
        check_no_leak(splits, windows, documents_of(documents))


def test_an_unknown_split_is_named_with_the_nearest() -> None:
    """`rows` knows its splits."""
    _, _, splits = _split([noise(at, 32) for at in range(20)])
    with pytest.raises(UserError, match="Did you mean explain"):
        splits.rows("explian")
