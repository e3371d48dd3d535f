"""The outcomes that count, looked up by arm and measure."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from autointerp.inference import Sample
from autointerp.records.outcome import Outcome
from autointerp.records.trial import Influence, Measure, Score
from autointerp.records.unit import N_INTERVALS

LIFT = "lift"
"""The headline measure less that of `unigram`, unit by unit."""
BIGRAM_LIFT = "lift_bigram"
"""The headline measure less that of `bigram`, unit by unit."""
FLOOR = "floor"
"""What can be had without an explanation: the better of a constant prediction and of the highest level at every
excerpt's anchor. A protocol whose constant does not score 0, as a correlation's does, names a measure ``constant_``."""
ABOVE_FLOOR = "above_floor"
"""The headline measure less its floor."""
OF_CEILING = "of_ceiling"
"""Share of the way from the floor to what the truth in whole levels scores: (score - floor) / (ceiling - floor).
That is a reference and no bound: fractional predictions can score higher."""
SEEN = "{}_seen"
"""Names a headline again with an interval that holds only the false predictions that were drawn."""
_RATES = {"accuracy", "balanced_accuracy"}
"""Headlines that are between 0 and 1; correlations are between -1 and 1."""
_UNCONTRASTED = ("constant_", "anchor_", "bigram_", FLOOR)
"""What a reference predictor that no lift is taken from reaches is told of each arm, not compared between arms."""


def counted_prefix(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """The longest prefix of the admission order in which every unit has ended, in that order.

    Beyond it a stopped run has ended only the quick units: counting those would favour whatever ends quickly.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.order)
    gap = next((rank for rank, outcome in enumerate(ordered) if outcome.order != rank), len(ordered))
    return tuple(ordered[:gap])


def lower_limit(headline: str) -> float:
    """The lowest value that a unit's headline can have."""
    return 0.0 if headline in _RATES else -1.0


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
        self.intervals = [f"{headline}_interval_{i}" for i in range(1, N_INTERVALS + 1)]
        self.main = [name for name in names if "_interval_" not in name]
        derived = {
            LIFT: f"unigram_{headline}" in names,
            BIGRAM_LIFT: f"bigram_{headline}" in names,
            FLOOR: f"quantised_oracle_{headline}" in names,
            ABOVE_FLOOR: f"quantised_oracle_{headline}" in names,
            OF_CEILING: f"quantised_oracle_{headline}" in names,
        }
        self.main += [name for name, known in derived.items() if known]
        self.contrasted = [name for name in self.main if not name.startswith(_UNCONTRASTED)]
        self._values = {outcome.unit: _defined(outcome, headline) for outcome in counted}

    def values(
        self, arm: str, measure: str, keep: Callable[[Outcome], bool] = lambda _: True
    ) -> Float[np.ndarray, " unit"]:
        """`measure` of every kept unit of `arm` where it is defined, in admission order."""
        found = (self._values[each.unit].get(measure) for each in self.arms.get(arm, []) if keep(each))
        return np.array([value for value in found if value is not None], dtype=np.float64)

    def sample(self, arm: str, measure: str, keep: Callable[[Outcome], bool] = lambda _: True) -> Sample:
        """The same with what each document does to it; values alone where that is not known of every unit."""
        kept = [(each, self._values[each.unit].get(measure)) for each in self.arms.get(arm, []) if keep(each)]
        values = np.array([value for _, value in kept if value is not None], dtype=np.float64)
        found = [_influence(each, measure, self.headline) for each, value in kept if value is not None]
        return _sample(values, [each for each in found if each is not None])

    def paired(self, arm: str, other: str, measure: str, keep: Callable[[Outcome], bool] = lambda _: True) -> Sample:
        """`measure` of every kept unit of `arm` less that of the same unit in `other`, where both are defined."""
        values: list[float] = []
        entries: list[tuple[np.ndarray, np.ndarray]] = []
        again = {each.unit.index: each for each in self.arms.get(other, [])}
        for own in filter(keep, self.arms.get(arm, [])):
            pair = [own, again.get(own.unit.index)]
            known = [(each, self.value(each, measure)) for each in pair if each is not None]
            of = [(each, value) for each, value in known if value is not None]
            if len(of) < 2:
                continue
            values.append(of[0][1] - of[1][1])
            sides = [_influence(each, measure, self.headline) for each, _ in of]
            if sides[0] is not None and sides[1] is not None:
                entries.append(_less(sides[0], sides[1]))
        return _sample(np.array(values, dtype=np.float64), entries)

    def densities(self, arm: str) -> Float[np.ndarray, " unit"]:
        """Explain density of every scored unit of `arm`."""
        scored = (each for each in self.arms.get(arm, []) if self.value(each, self.headline) is not None)
        return np.array([each.statistics.density_explain for each in scored])

    def value(self, outcome: Outcome, measure: str) -> float | None:
        """One unit's `measure`, None where it failed or is undefined."""
        return self._values[outcome.unit].get(measure)

    def rng(self, *words: str) -> np.random.Generator:
        """A generator of its own for what is named, so that no number depends on which others are computed."""
        return np.random.default_rng([self.seed, *"/".join(words).encode()])


