"""The lookup explainer's text is a table, and its simulator reads that text and nothing else."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp import notation
from autointerp.explain.lookup import LookupExplainer
from autointerp.records.explanation import Evidence, EvidenceExcerpt, Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.simulate.lookup import LookupSimulator


def _evidence(*excerpts: tuple[tuple[str, ...], tuple[int, ...]]) -> Evidence:
    return Evidence(tuple(EvidenceExcerpt(tokens, levels, "top") for tokens, levels in excerpts), (), (), 9)


def _explain(evidence: Evidence, max_entries: int = 20) -> str:
    explanation = asyncio.run(LookupExplainer(max_entries).explain(evidence))
    assert isinstance(explanation, Explanation)
    assert explanation.explainer == "lookup"
    return explanation.text


def _simulate(text: str, *items: tuple[str, ...]) -> list[Prediction | Failure]:
    explanation = Explanation(text, "anyone")
    return list(asyncio.run(LookupSimulator().simulate(explanation, [Item(tokens) for tokens in items])))


def test_the_table_has_the_mean_level_of_each_token() -> None:
    """Means are over all occurrences in all excerpts, to one decimal; tokens that never fire are left out."""
    evidence = _evidence(((" the", "cat", "sat"), (9, 0, 1)), (("cat", " the", " the"), (2, 8, 8)))
    assert _explain(evidence) == 'Fires on " the" at 8.3, "cat" at 1, "sat" at 1; on any other token at 0.'


def test_truncation_keeps_what_explains_most() -> None:
    """Count times squared mean decides: neither the highest mean nor the highest total alone."""
    evidence = _evidence((("rare",) + ("mid",) * 3 + ("common",) * 12, (9,) + (7,) * 3 + (2,) * 12))
    assert _explain(evidence, 1) == 'Fires on "mid" at 7; on any other token at 0.'
    assert _explain(evidence, 2) == 'Fires on "rare" at 9, "mid" at 7; on any other token at 0.'
    assert [word in _explain(evidence, 3) for word in ("rare", "mid", "common")] == [True] * 3


def test_the_order_of_excerpts_does_not_matter() -> None:
    """Equal tokens are ranked by their text, so the table is the same whatever came first."""
    one, other = (("b", "a"), (5, 5)), (("c", "d"), (5, 0))
    assert _explain(_evidence(one, other), 2) == _explain(_evidence(other, one), 2)


@pytest.mark.parametrize(
    ("excerpt", "kind"),
    [
        ((("a", "b"), (0, 0)), "constant"),
        ((("a", "b"), (4, 4)), "constant"),
        ((("a",) * 30, (1,) + (0,) * 29), "silent"),
    ],
)
def test_evidence_without_a_difference_is_a_failure(
    excerpt: tuple[tuple[str, ...], tuple[int, ...]], kind: str
) -> None:
    """Nothing that fires, or the same level everywhere, is no explanation."""
    failure = asyncio.run(LookupExplainer().explain(_evidence(excerpt)))
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.kind) == ("explain", kind)


def test_the_simulator_predicts_the_tables_levels() -> None:
    """Listed tokens get their level, all others the default."""
    predictions = _simulate('Fires on "a" at 7.5, "b" at 2; on any other token at 0.5.', ("a", "z"), ("b", "a"))
    assert predictions == [Prediction((7.5, 0.5)), Prediction((2.0, 7.5))]


def test_an_unreadable_text_fails_for_every_item() -> None:
    """A text that is no table is a failure per item, never a zero."""
    results = _simulate("Fires on animals.", ("a",), ("b",))
    assert [(type(result), getattr(result, "kind", None)) for result in results] == [(Failure, "unreadable")] * 2


@given(st.dictionaries(st.binary(max_size=6), st.integers(0, 9), min_size=2, max_size=20))
def test_a_unit_that_depends_on_its_token_is_predicted_exactly(levels: dict[bytes, int]) -> None:
    """What was explained from a set of tokens is predicted on them, however odd the tokens are."""
    tokens = tuple(notation.display(token) for token in levels)
    truth = tuple(levels.values())
    result = asyncio.run(LookupExplainer().explain(_evidence((tokens, truth))))
    if isinstance(result, Failure):
        assert len(set(truth)) == 1
    else:
        assert _simulate(result.text, tokens) == [Prediction(tuple(map(float, truth)))]
