"""Near-duplicate documents, joined so that no copy of what an explainer saw is ever scored.

MinHash (Broder 1997) with banded locality-sensitive hashing proposes pairs; the exact Jaccard similarity of their
13-gram sets decides. Everything is hashed with fixed constants, so clusters are the same on every machine.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, UInt64

from sae.corpus.document import Document
from sae.corpus.windows import Windows
from sae.errors import UserError

NGRAM = 13
"""Tokens per n-gram."""
SIMILAR = 0.5
"""Jaccard similarity from which two documents are near-duplicates."""
_BANDS, _ROWS = 42, 3
"""Of the MinHash signature: a pair at the threshold shares no band with probability (1 - 0.5^3)^42 = 0.4 %."""
COMMON, _COMMON_SHARE = 20, 0.02
"""An n-gram in more documents than both the number and the share is boilerplate, such as a licence header."""
_OWN = 0.1
"""Share of its n-grams that a document keeps at least, or else it is itself a copy of the boilerplate."""
_LARGEST, _ENOUGH = 0.05, 40
"""Share of the tokens above which a cluster is an error, in a corpus of at least so many documents."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Which documents are near-duplicates of each other, directly or by a chain."""

    index: Int32[np.ndarray, " document"]
    """Cluster of each document, as an index into `keys`."""
    keys: tuple[str, ...]
    """Per cluster the least SHA-256 of its documents' texts, hexadecimal; sorted, so no order of documents matters."""
    tokens: Int64[np.ndarray, " cluster"]
    """Counted tokens of each cluster."""

    @property
    def largest(self) -> float:
        """Share of the tokens in the largest cluster, 0 to 1."""
        return float(self.tokens.max() / max(1, self.tokens.sum())) if len(self.tokens) else 0.0


def cluster_documents(documents: Sequence[Document], windows: Windows) -> Clusters:
    """Join documents whose sets of 13-grams of token ids have a Jaccard similarity of at least 0.5.

    Boilerplate n-grams do not count. Raises `UserError` where near-duplicates make up more than 5 % of the tokens
    of a corpus of at least 40 documents: too many conclusions would hang on one text.
    """
    texts = [hashlib.sha256(document.text.encode()).hexdigest() for document in documents]
    parent = list(range(len(documents)))
    first = dict[str, int]()
    for at, text in enumerate(texts):
        parent[at] = first.setdefault(text, at)
    distinct = np.fromiter(first.values(), dtype=np.int64, count=len(first))
    tokens, owners = flatten(windows)
    kept = np.isin(owners, distinct)
    grams, bounds = gram_sets(tokens[kept], np.searchsorted(distinct, owners[kept]), len(distinct))
    for left, right in _candidates(grams, bounds):
        a, b = _root(parent, int(distinct[left])), _root(parent, int(distinct[right]))
        if a != b and _jaccard(_set(grams, bounds, left), _set(grams, bounds, right)) >= SIMILAR:
            parent[max(a, b)] = min(a, b)
    roots = [_root(parent, at) for at in range(len(documents))]
    least = dict[int, str]()
    for root, text in zip(roots, texts, strict=True):
        least[root] = min(text, least.get(root, text))
    keys = tuple(sorted(least.values()))
    place = {key: at for at, key in enumerate(keys)}
    index = np.array([place[least[root]] for root in roots], dtype=np.int32)
    clusters = Clusters(index, keys, np.bincount(index[owners], minlength=len(keys)))
    _check_largest(clusters, documents)
    return clusters


def flatten(windows: Windows) -> tuple[Int32[np.ndarray, " token"], Int32[np.ndarray, " token"]]:
    """The counted tokens of all windows in a row, and the document of each."""
    counted = windows.counted()
    return windows.tokens[counted], np.repeat(windows.document, counted.sum(1))


class RunHashes:
    """64-bit hashes of runs of tokens of any length, from prefix sums modulo 2^64 (Rabin-Karp)."""

    def __init__(self, tokens: Int32[np.ndarray, " token"]) -> None:
        powers = np.cumprod(np.full(len(tokens), _BASE, dtype=np.uint64))
        terms = mix(tokens.astype(np.uint64)) * powers
        self._sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(terms)])
        self._inverses = np.cumprod(np.full(len(tokens), _INVERSE, dtype=np.uint64))

    def at(self, starts: Int64[np.ndarray, " run"], n: int) -> UInt64[np.ndarray, " run"]:
        """The hash of the `n` tokens from each of `starts`."""
        return mix((self._sums[starts + n] - self._sums[starts]) * self._inverses[starts])


