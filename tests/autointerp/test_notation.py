"""What is written for a judge is read back exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp import notation

TOKENS = st.one_of(st.binary(max_size=12), st.text(max_size=6).map(str.encode))
DISPLAYED = TOKENS.map(notation.display)
LEVELS = st.integers(0, 999).map(lambda tenths: tenths / 10)
POSITIVE = st.floats(1e-30, 1e30)


@given(TOKENS)
def test_display_is_inverted_by_parse(token: bytes) -> None:
    """Any bytes come back from their display."""
    assert notation.parse(notation.display(token)) == token


@given(TOKENS)
def test_a_displayed_token_is_printable_and_without_separator(token: bytes) -> None:
    """A displayed token can stand on a line between separators."""
    displayed = notation.display(token)
    assert displayed.isprintable()
    assert notation.SEPARATOR not in displayed


@pytest.mark.parametrize(
    ("token", "displayed"),
    [
        (b" the", " the"),
        ("שלום 안녕 é".encode(), "שלום 안녕 é"),
        (b"\n\t\r", "\\n\\t\\r"),
        (b"C:\\n", "C:\\\\n"),
        (b"\xe2\x82", "\\xe2\\x82"),
        (b"a\x00", "a\\x00"),
        ("│".encode(), "\\xe2\\x94\\x82"),
        ("\u200b".encode(), "\\xe2\\x80\\x8b"),
    ],
)
def test_display_keeps_what_is_readable(token: bytes, displayed: str) -> None:
    """Readable UTF-8 stays as it is; the rest is escaped byte by byte."""
    assert notation.display(token) == displayed


@pytest.mark.parametrize("text", ["\\", "a\\q", "\\x4", "\\xZZ"])
def test_parse_refuses_unknown_escapes(text: str) -> None:
    """A text that displays no token is refused."""
    with pytest.raises(ValueError, match="unknown escape"):
        notation.parse(text)


@given(st.lists(DISPLAYED, min_size=1, max_size=12))
def test_join_is_inverted_by_split(tokens: list[str]) -> None:
    """The tokens of a line are found again, empty ones and spaces included."""
    assert notation.split(notation.join(tokens)) == tuple(tokens)


@pytest.mark.parametrize("tokens", [(), ("a", "b│")])
def test_join_refuses_what_split_could_not_read(tokens: tuple[str, ...]) -> None:
    """No tokens, or an undisplayed one, make no line."""
    with pytest.raises(ValueError, match="one or more tokens"):
        notation.join(tokens)


@pytest.mark.parametrize(("top_level", "last"), [(9, 9), (10, 10)])
def test_quantise_floors_tenths_of_the_maximum(top_level: int, last: int) -> None:
    """Levels are floor(10 a / maximum); at and above the maximum the highest level."""
    activations = np.array([[0.0, 0.19, 0.2], [1.99, 2.0, 7.0]])
    assert notation.quantise(activations, 2.0, top_level).tolist() == [[0, 0, 1], [9, last, last]]


@given(st.lists(st.floats(0, 1e30), min_size=1), POSITIVE, st.sampled_from([9, 10]))
def test_quantise_is_monotone_and_within_range(activations: list[float], maximum: float, top_level: int) -> None:
    """A higher activation never has a lower level."""
    levels = notation.quantise(np.sort(activations), maximum, top_level)
    assert (np.diff(levels) >= 0).all()
    assert levels.min() >= 0
    assert levels.max() <= top_level


def test_a_unit_without_a_maximum_has_no_levels() -> None:
    """Where nothing fires every level is 0."""
    assert notation.quantise(np.array([0.0, 3.0]), 0.0, 9).tolist() == [0, 0]


@given(st.sampled_from([9, 10]).flatmap(lambda top: st.tuples(st.just(top), st.lists(st.integers(0, top)))))
def test_written_levels_are_read_back(case: tuple[int, list[int]]) -> None:
    """One character per level, and back."""
    top_level, levels = case
    text = notation.write_levels(levels)
    assert len(text) == len(levels)
    assert notation.read_levels(text, len(levels), top_level) == tuple(levels)


@pytest.mark.parametrize("text", ["", "12", "1234", " 12", "1 2", "12\n", "-12", "12A", "12a", "1٢3"])
def test_read_levels_is_strict(text: str) -> None:
    """Anything but three digits is no answer to three tokens."""
    assert notation.read_levels(text, 3, 9) is None


def test_a_table_reads_as_a_sentence() -> None:
    """The wording that people see."""
    text = notation.write_table([(" the", 9.0), ('"', 7.5)], 0.0)
    assert text == 'Fires on " the" at 9, "\\"" at 7.5; on any other token at 0.'


@given(
    st.lists(st.tuples(DISPLAYED | st.sampled_from(['"', '", "', '" at 3; on', "\\\\"]), LEVELS), min_size=1), LEVELS
)
def test_a_written_table_is_read_back(entries: list[tuple[str, float]], default: float) -> None:
    """Whatever the tokens look like, the table in the words is the table that was written."""
    assert notation.read_table(notation.write_table(entries, default)) == (tuple(entries), default)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Fires on cats.",
        'Fires on "a" at 9',
        'Fires on "a" at high; on any other token at 0.',
        'Fires on "a" at 9; on any other token at 0. Also dogs.',
        'Fires on "a at 9; on any other token at 0.',
    ],
)
def test_other_texts_are_no_tables(text: str) -> None:
    """A text that is not a table to the letter is not read as one."""
    assert notation.read_table(text) is None


def test_an_empty_table_is_refused() -> None:
    """There is no sentence for a table that says nothing."""
    with pytest.raises(ValueError, match="at least one"):
        notation.write_table([], 0.0)
