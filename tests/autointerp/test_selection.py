"""Feature specifications."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.selection import resolve_features
from sae.errors import UserError

DENSITIES = np.array([0.0, 1e-6, 1e-5, 1e-3, 1e-2, 0.5])


def resolve(spec: str, n: int = 6) -> list[int]:
    """Resolve against six features of known density."""
    return resolve_features(spec, n, lambda: DENSITIES, seed=0).tolist()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ("0:3", [0, 1, 2]),
        ("1:6:2", [1, 3, 5]),
        (":2", [0, 1]),
        ("4:", [4, 5]),
        ("5,0,5", [5, 0]),
        ("alive", [1, 2, 3, 4, 5]),
        ("density:1e-5..1e-2", [2, 3, 4]),
    ],
)
def test_specifications_mean_what_they_say(spec: str, expected: list[int]) -> None:
    """Every form resolves to its features."""
    assert resolve(spec) == expected


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 7))
def test_slices_are_half_open(start: int, stop: int, step: int) -> None:
    """A slice means what the same Python slice means."""
    expected = list(range(50))[start:stop:step]
    if expected:
        assert resolve(f"{start}:{stop}:{step}", 50) == expected
    else:
        with pytest.raises(UserError, match="no feature"):
            resolve(f"{start}:{stop}:{step}", 50)


def test_random_features_are_distinct_and_repeatable() -> None:
    """`random:N` draws N distinct features, the same for the same seed."""
    assert resolve("random:4") == resolve("random:4")
    assert len(set(resolve("random:4"))) == 4


def test_a_file_lists_features(tmp_path: Path) -> None:
    """`@file` takes indices separated by spaces, commas or lines."""
    path = tmp_path / "ids.txt"
    path.write_text("3, 1\n0")
    assert resolve(f"@{path}") == [3, 1, 0]


@pytest.mark.parametrize(
    "spec", ["0:9", "7", "-1", "a:b", "random:x", "random:9", "density:1", "@nowhere", "", "1:2:0"]
)
def test_malformed_specifications_are_refused(spec: str) -> None:
    """A specification that cannot be meant is a usage fault, never an empty run."""
    with pytest.raises(UserError) as error:
        resolve(spec)
    assert error.value.usage
