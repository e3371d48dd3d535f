"""Near-duplicate documents in two splits, found without the clusters that should have kept them together."""

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from sae.corpus.clusters import COMMON, flatten, gram_sets
from sae.corpus.windows import Windows

ALIKE = 0.7
"""Jaccard similarity of two documents' 13-grams from which they must not lie in two splits. Clusters join from 0.5 on,
but a pair just above that may be missed; one above this is missed with a probability of (1 - 0.7^3)^42 = 2e-8."""


def near_duplicates(
    windows: Windows, left: Bool[np.ndarray, " window"], right: Bool[np.ndarray, " window"]
) -> tuple[int, int, float] | None:
    """A document with `left` windows and one with `right` ones that are alike, and how much; None where there is none.

    Exact but for 64-bit hashes. Documents are taken whole; boilerplate n-grams do not count, as in clusters.
    """
    tokens, owners = flatten(windows.select(np.isin(windows.document, windows.document[left | right])))
    documents, place = np.unique(owners, return_inverse=True)
    grams, bounds = gram_sets(tokens, place, len(documents))
    sizes = np.diff(bounds)
    side = np.isin(documents, windows.document[right])
    first, second = _pairs(grams, np.repeat(np.arange(len(documents)), sizes), side)
    if not len(first):
        return None
    pairs, shared = np.unique(first * len(documents) + second, return_counts=True)
    a, b = pairs // len(documents), pairs % len(documents)
    alike = shared / (sizes[a] + sizes[b] - shared)
    worst = int(alike.argmax())
    if alike[worst] < ALIKE:
        return None
    return int(documents[a[worst]]), int(documents[b[worst]]), float(alike[worst])


def _pairs(
    grams: UInt64[np.ndarray, " gram"], owner: Int64[np.ndarray, " gram"], side: Bool[np.ndarray, " document"]
) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]:
    """For each n-gram that both sides have, every document of the one with every document of the other."""
    order = np.argsort(grams, kind="stable")
    grams, owner = grams[order], owner[order]
    _, group, counts = np.unique(grams, return_inverse=True, return_counts=True)
    on_right = np.bincount(group, side[owner]).astype(np.int64)
    both = (on_right > 0) & (on_right < counts) & (counts <= COMMON)
    kept = both[group]
    if not kept.any():
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    group, owner = group[kept], owner[kept]
    found: list[np.ndarray] = []
    begins = np.flatnonzero(np.diff(group, prepend=-1))
    ends = np.append(begins[1:], len(group))
    # Groups hold at most COMMON documents, so the k-th next of each is asked COMMON times in all.
    for step in range(1, COMMON):
        ahead = np.arange(len(group)) + step
        inside = ahead < np.repeat(ends, ends - begins)
        at = np.flatnonzero(inside)
        pair = np.stack([owner[at], owner[at + step]])
        found.append(pair[:, side[pair[0]] != side[pair[1]]])
    first, second = np.concatenate(found, axis=1)
    swapped = side[first]
    return np.where(swapped, second, first), np.where(swapped, first, second)
