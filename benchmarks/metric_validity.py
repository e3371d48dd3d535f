"""What metrics are worth on synthetic units whose truth is known at every anchor.

    python -m benchmarks.metric_validity --out results/benchmarks [--quick]

Six questions: do scores fall when labels go missing or are doubled; do true explanations rank above false ones; is the
same flaw scored alike at every density; do 95 % intervals cover; how often does the test between arms err under the
null; what difference can be seen for how many windows and dollars.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from autointerp import estimation, inference, permutation
from autointerp.records.trial import Undefined
from autointerp.scorers.population import ALLOCATION
from benchmarks import validity_report
from benchmarks.validity_metrics import average_precision, census, design, scaled, scorer
from benchmarks.validity_world import (
    FLAWS,
    LEVELS,
    RULES,
    SyntheticUnit,
    World,
    corpus_world,
    flawed_unit,
    make_unit,
    zipf_world,
)

DENSITIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is simulated."""

    tokens: int = 2_200_000
    per_rule: int = 8
    per_density: int = 12
    draws: int = 4
    null_runs: int = 10_000


QUICK = Sizes(tokens=0, per_rule=1, per_density=2, draws=2, null_runs=20)


def label_tests(units: Iterable[tuple[World, SyntheticUnit]], rng: np.random.Generator) -> pd.DataFrame:
    """Share of units whose score falls under each flaw, by metric (Oikarinen, Yan and Weng 2025)."""
    rows = []
    for world, unit in units:
        score = scorer(world, unit, rng)
        values = {
            flaw: {**score(unit.explanations[flaw], unit.predictions[flaw]), **census(unit, unit.predictions[flaw])}
            for flaw in FLAWS
        }
        for flaw in FLAWS[1:]:
            for metric, value in values[flaw].items():
                rows.append((world.name, unit.rule, metric, flaw, value < values["true"][metric] - 1e-12))
    return pd.DataFrame(rows, columns=["text", "rule", "metric", "flaw", "falls"])


def ranking(worlds: Mapping[World, list[SyntheticUnit]], rng: np.random.Generator) -> pd.DataFrame:
    """Score of each unit's true explanation, of two flawed ones, and of three of other units."""
    rows = []
    for world, units in worlds.items():
        for unit in units:
            score = scorer(world, unit, rng)
            others = [units[i] for i in rng.permutation(len(units)) if units[i] is not unit][:3]
            told = [(name, unit, name == "true") for name in ("true", "missing", "extra named")]
            for flaw, owner, right in told + [("true", other, False) for other in others]:
                for metric, value in score(owner.explanations[flaw], owner.predictions[flaw]).items():
                    rows.append((world.name, unit.rule, metric, right, value))
    return pd.DataFrame(rows, columns=["text", "rule", "metric", "right", "score"])


def meta_auprc(scores: pd.DataFrame) -> pd.Series:
    """Average precision of telling true explanations by their score, over all units at once, by metric."""
    parts = scores.groupby("metric", sort=False)
    return parts.apply(lambda part: average_precision(part["right"].to_numpy(), part["score"].to_numpy()))


def density_bias(world: World, sizes: Sizes, rng: np.random.Generator) -> pd.DataFrame:
    """Estimates from samples against the value over all anchors, for one flaw at every density."""
    rows = []
    for findable in (True, False):
        for precision in (1 / 6, 1 / 2):
            for density in DENSITIES:
                for _ in range(sizes.per_density):
                    unit = flawed_unit(world, density, precision, findable=findable, rng=rng)
                    if unit is None:
                        continue
                    truth = census(unit, unit.predictions["flawed"])
                    true = {
                        "Pearson": truth["census Pearson"],
                        "AUPRC": truth["census AUPRC"],
                        "F1": truth["census F1"],
                    }
                    for _ in range(sizes.draws):
                        values = scorer(world, unit, rng)(unit.explanations["flawed"], unit.predictions["flawed"])
                        kind = "findable" if findable else "hidden"
                        for metric, value in values.items():
                            target = true[next((name for name in true if metric.endswith(name)), "Pearson")]
                            rows.append((kind, round(precision, 2), density, metric, value, target))
    return pd.DataFrame(rows, columns=["flaw", "precision", "density", "metric", "estimate", "population"])


