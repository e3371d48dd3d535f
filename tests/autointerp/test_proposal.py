"""A proposal puts every anchor in one stratum, finds what the explanation names, and draws uniformly within."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.proposal import Proposal, TextIndex, matches, propose
from autointerp.records.anchors import Text

VOCABULARY = ("<s>", " the", " bank", "banking", " river", ",", " loan", " Loans", " of", "x")


@cache
def _index(seed: int = 0, n: int = 60) -> TextIndex:
    rng = np.random.default_rng(seed)
    share = np.array([0, 30, 2, 1, 2, 20, 1, 1, 20, 1.0])
    tokens = rng.choice(len(VOCABULARY), size=(n, 20), p=share / share.sum()).astype(np.int32)
    tokens[:, 0] = 0
    length = rng.integers(6, 21, n).astype(np.int32)
    row = np.arange(0, 2 * n, 2, dtype=np.int32)
    return TextIndex(Text(row, tokens, length, row // 4, 1, VOCABULARY), width=9)


def _strata(proposal: Proposal) -> np.ndarray:
    """The stratum of every anchor, by the definition."""
    index = proposal.index
    stratum = proposal.of_token[index.token]
    stratum[stratum < 0] = len(proposal.sizes) - 1
    stratum[proposal.near] = len(proposal.sizes) - 2
    return stratum


def test_anchors_are_the_tokens_of_windows_that_hold_an_excerpt() -> None:
    """Neither BOS nor padding, and none of a window that is too short."""
    index = _index()
    text = index.text
    expected = [
        (window, position)
        for window, length in enumerate(text.length.tolist())
        for position in range(1, length)
        if length - 1 >= 9
    ]
    assert list(zip(index.window.tolist(), index.position.tolist(), strict=True)) == expected
    at = np.arange(len(expected))
    assert (index.anchors_at(text.row[index.window], index.position) == at).all()


@settings(max_examples=25)
@given(
    st.integers(0, 50), st.sampled_from(["", "Fires on bank", 'the word "loan"', "of the river, loans"]), st.booleans()
)
def test_strata_are_disjoint_and_hold_every_anchor(seed: int, explanation: str, known: bool) -> None:
    """Sizes are counts of the strata, shares add up to 1, and no anchor is without a share."""
    index = _index(seed)
    unigram = np.random.default_rng(seed).random(len(VOCABULARY)) * known
    proposal = propose(explanation, unigram, index, 20, strata=3)
    assert np.bincount(_strata(proposal), minlength=len(proposal.sizes)).tolist() == proposal.sizes.tolist()
    assert proposal.measure.sum() == pytest.approx(1)
    assert (proposal.measure >= 0.299 * proposal.sizes / len(index.token)).all()


def test_draws_are_different_anchors_of_their_stratum() -> None:
    """As many as were asked for, in every stratum; a stratum drawn whole is the stratum."""
    proposal = propose("Fires on bank", np.zeros(len(VOCABULARY)), _index(), 5)
    stratum = _strata(proposal)
    for h, size in enumerate(proposal.sizes.tolist()):
        for n in (min(size, 5), size):
            drawn = proposal.draw(h, n, np.random.default_rng(1))
            assert len(set(drawn.tolist())) == n
            assert (stratum[drawn] == h).all()


@pytest.mark.parametrize("share", [0.02, 0.9])
def test_the_others_are_drawn_uniformly(share: float) -> None:
    """Both ways of drawing from what nothing names give every anchor the same chance."""
    index = _index()
    unigram = np.where(np.arange(len(VOCABULARY)) < 9, share > 0.5, 0.0) + (np.arange(len(VOCABULARY)) == 2)
    proposal = propose("", unigram.astype(float), index, 5)
    last, rng = len(proposal.sizes) - 1, np.random.default_rng(0)
    size, n = int(proposal.sizes[last]), min(4, int(proposal.sizes[last]))
    times = np.zeros(len(index.token))
    draws = 200 * size // n
    for _ in range(draws):
        times[proposal.draw(last, n, rng)] += 1
    seen = times[_strata(proposal) == last]
    expected = draws * n / size
    assert ((seen - expected) ** 2 / expected).sum() < size + 5 * (2 * size) ** 0.5


def test_the_explanation_names_tokens() -> None:
    """Quoted tokens as they are, words in any case, and words that begin alike from four letters on."""
    named = matches('Fires on " of" and talk of banks', _index())
    assert {VOCABULARY[i] for i in np.flatnonzero(named)} == {" of", " bank"}


def test_what_is_likelier_is_drawn_more_often() -> None:
    """An anchor on a named word has a higher share of the density than one beside it, and that than any other."""
    proposal = propose("about a loan", np.zeros(len(VOCABULARY)), _index(), 5)
    share = proposal.measure / np.maximum(proposal.sizes, 1)
    assert share[0] > share[-2] > share[-1] > 0


def test_rare_words_keep_their_draws_beside_common_ones() -> None:
    """A sparse unit's own token is in a stratum of about its size, whatever common words the explanation has too."""
    index = _index()
    proposal = propose('Fires on "x" and the of', np.zeros(len(VOCABULARY)), index, fired=4)
    own, common = proposal.of_token[VOCABULARY.index("x")], proposal.of_token[VOCABULARY.index(" the")]
    assert own == 0
    assert common > own
    assert proposal.measure[own] > 0.7 / len(proposal.sizes)