def _defined(outcome: Outcome, headline: str) -> dict[str, float]:
    """One unit's measures that are defined, by name, and what follows from its score and the reference predictors'."""
    measures = outcome.result.measures if isinstance(outcome.result, Score) else {}
    known = {name: measure.value for name, measure in measures.items() if isinstance(measure, Measure)}
    score = known.get(headline)
    if score is None:
        return known
    constant, anchor, ceiling = (known.get(f"{name}_{headline}") for name in ("constant", "anchor", "quantised_oracle"))
    floor = max(each for each in (constant or 0.0, anchor) if each is not None)
    known |= {FLOOR: floor, ABOVE_FLOOR: score - floor}
    if ceiling is not None and ceiling > floor:
        known[OF_CEILING] = (score - floor) / (ceiling - floor)
    for lift, name in ((LIFT, "unigram"), (BIGRAM_LIFT, "bigram")):
        if (below := known.get(f"{name}_{headline}")) is not None:
            known[lift] = score - below
    return known


def _sample(values: np.ndarray, influences: Sequence[tuple[np.ndarray, np.ndarray]]) -> Sample:
    """`values` with the clusters and changes of each unit; values alone where these are not known of all."""
    if not influences or len(influences) < len(values):
        return Sample.of(values)
    unit = np.repeat(np.arange(len(values)), [len(clusters) for clusters, _ in influences])
    clusters, changes = (np.concatenate(column) for column in zip(*influences, strict=True))
    return Sample(values, unit, clusters, changes)


def _less(x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Influences on a difference from those on either side, each document cluster once."""
    clusters, place = np.unique(np.concatenate([x[0], y[0]]), return_inverse=True)
    return clusters, np.bincount(place, np.concatenate([x[1], -y[1]]))


def _influence(outcome: Outcome, measure: str, headline: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Document clusters of one unit's `measure`, and what each does to it; None where that is not known."""
    score = outcome.result
    if not isinstance(score, Score) or score.influence is None:
        return None
    match measure:
        case "lift" | "lift_bigram":
            names = headline, f"{'unigram' if measure == LIFT else 'bigram'}_{headline}"
        case "above_floor":
            names = headline, _floor_of(score, headline)
        case "floor":
            names = (_floor_of(score, headline),)
        case _:
            names = (measure,)
    parts = [_change(score, score.influence, name) for name in names]
    if any(each is None for each in parts):
        return None
    first, *less = (each for each in parts if each is not None)
    return score.influence.clusters, first - sum(less)


def _floor_of(score: Score, headline: str) -> str:
    """Which predictor the floor is that of."""
    names = f"constant_{headline}", f"anchor_{headline}"
    constant, anchor = (score.measures.get(name) for name in names)
    of_constant = constant.value if isinstance(constant, Measure) else 0.0
    return names[1] if isinstance(anchor, Measure) and anchor.value > of_constant else names[0]


def _change(score: Score, influence: Influence, name: str) -> np.ndarray | None:
    """What each cluster does to a measure: nothing where it is known exactly, over a whole split or of a constant."""
    if name in influence.changes:
        return influence.changes[name].astype(np.float64)
    found = score.measures.get(name)
    exact = name.startswith("constant_") if found is None else isinstance(found, Measure) and found.low == found.high
    return np.zeros(len(influence.clusters)) if exact else None
