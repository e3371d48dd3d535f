"""Which windows an explainer may see and which are scored, fixed before any ranking."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Int8, Int32, Int64

from sae.corpus.clusters import Clusters, RunHashes, flatten
from sae.corpus.document import Document
from sae.corpus.leaks import near_duplicates
from sae.corpus.windows import SHORTEST, Windows
from sae.errors import UserError, nearest

SHARES: Mapping[str, float] = MappingProxyType({"explain": 0.45, "select": 0.05, "calibrate": 0.05, "score": 0.45})
"""Share of the clusters per split. The first is the one that explanations (and autoencoders) are made of, the last the
one that scores come from: both need as many rare firings as there are. Choosing among a few explanations and fitting
the two numbers of a calibration need few, so these splits take little from either side of the middle: whatever was
held out from the first half of a corpus still is."""
DROPPED = -1


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The split of every window, by document cluster."""

    names: tuple[str, ...]
    """The splits; codes index into them. The first is the one that explanations come from."""
    code: Int8[np.ndarray, " window"]
    """Split of each window; -1 for one that was dropped because an earlier split has its tokens verbatim."""
    cluster: Int32[np.ndarray, " window"]
    """Near-duplicate cluster of the window's document."""

    @property
    def dropped(self) -> int:
        """Windows that belong to no split because a document of an earlier one has their tokens verbatim."""
        return int((self.code == DROPPED).sum())

    def rows(self, split: str) -> Int64[np.ndarray, " row"]:
        """The windows of `split`, ascending."""
        if split not in self.names:
            raise UserError(f"There is no split {split!r}.", do=nearest(split, self.names))
        return np.flatnonzero(self.code == self.names.index(split))


def split_windows(
    windows: Windows, documents: Sequence[Document], clusters: Clusters, shares: Mapping[str, float] = SHARES
) -> Splits:
    """Give every cluster to the split that the hash of its key names, whatever else the corpus holds.

    Windows whose tokens occur verbatim anywhere in a document of the first split are dropped from all others, and
    those of a middle split's documents from the last. Raises `UserError` where the first or the last split stays
    empty, or a leak is found.
    """
    by_cluster = np.array([_share_of(key, tuple(shares.values())) for key in clusters.keys], dtype=np.int8)
    cluster = clusters.index[windows.document]
    code = by_cluster[cluster]
    for needles, hay in _kept_apart(len(shares)):
        code[occurs_in(windows, np.isin(code, needles), np.isin(code, hay))] = DROPPED
    splits = Splits(tuple(shares), code, cluster)
    for name in (splits.names[0], splits.names[-1]):
        if not len(splits.rows(name)):
            raise UserError(
                f"The {name} split of the corpus is empty.",
                f"The corpus has {len(documents)} documents in {len(clusters.keys)} clusters of near-duplicates.",
                "Give more documents, not longer ones: a document lies in one split as a whole.",
            )
    check_no_leak(splits, windows, documents)
    return splits


def check_no_leak(splits: Splits, windows: Windows, documents: Sequence[Document]) -> None:
    """Raise `UserError` where two splits share a document, a cluster, a near-duplicate of one or a verbatim window."""
    for owners, what in ((windows.document, "document"), (splits.cluster, "cluster")):
        for owner, held in _in_two_splits(owners, splits.code):
            at = int(windows.document[owners == owner][0])
            names = " and ".join(splits.names[i] for i in held)
            raise UserError(f"A leak: the {what} of {documents[at].id} is in the splits {names}.")
    for needles, hay in _kept_apart(len(splits.names)):
        copied = np.flatnonzero(occurs_in(windows, np.isin(splits.code, needles), np.isin(splits.code, hay)))
        if len(copied):
            example = documents[int(windows.document[copied[0]])].id
            where = " or ".join(splits.names[code] for code in hay)
            raise UserError(f"A leak: {len(copied)} windows, such as one of {example}, occur in {where} documents.")
        alike = near_duplicates(windows, np.isin(splits.code, hay), np.isin(splits.code, needles))
        if alike is not None:
            ids = " and ".join(documents[at].id for at in alike[:2])
            raise UserError(f"A leak: {ids} are near-duplicates ({alike[2]:.0%} of their 13-grams) in two splits.")


def occurs_in(
    windows: Windows, needles: Bool[np.ndarray, " window"], hay: Bool[np.ndarray, " window"]
) -> Bool[np.ndarray, " window"]:
    """Which of the `needles` occur, token for token and at any offset, in the documents of the `hay` windows.

    Equality is that of 64-bit hashes.
    """
    tokens, owners = flatten(windows.select(hay))
    anchor = min(SHORTEST, windows.context - windows.first)
    found = np.zeros(len(windows), dtype=np.bool_)
    rows = np.flatnonzero(needles & (windows.length - windows.first >= anchor))
    if not len(rows) or len(tokens) < anchor:
        return found
    runs, begins = RunHashes(tokens), np.arange(len(tokens) - anchor + 1)
    # Few runs of the hay begin as any needle does: only those are compared at each of the needles' many lengths.
    begins = begins[np.isin(runs.at(begins, anchor), _heads(windows, rows, anchor))]
    lengths = windows.length[rows] - windows.first
    for length in np.unique(lengths).tolist():
        starts = begins[begins + length <= len(tokens)]
        starts = starts[owners[starts] == owners[starts + length - 1]]
        same = rows[lengths == length]
        found[same] = np.isin(_heads(windows, same, length), runs.at(starts, length))
    return found


def _kept_apart(n: int) -> list[tuple[range, range]]:
    """Codes of the splits whose windows must not occur, and of those in whose documents they must not."""
    apart = [(range(1, n), range(1))]
    return [*apart, (range(n - 1, n), range(1, n - 1))] if n > 2 else apart


def _heads(windows: Windows, rows: Int64[np.ndarray, " row"], n: int) -> np.ndarray:
    """The hash of the first `n` real tokens of each of the windows at `rows`."""
    heads = windows.tokens[rows, windows.first : windows.first + n]
    return RunHashes(heads.ravel()).at(np.arange(len(rows)) * n, n)


def _share_of(key: str, shares: Sequence[float]) -> int:
    """Hashed once more: the least of several hashes is small, so the key itself would favour the first split."""
    at = int.from_bytes(hashlib.sha256(f"split {key}".encode()).digest()[:8]) / 2**64
    return min(int(np.searchsorted(np.cumsum(shares) / sum(shares), at, side="right")), len(shares) - 1)


def _in_two_splits(
    owners: Int32[np.ndarray, " window"], code: Int8[np.ndarray, " window"]
) -> list[tuple[int, list[int]]]:
    """Each owner whose windows lie in several splits, and the splits; dropped windows are in none."""
    kept = code != DROPPED
    pairs = np.unique(np.stack([owners[kept], code[kept]], axis=1), axis=0)
    owner, counts = np.unique(pairs[:, 0], return_counts=True)
    return [(int(o), pairs[pairs[:, 0] == o, 1].tolist()) for o in owner[counts > 1]]