def mix(values: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """The finaliser of SplitMix64, a bijection whose every output bit depends on every input bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def gram_sets(
    tokens: Int32[np.ndarray, " token"], owners: Int64[np.ndarray, " token"], n_documents: int
) -> tuple[UInt64[np.ndarray, " gram"], Int64[np.ndarray, " bound"]]:
    """Each document's n-grams without boilerplate, sorted, one document after the other, and where each begins."""
    # A document shorter than an n-gram has no set: only its exact copies are near to it.
    starts = np.arange(max(0, len(tokens) - NGRAM + 1))
    starts = starts[owners[starts] == owners[starts + NGRAM - 1]]
    hashes, owner = RunHashes(tokens).at(starts, NGRAM), owners[starts]
    order = np.lexsort((hashes, owner))
    hashes, owner = hashes[order], owner[order]
    new = np.ones(len(hashes), dtype=np.bool_)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
    hashes, owner = hashes[new], owner[new]
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    own = counts[inverse] <= max(COMMON, _COMMON_SHARE * n_documents)
    total = np.bincount(owner, minlength=n_documents)
    is_boilerplate = np.bincount(owner[own], minlength=n_documents) < _OWN * total
    kept = own | is_boilerplate[owner]
    hashes, owner = hashes[kept], owner[kept]
    return hashes, np.searchsorted(owner, np.arange(n_documents + 1))


def _candidates(grams: UInt64[np.ndarray, " gram"], bounds: Int64[np.ndarray, " bound"]) -> Iterator[tuple[int, int]]:
    """Pairs of documents that share a band of their MinHash signatures, each pair once."""
    filled = np.flatnonzero(np.diff(bounds))
    if not len(filled):
        return
    seeds = mix(np.arange(1, _BANDS * _ROWS + 1, dtype=np.uint64))
    seen = set[tuple[int, int]]()
    for band in range(_BANDS):
        key = np.zeros(len(filled), dtype=np.uint64)
        for seed in seeds[band * _ROWS : (band + 1) * _ROWS]:
            # Multiplying by an odd number permutes the hashes; the comparison looks at their high bits first.
            key = mix(key ^ np.minimum.reduceat(grams * (seed | np.uint64(1)), bounds[filled]))
        order = np.argsort(key, kind="stable")
        ends = np.flatnonzero(np.diff(key[order])) + 1
        for bucket in np.split(filled[order], ends):
            for i, left in enumerate(bucket[:-1].tolist()):
                for right in bucket[i + 1 :].tolist():
                    if (left, right) not in seen:
                        seen.add((left, right))
                        yield left, right


def _set(grams: np.ndarray, bounds: np.ndarray, document: int) -> np.ndarray:
    return grams[bounds[document] : bounds[document + 1]]


def _jaccard(left: np.ndarray, right: np.ndarray) -> float:
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)


def _root(parent: list[int], at: int) -> int:
    while parent[at] != at:
        parent[at] = parent[parent[at]]
        at = parent[at]
    return at


def _check_largest(clusters: Clusters, documents: Sequence[Document]) -> None:
    """One long document is no near-duplicate: only clusters of several are refused."""
    if len(documents) < _ENOUGH:
        return
    several = np.bincount(clusters.index, minlength=len(clusters.keys)) > 1
    shares = np.where(several, clusters.tokens, 0) / max(1, clusters.tokens.sum())
    worst = int(shares.argmax())
    if shares[worst] > _LARGEST:
        members = np.flatnonzero(clusters.index == worst)
        examples = ", ".join(documents[at].id for at in members[:3])
        raise UserError(
            f"{len(members)} near-duplicate documents hold {shares[worst]:.0%} of the corpus, such as {examples}.",
            f"A cluster goes into one split as a whole, so it may hold at most {_LARGEST:.0%} of the tokens.",
            "Leave the copies out, or give a larger and more varied corpus.",
        )
