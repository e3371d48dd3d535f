"""How the quality benchmark finds the weight that gives the L0 it compares at."""

from collections.abc import Callable

import pytest

from benchmarks.matching import TOLERANCE, next_weight

CURVES: tuple[Callable[[float], float], ...] = (
    lambda weight: 3 / weight,
    lambda weight: 40 * weight**-0.5 - 5,
    lambda weight: min(64.0, 0.2 / weight**2),
    lambda weight: 60 / (1 + (40 * weight) ** 3),
)


@pytest.mark.parametrize("l0", CURVES)
@pytest.mark.parametrize("first", [0.001, 0.05, 5.0])
def test_the_search_finds_falling_curves_target(l0: Callable[[float], float], first: float) -> None:
    """Within the tolerance of L0 in at most eight tries, from far off, over plateaus and cliffs."""
    tried: list[tuple[float, float]] = []
    for _ in range(8):
        weight = next_weight(tried, 4.0, first)
        tried.append((weight, max(l0(weight), 0.0)))
    assert min(abs(found / 4.0 - 1) for _, found in tried) <= TOLERANCE


def test_no_try_is_repeated() -> None:
    """Neither where L0 hardly depends on the weight nor where a training gave another L0 than its neighbours say."""
    noise = (60.0, 66.0, 61.0, 67.0, 63.0, 62.0, 65.0, 64.0)
    flat: list[tuple[float, float]] = []
    for l0 in noise:
        flat.append((next_weight(flat, 4.0, 0.05), l0))
    assert len({round(weight, 6) for weight, _ in flat}) == len(noise)
    torn = [(0.0054, 22.4), (0.00604, 18.9), (0.005836, 15.6)]
    assert all(next_weight(torn, 20.0, 1.0) != pytest.approx(weight, rel=1e-3) for weight, _ in torn)
