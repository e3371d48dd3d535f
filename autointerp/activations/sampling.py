"""Samples that do not depend on the order in which their population arrives: least keys, least hashes."""

import hashlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Integer, Shaped, UInt64

from sae.corpus.windows import Windows

EMPTY = np.uint64(2**64 - 1)
"""Key of a place that holds nothing."""
_AT_ONCE = 1 << 15
"""Hashes computed at one time: what fits a core's cache."""
_WINDOWS_AT_ONCE = 2048


def salt(seed: int, *words: str) -> np.uint64:
    """A 64-bit start for the hashes of one purpose."""
    digest = hashlib.blake2b("\0".join([str(seed), *words]).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def mixed(state: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """The splitmix64 finaliser: every bit of the output depends on every bit of `state`.

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 19.
    """
    out = np.ascontiguousarray(state) + np.uint64(0x9E3779B97F4A7C15)
    flat = out.reshape(-1)
    for begin in range(0, len(flat), _AT_ONCE):
        part = flat[begin : begin + _AT_ONCE]
        part ^= part >> np.uint64(30)
        part *= np.uint64(0xBF58476D1CE4E5B9)
        part ^= part >> np.uint64(27)
        part *= np.uint64(0x94D049BB133111EB)
        part ^= part >> np.uint64(31)
    return out


def hashed(
    state: np.uint64 | UInt64[np.ndarray, "*#shape"], number: Integer[np.ndarray, "*#shape"]
) -> UInt64[np.ndarray, "..."]:
    """Hash of `number` under `state`; hashes chain, so that several numbers are hashed by one call for each."""
    return mixed(number.astype(np.uint64) ^ state)


def least_of_each(group: Int[np.ndarray, " entry"], key: Shaped[np.ndarray, " entry"]) -> Int[np.ndarray, " group"]:
    """Index of the entry with the least key in each group, the first among equals; ascending."""
    order = np.lexsort((key, group))
    grouped = group[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = grouped[1:] != grouped[:-1]
    return np.sort(order[first])


class BottomK:
    """Per row the `k` anchors with the least keys, whatever the order in which anchors are offered.

    Keys of one row must differ. Places are sorted by key; places without an anchor hold `EMPTY` and window -1.
    """

    def __init__(self, rows: int, k: int, width: int = 0) -> None:
        self.keys = np.full((rows, k), EMPTY)
        """uint64 of shape (row, k), rising."""
        self.window = np.full((rows, k), -1, dtype=np.int32)
        """Row of the windows, of shape (row, k)."""
        self.position = np.zeros((rows, k), dtype=np.int32)
        """Position of the anchor, of shape (row, k)."""
        self.values = np.zeros((rows, k, width), dtype=np.float32)
        """What `gather` gave, of shape (row, k, width)."""
        self.bound = np.full(rows, EMPTY if k else np.uint64(0))
        """Key below which an anchor enters the row."""

    def offer(
        self,
        row: Int[np.ndarray, " entry"],
        key: UInt64[np.ndarray, " entry"],
        window: Int32[np.ndarray, " entry"],
        position: Int32[np.ndarray, " entry"],
        gather: Callable[[np.ndarray], Float32[np.ndarray, "entry width"]] | None = None,
    ) -> None:
        """Admit the entries that are among their row's least; `gather` gives the values of those at an index."""
        able = np.flatnonzero(key < self.bound[row])
        if not len(able):
            return
        able = able[np.lexsort((key[able], row[able]))]
        is_first = np.diff(row[able], prepend=-1) != 0
        owner, touched = np.cumsum(is_first) - 1, row[able[is_first]]
        rank = np.arange(len(able)) - np.flatnonzero(is_first)[owner]
        k = self.keys.shape[1]
        owner, rank, able = owner[rank < k], rank[rank < k], able[rank < k]
        # Each touched row beside its newcomers; what is none of either has the highest key and is never among k.
        keys = np.full((len(touched), k + int(rank.max()) + 1), EMPTY)
        keys[:, :k] = self.keys[touched]
        keys[owner, k + rank] = key[able]
        entry = np.full(keys.shape, -1)
        entry[owner, k + rank] = able
        kept = np.argsort(keys, axis=1, kind="stable")[:, :k]
        entry = np.take_along_axis(entry, kept, axis=1)
        is_new, old = entry >= 0, (touched[:, None], np.minimum(kept, k - 1))
        self.keys[touched] = np.take_along_axis(keys, kept, axis=1)
        self.bound[touched] = self.keys[touched, -1]
        columns = [(self.window, lambda index: window[index]), (self.position, lambda index: position[index])]
        for column, of in [*columns, *([(self.values, gather)] if gather else [])]:
            merged = column[old]
            merged[is_new] = _in_order(of, entry[is_new])
            column[touched] = merged


def _in_order(of: Callable[[np.ndarray], np.ndarray], index: Int[np.ndarray, " entry"]) -> np.ndarray:
    """`of(index)`, asked in rising order: what lies together is then looked up together."""
    order = np.argsort(index)
    values = of(index[order])
    out = np.empty_like(values)
    out[order] = values
    return out


class Anchors:
    """Where excerpts of `width` real tokens fit in windows, and where they begin."""

    def __init__(self, windows: Windows, width: int, *, centred: bool = True) -> None:
        self._centred = centred
        self.windows = windows
        """The windows."""
        self.width = width
        """Tokens of an excerpt."""
        self.fits = windows.length - windows.first >= width
        """Which windows hold an excerpt, of shape (window)."""

    def start(
        self, window: Int32[np.ndarray, "*shape"], position: Int32[np.ndarray, "*shape"]
    ) -> Int32[np.ndarray, "*shape"]:
        """First position of the excerpt around `position`, shifted where it would meet BOS or padding.

        `position` is in the middle, or where excerpts are not centred at a place that its hash decides.
        """
        before = np.array(self.width // 2)
        if not self._centred:
            before = hashed(hashed(np.uint64(self.width), window), position) % np.uint64(self.width)
        last = self.windows.length[window] - self.width
        return np.clip(position - before.astype(np.int64), self.windows.first, last).astype(np.int32)

    def ids(
        self, window: Int32[np.ndarray, " excerpt"], start: Int32[np.ndarray, " excerpt"]
    ) -> Int32[np.ndarray, "excerpt token"]:
        """Token ids of the excerpts."""
        return self.windows.tokens[window[:, None], start[:, None] + np.arange(self.width)]

    def draw(
        self, chosen: np.ndarray, n: int, rng: np.random.Generator
    ) -> tuple[Int32[np.ndarray, " anchor"], Int32[np.ndarray, " anchor"]]:
        """Window and position of `n` anchors (fewer where there are fewer), uniform over those in windows `chosen`."""
        rows = np.flatnonzero(chosen & self.fits)
        ends = np.cumsum(self.windows.length[rows] - self.windows.first)
        total = int(ends[-1]) if len(rows) else 0
        drawn = rng.choice(total, size=min(n, total), replace=False)
        owner = np.searchsorted(ends, drawn, side="right")
        position = self.windows.length[rows[owner]] - (ends[owner] - drawn)
        return rows[owner].astype(np.int32), position.astype(np.int32)

    def occurrences(self, chosen: np.ndarray, tokens: Int[np.ndarray, " token"], k: int, state: np.uint64) -> BottomK:
        """Per token (distinct ids) `k` of its occurrences in windows `chosen`, uniform over all of them."""
        reservoir = BottomK(len(tokens), k)
        place = np.full(max(int(tokens.max(initial=0)), int(self.windows.tokens.max(initial=0))) + 1, -1)
        place[tokens] = np.arange(len(tokens))
        rows = np.flatnonzero(chosen & self.fits)
        for begin in range(0, len(rows), _WINDOWS_AT_ONCE):
            part = self.windows.select(rows[begin : begin + _WINDOWS_AT_ONCE])
            at = place[part.tokens]
            index, position = np.nonzero(part.counted() & (at >= 0))
            window = rows[begin + index].astype(np.int32)
            key = hashed(hashed(state, window), position)
            reservoir.offer(at[index, position], key, window, position.astype(np.int32))
        return reservoir


def in_turn(valid: Bool[np.ndarray, "unit token rank"], n: int) -> Int[np.ndarray, "unit pick"]:
    """Round robin: each unit's first `n` valid candidates, one of every token in turn; -1 past their end.

    A pick is an index into the unit's candidates, flattened.
    """
    n_units, n_tokens, n_ranks = valid.shape
    priority = np.cumsum(valid, axis=2) * n_tokens + np.arange(n_tokens)[:, None]
    priority[~valid] = np.iinfo(np.int64).max
    order = np.argsort(priority.reshape(n_units, -1), axis=1, kind="stable")[:, :n]
    found = np.take_along_axis(valid.reshape(n_units, n_tokens * n_ranks), order, axis=1)
    return np.pad(np.where(found, order, -1), ((0, 0), (0, n - order.shape[1])), constant_values=-1)
