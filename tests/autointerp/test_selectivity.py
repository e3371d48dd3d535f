"""Single-token units and the entropy of activation over tokens."""

from dataclasses import replace

import pytest

from autointerp.records.unit import Excerpt, UnitRecord
from autointerp.selectivity import single_token, token_entropy
from tests.autointerp import synthetic


def with_top(*shown: tuple[tuple[int, ...], tuple[float, ...]]) -> UnitRecord:
    """A unit whose top excerpts have these token ids and activations; the anchor is the highest."""
    first = synthetic.record().excerpts["explain"][0]
    top = [
        replace(first, group="top", ids=ids, activations=values, anchor=values.index(max(values)))
        for ids, values in shown
    ]
    other: Excerpt = replace(first, group="random", ids=(99, 98), activations=(5.0, 0.0), anchor=0)
    return synthetic.with_excerpts(synthetic.record(), "explain", (*top, other))


def test_the_token_at_the_maximum_decides() -> None:
    """One token in all top excerpts, whatever else they hold; other excerpts do not count."""
    assert single_token(with_top(((1, 2, 3), (0.0, 9.0, 0.0)), ((4, 5, 2), (1.0, 0.0, 3.0)))) is True
    assert single_token(with_top(((1, 2, 3), (0.0, 9.0, 0.0)), ((1, 2, 3), (9.0, 0.0, 0.0)))) is False
    assert single_token(with_top()) is None


def test_entropy_is_that_of_the_mass() -> None:
    """0 bits for one token, 1 for two alike, and the mass counts, not the number of tokens."""
    assert token_entropy(with_top(((1, 1, 3), (2.0, 5.0, 0.0)))) == 0
    assert token_entropy(with_top(((1, 2, 3), (2.0, 0.0, 0.0)), ((2, 3, 3), (2.0, 0.0, 0.0)))) == pytest.approx(1)
    assert token_entropy(with_top(((1, 2, 3), (3.0, 1.0, 0.0)))) == pytest.approx(0.8113, abs=1e-4)
    assert token_entropy(with_top()) is None
