"""How small a difference a run can see: asked before it is paid for, and again of what came out."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

ASSUMED_SD = 0.2
"""Standard deviation of the scores of an arm's units before any is known (published interquartile ranges are near it)."""
POWER, LEVEL = 0.8, 0.05
"""How often a difference of the size named is seen, by a two-sided test of this level."""
_FEWEST = 2


def detectable_difference(
    n1: int,
    n2: int,
    sd1: float = ASSUMED_SD,
    sd2: float = ASSUMED_SD,
    *,
    power: float = POWER,
    level: float = LEVEL,
) -> float:
    """The smallest difference of two arms' means that a two-sided Welch test sees with probability `power`.

    (t(1 - level / 2) + t(power)) * sqrt(sd1^2 / n1 + sd2^2 / n2), both quantiles at Welch and Satterthwaite's degrees of
    freedom. Infinite below two units in either arm. Arms of `n1` and `n2` units, whose scores scatter by `sd1` and
    `sd2`; documents that units share are not in it.
    """
    if min(n1, n2) < _FEWEST:
        return math.inf
    first, second = sd1**2 / n1, sd2**2 / n2
    if not first + second:
        return 0.0
    freedom = (first + second) ** 2 / (first**2 / (n1 - 1) + second**2 / (n2 - 1))
    return float((stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(power, freedom)) * math.sqrt(first + second))


def spread(scores: Sequence[float]) -> float | None:
    """Standard deviation of an arm's scores; None below two."""
    return float(np.std(scores, ddof=1)) if len(scores) >= _FEWEST else None


def foreseen(reference: str, units: Mapping[str, int], spreads: Mapping[str, float | None], whence: str) -> str:
    """One line on what `reference` against each other arm can show: `units` asked and the `spreads` known, by arm.

    An arm without a spread is taken at `ASSUMED_SD`; `whence` says where the spreads are from, empty where none is known.
    """
    own = spreads.get(reference) or ASSUMED_SD
    seen = [
        f"{detectable_difference(units[reference], n, own, spreads.get(arm) or ASSUMED_SD):.3f} against {arm}"
        for arm, n in units.items()
        if arm != reference and min(n, units[reference]) >= _FEWEST
    ]
    if not seen:
        return ""
    basis = whence or f"assuming that scores scatter by {ASSUMED_SD:g} (standard deviation)"
    return (
        f"If every unit is scored, differences of mean scores from {', '.join(seen)} can be seen"
        f" ({POWER:.0%} power, two-sided {LEVEL:.0%}; {basis})."
    )
