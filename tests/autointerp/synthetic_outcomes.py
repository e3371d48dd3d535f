"""Outcomes of realistic shape, without a model: features sparse and well predicted, neurons dense and less so."""

import numpy as np

from autointerp.compare import Comparison, compare
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.outcome import ArmInfo, ArmKind, Outcome, OutcomeStatistics
from autointerp.records.trial import Measure, Score, Undefined
from autointerp.records.unit import Unit

PROTOCOL = "monosemanticity-2023"


def arm_info(label: str, n: int, kind: ArmKind = "features") -> ArmInfo:
    """An arm of `n` units."""
    return ArmInfo(label, kind, n, f"{n} units for a test")


def measure(value: float, width: float = 0.05) -> Measure:
    """A measure with a symmetric interval within [-1, 1]."""
    return Measure(value, max(-1.0, value - width), min(1.0, value + width))


def outcome(
    order: int, arm: str, index: int, value: float | None, *, density: float = 1e-3, failure: Failure | None = None
) -> Outcome:
    """One unit with the headline `value` (None: undefined), or with `failure`."""
    headline = Undefined("the truth is constant") if value is None else measure(value)
    measures = {"spearman": headline, "pearson": headline, "unigram_spearman": measure(0.25)}
    return Outcome(
        Unit(arm, index, str(index)),
        PROTOCOL,
        order,
        OutcomeStatistics(density, density, 1.0, density / 2),
        failure or Explanation(f"fires on {index}", "lookup"),
        failure or Score(measures, "spearman", 60, 0, constant=False),
    )


def realistic(n_features: int, n_neurons: int, seed: int = 0) -> tuple[list[Outcome], list[ArmInfo]]:
    """Two arms interleaved in admission order, with failures, undefined measures and all twelve intervals."""
    rng = np.random.default_rng(seed)
    units = [("features", i) for i in range(n_features)] + [("neurons", i) for i in range(n_neurons)]
    outcomes = [_unit(rng, order, *units[at]) for order, at in enumerate(rng.permutation(len(units)))]
    return outcomes, [arm_info("features", n_features), arm_info("neurons", n_neurons, "neurons")]


def _unit(rng: np.random.Generator, order: int, arm: str, index: int) -> Outcome:
    features = arm == "features"
    density = float(10 ** rng.normal(-2.9, 0.7) if features else 10 ** rng.normal(-1.0, 0.25))
    density = min(density, 0.9)
    unit = Unit(arm, index, str(index))
    statistics = OutcomeStatistics(density, density * 1.02, float(rng.gamma(4)), density * 0.4)
    if rng.random() < (0.09 if features else 0.004):
        kind = "dead" if rng.random() < 0.5 else "too_few"
        dead = OutcomeStatistics(0.0, 0.0, 0.0, 0.0) if kind == "dead" else statistics
        failure = Failure("evidence", kind, "Too rare to explain.")
        return Outcome(unit, PROTOCOL, order, dead, failure, failure)
    base = float(np.clip(rng.beta(5, 4) if features else rng.beta(3.5, 6.5), 0, 1))
    floor = base * float(rng.uniform(0.6, 1.1))
    names = {
        "spearman": base,
        "pearson": min(1.0, base * 1.05),
        "spearman_weighted": base * 0.6,
        "unigram_spearman": floor,
        "unigram_pearson": min(1.0, floor * 1.05),
        "quantised_oracle_spearman": 0.98,
    }
    for i in range(1, 13):
        names[f"spearman_interval_{i}"] = float(np.clip(base * (0.25 + 0.05 * i) + rng.normal(0, 0.15), -1, 1))
    measures: dict[str, Measure | Undefined] = {name: measure(value) for name, value in names.items()}
    if rng.random() < 0.02:
        measures["spearman_interval_12"] = Undefined("fewer than 2 different values")
    explanation = Explanation(f"token table of {arm} {index}", "lookup")
    return Outcome(
        unit, PROTOCOL, order, statistics, explanation, Score(measures, "spearman", 60, 0, constant=base < 0.05)
    )


def two_arms(features: list[float], neurons: list[float]) -> list[Outcome]:
    """Features first, then neurons, in one admission order."""
    named = [("features", value) for value in features] + [("neurons", value) for value in neurons]
    return [outcome(order, arm, order, value) for order, (arm, value) in enumerate(named)]


def compare_two(outcomes: list[Outcome], kind: str = "neurons") -> Comparison:
    """`features` against `neurons` of the given kind."""
    n = [sum(each.unit.arm == arm for each in outcomes) for arm in ("features", "neurons")]
    return compare(outcomes, [arm_info("features", n[0]), arm_info("neurons", n[1], kind)], "features", 0)  # type: ignore[arg-type]
