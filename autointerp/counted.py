"""The outcomes that count, looked up by arm and measure."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from autointerp.inference import Sample
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

    def sample(self, arm: str, measure: str, keep: Callable[[Outcome], bool] = lambda _: True) -> Sample:
        """The same with what each document does to it; values alone where that is not known of every unit."""
        kept = [each for each in self.arms.get(arm, []) if keep(each) and self.value(each, measure) is not None]
        values = np.array([self.value(outcome, measure) for outcome in kept], dtype=np.float64)
        found = [_influence(outcome, measure, self.headline) for outcome in kept]
        known = [each for each in found if each is not None]
        if not known or len(known) < len(found):
            return Sample.of(values)
        unit = np.repeat(np.arange(len(known)), [len(clusters) for clusters, _ in known])
        clusters, changes = (np.concatenate(column) for column in zip(*known, strict=True))
        return Sample(values, unit, clusters, changes)

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


def _influence(outcome: Outcome, measure: str, headline: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Document clusters of one unit's `measure`, and what each does to it."""
    found = outcome.result.influence if isinstance(outcome.result, Score) else None
    if found is None:
        return None
    names = (headline, f"unigram_{headline}") if measure == LIFT else (measure,)
    parts = [found.changes[name].astype(np.float64) for name in names if name in found.changes]
    if len(parts) < len(names):
        return None
    return found.clusters, parts[0] - sum(parts[1:])