def coverage(units: list[tuple[World, SyntheticUnit]], draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """Whether the intervals of the `population` protocol hold the value over all anchors, sample by sample."""
    estimators = {"Pearson": estimation.pearson, "AUPRC": estimation.auprc}
    rows = []
    for number, (world, unit) in enumerate(units):
        for flaw, prediction in unit.predictions.items():
            known, strata = census(unit, prediction), design(world, unit, unit.explanations[flaw])
            for _ in range(draws):
                at, sample = strata.draw(rng)
                plain = estimation.rows(sample, rng)
                for name, estimator in estimators.items():
                    weights = estimation.calibrated(sample, plain) if name == "Pearson" else plain
                    found = estimation.interval(sample, prediction[at].astype(float), estimator, weights, rng, LEVELS)
                    rows.append((number, unit.rule, flaw, name, known[f"census {name}"], *_ends(found)))
    columns = ["unit", "rule", "flaw", "metric", "population", "value", "low", "low_seen", "high"]
    return pd.DataFrame(rows, columns=columns)


def _ends(found: estimation.Interval) -> tuple[float, float, float, float]:
    return found.value, found.low, found.low_seen, found.high


ARM = 100
"""Units per arm of a null run."""


def type_one(scores: np.ndarray, runs: int, rng: np.random.Generator) -> pd.DataFrame:
    """Share of null runs in which arms drawn from the same units differ at 5 %, by test."""
    wrong: dict[str, int] = defaultdict(int)
    for _ in range(runs):
        first, second = rng.choice(scores, size=ARM), rng.choice(scores, size=ARM)
        tested = inference.mann_whitney(first, second)
        wrong["Mann-Whitney"] += not isinstance(tested, Undefined) and tested.p < 0.05
        p = permutation.permutation_test(first, second, rng, resamples=499)
        wrong["permutation"] += not isinstance(p, Undefined) and p <= 0.05
        arms = inference.Sample.of(first), inference.Sample.of(second)
        for average, found in inference.difference(*arms, ("median", "mean"), rng, resamples=400).items():
            apart = not isinstance(found, Undefined) and not found.low <= 0 <= found.high
            wrong[f"bootstrap interval, {average}"] += apart
    rows = [(test, runs, n / runs) for test, n in wrong.items()]
    return pd.DataFrame(rows, columns=["test", "null runs", "rejected"])


def power(units: list[tuple[World, SyntheticUnit]], draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """Estimates of every unit's flawed explanation from `draws` samples of each number of excerpts."""
    rows = []
    for excerpts in (30, 60, 120, 240):
        sizes = scaled(ALLOCATION, excerpts / 120)
        for number, (world, unit) in enumerate(units):
            strata = design(world, unit, unit.explanations["extra named"], sizes)
            for _ in range(draws):
                at, sample = strata.draw(rng)
                weights = estimation.calibrated(sample, estimation.base_weights(sample)[None, :])
                found = estimation.pearson(sample, weights, unit.predictions["extra named"][at].astype(float))
                rows.append((excerpts, number, float(found[0])))
    return pd.DataFrame(rows, columns=["excerpts", "unit", "estimate"])


def measure(sizes: Sizes, seed: int) -> dict[str, pd.DataFrame]:
    """Every experiment's rows, by its name."""
    rng = np.random.default_rng(seed)
    real = corpus_world(sizes.tokens, seed) if sizes.tokens else zipf_world(150, seed + 1)
    worlds = {
        world: [make_unit(world, rule, rng) for rule in RULES for _ in range(sizes.per_rule)]
        for world in (real, zipf_world(4000 if sizes.tokens else 150, seed))
    }
    units = [(world, unit) for world, made in worlds.items() for unit in made]
    out = {
        "labels": label_tests(units, rng),
        "ranking": ranking(worlds, rng),
        "density": density_bias(real, sizes, rng),
    }
    flawed = (
        flawed_unit(real, density, precision, findable=True, rng=rng)
        for density in DENSITIES
        for precision in (1 / 6, 0.5)
        for _ in range(sizes.draws)
    )
    out["coverage"] = coverage([*units, *((real, unit) for unit in flawed if unit)], sizes.draws, rng)
    right = out["ranking"].query("right and metric == 'population Pearson'")["score"].to_numpy()
    out["type one"] = type_one(right, sizes.null_runs, rng)
    out["power"] = power(units, sizes.draws, rng)
    return out


def main() -> None:
    """Measure, and write tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="tiny sizes over generated words, to see that it runs")
    parser.add_argument("--seed", type=int, default=202, help="of texts, units and samples")
    given = parser.parse_args()
    sizes, started = QUICK if given.quick else Sizes(), time.monotonic()
    found = measure(sizes, given.seed)
    meta, took = meta_auprc(found["ranking"]), time.monotonic() - started
    text = validity_report.write(given.out, found, meta, given.seed, f"{sizes}; {took:.0f} s")
    print(text)


if __name__ == "__main__":
    main()
