"""The outcomes that count, looked up by arm and measure."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from autointerp.records.outcome import Outcome
from autointerp.records.trial import Measure, Score

LIFT = "lift"
"""The headline measure less that of `unigram`, unit by unit."""


def counted_prefix(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """The longest prefix of the admission order in which every unit has ended, in that order.

    Beyond it a stopped run has ended only the quick units: counting those would favour whatever ends quickly.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.order)
    gap = next((rank for rank, outcome in enumerate(ordered) if outcome.order != rank), len(ordered))
    return tuple(ordered[:gap])


class Counted:
    """The counted outcomes, looked up by arm and measure."""

    def __init__(self, counted: Sequence[Outcome], headline: str, seed: int) -> None:
        self.headline = headline
        self.seed = seed
        self.arms: dict[str, list[Outcome]] = {}
        names: dict[str, None] = {headline: None}
        for outcome in counted:
            self.arms.setdefault(outcome.unit.arm, []).append(outcome)
            if isinstance(outcome.result, Score):
                names |= dict.fromkeys(outcome.result.measures)
        self.intervals = [f"{headline}_interval_{i}" for i in range(1, 13)]
        self.main = [name for name in names if "_interval_" not in name]
        if f"unigram_{headline}" in names:
            self.main.append(LIFT)

    def values(
        self, arm: str, measure: str, keep: Callable[[Outcome], bool] = lambda _: True
    ) -> Float[np.ndarray, " unit"]:
        """`measure` of every kept unit of `arm` where it is defined, in admission order."""
        found = (self.value(outcome, measure) for outcome in self.arms.get(arm, []) if keep(outcome))
        return np.array([value for value in found if value is not None], dtype=np.float64)

    def densities(self, arm: str) -> Float[np.ndarray, " unit"]:
        """Explain density of every scored unit of `arm`."""
        scored = (each for each in self.arms.get(arm, []) if self.value(each, self.headline) is not None)
        return np.array([each.statistics.density_explain for each in scored])

    def value(self, outcome: Outcome, measure: str) -> float | None:
        """One unit's `measure`, None where it failed or is undefined."""
        if measure == LIFT:
            own, floor = self.value(outcome, self.headline), self.value(outcome, f"unigram_{self.headline}")
            return None if own is None or floor is None else own - floor
        found = outcome.result.measures.get(measure) if isinstance(outcome.result, Score) else None
        return found.value if isinstance(found, Measure) else None

    def rng(self, *words: str) -> np.random.Generator:
        """A generator of its own for what is named, so that no number depends on which others are computed."""
        return np.random.default_rng([self.seed, *"/".join(words).encode()])
