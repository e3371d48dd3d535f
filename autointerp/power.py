"""How small a difference a run can see: asked before it is paid for, and again of what came out."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from scipy import stats

from autointerp.records.outcome import Outcome
from autointerp.records.trial import Measure, Score
from autointerp.records.unit import Unit
from autointerp.statistics import FEWEST

ASSUMED_SD = 0.2
"""Standard deviation of the scores of an arm's units before any is known: near what published quartiles give."""
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
    error: float | None = None,
) -> float:
    """The smallest difference of two arms' means that a two-sided Welch test sees with probability `power`.

    (t(1 - level / 2) + t(power)) * sqrt(sd1^2 / n1 + sd2^2 / n2), with Welch and Satterthwaite's degrees of freedom.
    Infinite below two units in either arm. Arms of `n1` and `n2` units, whose scores scatter by `sd1` and `sd2`;
    documents that units share are not in it, unless `error`, the standard error of the difference that counts them,
    takes the place of the square root. Differences of the same units are one arm: an `sd2` of 0.
    """
    if min(n1, n2) < _FEWEST:
        return math.inf
    first, second = sd1**2 / n1, sd2**2 / n2
    if not first + second:
        return 0.0
    freedom = (first + second) ** 2 / (first**2 / (n1 - 1) + second**2 / (n2 - 1))
    return float(
        (stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(power, freedom)) * (error or math.sqrt(first + second))
    )


def spread(scores: Sequence[float]) -> float | None:
    """Standard deviation of an arm's scores; None below two."""
    return float(np.std(scores, ddof=1)) if len(scores) >= _FEWEST else None


def foreseen(reference: str, units: Sequence[Unit], known: Sequence[Outcome], whence: str) -> str:
    """One line on what `units` can show of `reference` against each other arm, empty where there is no other.

    `known` outcomes of one protocol say how the headline scatters in each arm, and `whence` where they are from; an arm
    of which fewer than six are known is taken at `ASSUMED_SD`.
    """
    counts, spreads = Counter(unit.arm for unit in units), _spreads(known)
    own = spreads.get(reference, ASSUMED_SD)
    seen = [
        f"{detectable_difference(counts[reference], n, own, spreads.get(arm, ASSUMED_SD)):.3f} against {arm}"
        for arm, n in counts.items()
        if arm != reference and min(n, counts[reference]) >= _FEWEST
    ]
    if not seen:
        return ""
    assumed = f"assuming that scores scatter by {ASSUMED_SD:g} (standard deviation)"
    return (
        f"If every unit is scored, differences of mean scores from {', '.join(seen)} can be seen"
        f" ({POWER:.0%} power, two-sided {LEVEL:.0%}; {whence if spreads else assumed})."
    )


def _spreads(known: Sequence[Outcome]) -> dict[str, float]:
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for outcome in known:
        match outcome.result:
            case Score(measures=measures, headline=headline) if isinstance(found := measures[headline], Measure):
                scores[outcome.unit.arm].append(found.value)
            case _:
                pass
    return {arm: float(np.std(values, ddof=1)) for arm, values in scores.items() if len(values) >= FEWEST}
