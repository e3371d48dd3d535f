"""What a run can see is what a simulated run sees."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.permutation import permutation_test
from autointerp.power import ASSUMED_SD, detectable_difference, foreseen, spread
from autointerp.records.unit import Unit
from tests.autointerp.synthetic_outcomes import outcome

COUNTS, SPREADS = st.integers(2, 5000), st.floats(0.01, 0.5)


@pytest.mark.parametrize(("n1", "n2", "sd1", "sd2"), [(15, 15, 0.2, 0.2), (60, 30, 0.15, 0.25)])
def test_the_named_difference_is_seen_four_times_in_five(n1: int, n2: int, sd1: float, sd2: float) -> None:
    """Of 400 runs with a difference of just that size about 80 % reject at 5 %, with the test that runs report."""
    rng = np.random.default_rng(0)
    gap = detectable_difference(n1, n2, sd1, sd2)
    seen = 0
    for _ in range(400):
        p = permutation_test(gap + sd1 * rng.normal(size=n1), sd2 * rng.normal(size=n2), rng, 199)
        assert isinstance(p, float)
        seen += p <= 0.05
    assert 0.73 <= seen / 400 <= 0.87


def test_published_sizes_are_met() -> None:
    """A difference of 0.05 needs about 250 units per arm at SD 0.2, and 0.10 needs 63."""
    assert detectable_difference(251, 251) == pytest.approx(0.05, rel=0.01)
    assert detectable_difference(63, 63) == pytest.approx(0.10, rel=0.01)
    assert detectable_difference(141, 141, 0.15, 0.15) == pytest.approx(0.05, rel=0.01)


@given(COUNTS, COUNTS, SPREADS, SPREADS)
def test_more_units_see_no_less(n1: int, n2: int, sd1: float, sd2: float) -> None:
    """Doubling both arms lowers it by about the square root of two; arms may be exchanged; scale comes out."""
    seen = detectable_difference(n1, n2, sd1, sd2)
    assert detectable_difference(2 * n1, 2 * n2, sd1, sd2) < seen / 1.41
    assert detectable_difference(n2, n1, sd2, sd1) == pytest.approx(seen)
    assert detectable_difference(n1, n2, 2 * sd1, 2 * sd2) == pytest.approx(2 * seen)


def test_one_unit_sees_nothing() -> None:
    """An arm of one unit shows no scatter, so no difference can be told; units that do not scatter show any."""
    assert detectable_difference(1, 100) == math.inf
    assert detectable_difference(10, 10, 0.0, 0.0) == 0
    assert spread([0.5]) is None
    assert spread([0.1, 0.3]) == pytest.approx(0.1414, abs=1e-4)


def test_the_line_before_a_run_names_every_baseline() -> None:
    """The assumed spread is said where none is known, the known one where it is; one arm has nothing to see."""
    counts = {"features": 256, "neurons": 256, "random": 10}
    units = [Unit(arm, i, str(i)) for arm, n in counts.items() for i in range(n)]
    said = foreseen("features", units, [], "as they did")
    assert f"{detectable_difference(256, 256):.3f} against neurons" in said
    assert "against random" in said
    assert f"assuming that scores scatter by {ASSUMED_SD:g}" in said
    scores = {"features": [0.5, 0.6] * 4, "neurons": [0.1, 0.7] * 4}
    known = [outcome(i, arm, i, value) for arm, values in scores.items() for i, value in enumerate(values)]
    sd1, sd2 = (float(np.std(each, ddof=1)) for each in scores.values())
    said = foreseen("features", units, known, "as they did")
    assert f"{detectable_difference(256, 256, sd1, sd2):.3f} against neurons" in said
    assert said.endswith("as they did).")
    assert foreseen("features", units[:256], [], "") == ""
