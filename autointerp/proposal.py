"""Where false predictions are likely, from an explanation's words and a table of tokens: local, for every anchor.

Every token gets a weight: the idf of BM25 (Robertson and Zaragoza 2009) where the explanation has its word, or the
unigram table's mean activation, whichever is higher, each relative to its largest. Anchors are put into strata by the
weight of their token, then those near a word of the explanation, then all others. What counts is enumerated by token
id, so that no pass over the split is made.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from autointerp.records.anchors import Text

NEAR = 4
"""Tokens to either side of a word of the explanation that count as near: those that share its excerpt."""
_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SHORTEST_STEM = 4
"""Letters from which a token that begins a word, or is begun by one, counts as that word."""
_FIRST_CUT, _GROWTH = 0.5, 4
"""Anchors of the first stratum as a share of those that fire, and by how much each stratum outgrows those before."""
_MOST_OCCURRENCES = 20_000
"""Occurrences of words whose neighbours are looked at; the commonest words are left out beyond it."""


@dataclass(frozen=True, eq=False)
class TextIndex:
    """The anchors of a split, in reading order, and where each token occurs."""

    text: Text
    """The windows."""
    width: int
    """Tokens of an excerpt: windows with fewer have no anchor."""

    @cached_property
    def window(self) -> Int[np.ndarray, " anchor"]:
        """Place of each anchor's window in `text`."""
        return np.repeat(np.arange(len(self._per_window)), self._per_window)

    @cached_property
    def position(self) -> Int[np.ndarray, " anchor"]:
        """Position of each anchor in its window."""
        begin = np.repeat(np.cumsum(self._per_window) - self._per_window, self._per_window)
        return np.arange(len(begin)) - begin + self.text.first

    @cached_property
    def token(self) -> Int[np.ndarray, " anchor"]:
        """Token id of each anchor."""
        return self.text.tokens[self.window, self.position]

    @cached_property
    def count(self) -> Int[np.ndarray, " token"]:
        """Anchors of every token id."""
        return np.bincount(self.token, minlength=len(self.text.vocabulary))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every token's text as a word: without spaces around it, in small letters."""
        return tuple(token.strip().lower() for token in self.text.vocabulary)

    @cached_property
    def idf(self) -> Float[np.ndarray, " token"]:
        """log(1 + (N - n + 1/2) / (n + 1/2)) relative to the rarest token's; 0 for tokens that do not occur."""
        n = self.count
        idf = np.log1p((n.sum() - n + 0.5) / (n + 0.5)) * (n > 0)
        return idf / max(idf.max(initial=0.0), 1e-300)

    @cached_property
    def _per_window(self) -> Int[np.ndarray, " window"]:
        real = self.text.length.astype(np.int64) - self.text.first
        return np.where(real >= self.width, real, 0)

    @cached_property
    def _by_token(self) -> tuple[np.ndarray, np.ndarray]:
        """Anchors sorted by token id, and where each id's begin."""
        return np.argsort(self.token, kind="stable"), np.concatenate([[0], np.cumsum(self.count)])

    def occurrence(self, token: Int[np.ndarray, " n"], rank: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The anchor at which each `token` occurs for the `rank`-th time."""
        order, begin = self._by_token
        return order[begin[token] + rank]

    def anchors_at(self, row: Int[np.ndarray, " n"], position: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The anchors at positions of the store's windows."""
        window = np.searchsorted(self.text.row, row)
        begin = np.cumsum(self._per_window) - self._per_window
        return begin[window] + position - self.text.first

    def near(self, tokens: Int[np.ndarray, " token"]) -> Int[np.ndarray, " anchor"]:
        """Anchors within `NEAR` tokens of an occurrence of `tokens` in the same window, rising; the rarest first."""
        rarest = tokens[np.lexsort((tokens, self.count[tokens]))]
        rarest = rarest[np.cumsum(self.count[rarest]) <= _MOST_OCCURRENCES]
        order, begin = self._by_token
        spans = [order[begin[token] : begin[token + 1]] for token in rarest.tolist()]
        at = np.concatenate([np.empty(0, dtype=np.int64), *spans])
        shifts = np.array([shift for shift in range(-NEAR, NEAR + 1) if shift])
        beside, source = (at[:, None] + shifts).ravel(), np.repeat(at, len(shifts))
        inside = (beside >= 0) & (beside < len(self.token))
        beside, source = beside[inside], source[inside]
        near = np.zeros(len(self.token), dtype=np.bool_)
        near[beside[self.window[beside] == self.window[source]]] = True
        return np.flatnonzero(near)


def matches(explanation: str, index: TextIndex) -> Bool[np.ndarray, " token"]:
    """Tokens that the explanation names: in quotation marks, as a word, or as its beginning or the other way round."""
    quoted = {text.replace('\\"', '"').strip().lower() for text in _QUOTED.findall(explanation)}
    plain = set(_WORD.findall(_QUOTED.sub(" ", explanation).lower()))
    named = (quoted | plain) - {""}
    stems = tuple(word for word in plain if len(word) >= _SHORTEST_STEM)
    begun = {word[:n] for word in stems for n in range(_SHORTEST_STEM, len(word) + 1)}
    return np.array(
        [
            word in named or (len(word) >= _SHORTEST_STEM and (word in begun or word.startswith(stems)))
            for word in index.words
        ]
    )


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """Every anchor of a split in one stratum: by falling weight of its token, then those near, then the others."""

    index: TextIndex
    """The anchors."""
    of_token: Int[np.ndarray, " token"]
    """Stratum of every token id; -1 where it depends on the neighbours."""
    near: Int[np.ndarray, " anchor"]
    """Anchors near a word of the explanation, rising; the last stratum but one."""
    sizes: Int[np.ndarray, " stratum"]
    """Anchors in each stratum."""
    measure: Float[np.ndarray, " stratum"]
    """Share of each in the proposal's density, adding up to 1: `uniform` by size, the rest alike for likely ones."""

    def draw(self, stratum: int, n: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """`n` different anchors, uniform over those of the stratum."""
        strata = len(self.sizes)
        if stratum == strata - 1:
            return self._others(n, rng)
        drawn = rng.choice(int(self.sizes[stratum]), size=n, replace=False)
        if stratum == strata - 2:
            return self.near[drawn]
        tokens = np.flatnonzero((self.of_token == stratum) & (self.index.count > 0))
        ends = np.cumsum(self.index.count[tokens])
        owner = np.searchsorted(ends, drawn, side="right")
        return self.index.occurrence(tokens[owner], drawn - (ends[owner] - self.index.count[tokens[owner]]))

    def _others(self, n: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """Uniform over what is in no other stratum, by drawing from all anchors and passing over what is."""
        total = len(self.index.token)
        if self.sizes[-1] < total / 8:  # passing over would take long
            rest = np.flatnonzero(self.of_token[self.index.token] < 0)
            rest = rest[~np.isin(rest, self.near, assume_unique=True)]
            return rest[rng.choice(len(rest), size=n, replace=False)]
        kept: dict[int, None] = {}
        while len(kept) < n:
            drawn = rng.integers(total, size=4 * n)
            drawn = drawn[self.of_token[self.index.token[drawn]] < 0]
            at = np.minimum(np.searchsorted(self.near, drawn), max(len(self.near) - 1, 0))
            free = self.near[at] != drawn if len(self.near) else np.ones(len(drawn), dtype=np.bool_)
            kept.update(dict.fromkeys(drawn[free].tolist()))
        return np.array(list(kept)[:n], dtype=np.int64)


def propose(
    explanation: str,
    unigram: Float[np.ndarray, " token"],
    index: TextIndex,
    fired: int,
    *,
    strata: int = 5,
    uniform: float = 0.3,
) -> Proposal:
    """Strata for an explanation, a table of mean activations and the number of anchors at which the unit fires.

    Tokens are ranked by weight and cut where the anchors so far are half of `fired`, 2 times, 8 times and so on: false
    predictions count in relation to the firings, so that each order of magnitude has its own draws, and the common
    words of an explanation do not crowd out the rare ones that a sparse unit is about.
    """
    named, count = matches(explanation, index), index.count
    weight = np.maximum(named * index.idf, unigram / max(float(unigram.max(initial=0.0)), 1e-300)) * (count > 0)
    of_token = np.full(len(count), -1)
    tokens = np.flatnonzero(weight > 0)
    tokens = tokens[np.argsort(-weight[tokens], kind="stable")]
    before = np.cumsum(count[tokens]) - count[tokens]
    cuts = _FIRST_CUT * fired * float(_GROWTH) ** np.arange(strata - 1)
    found, place = np.unique(np.searchsorted(cuts, before, side="right"), return_inverse=True)
    of_token[tokens] = place
    near = index.near(np.flatnonzero(named & (count > 0)))
    near = near[of_token[index.token[near]] < 0]
    by_token = np.bincount(place, count[tokens], minlength=len(found)).astype(np.int64)
    others = len(index.token) - int(by_token.sum()) - len(near)
    sizes = np.array([*by_token.tolist(), len(near), others])
    likely = (sizes > 0) * np.append(np.ones(len(sizes) - 1), 0.0)
    flat = sizes / max(sizes.sum(), 1)
    measure = (1 - uniform) * likely / likely.sum() + uniform * flat if likely.any() else flat
    return Proposal(index, of_token, near, sizes, measure)
