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

from autointerp import estimation
from benchmarks.validity_metrics import average_precision, census, sampled, scorer
from benchmarks.validity_world import FLAWS, RULES, SyntheticUnit, World, corpus_world, flawed_unit, make_unit, zipf_world

DENSITIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is simulated."""

    tokens: int = 2_200_000
    per_rule: int = 12
    per_density: int = 12
    draws: int = 4
    runs: int = 1000
    null_runs: int = 10_000


QUICK = Sizes(tokens=0, per_rule=1, per_density=2, draws=1, runs=14, null_runs=20)


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
                    true = {"Pearson": truth["census Pearson"], "AUPRC": truth["census AUPRC"], "F1": truth["census F1"]}
                    for _ in range(sizes.draws):
                        values = scorer(world, unit, rng)(unit.explanations["flawed"], unit.predictions["flawed"])
                        kind = "findable" if findable else "hidden"
                        for metric, value in values.items():
                            target = true[next((name for name in true if metric.endswith(name)), "Pearson")]
                            rows.append((kind, round(precision, 2), density, metric, value, target))
    return pd.DataFrame(rows, columns=["flaw", "precision", "density", "metric", "estimate", "population"])


def coverage(units: list[tuple[World, SyntheticUnit]], runs: int, rng: np.random.Generator) -> pd.DataFrame:
    """Whether the intervals of the `population` protocol hold the value over all anchors, run by run."""
    estimators = {"Pearson": estimation.pearson, "AUPRC": estimation.auprc}
    rows = []
    cases = [(world, unit, flaw) for world, unit in units for flaw in unit.predictions]
    known = {}
    for run in range(runs):
        world, unit, flaw = cases[run % len(cases)]
        prediction = unit.predictions[flaw]
        if run % len(cases) not in known:
            known[run % len(cases)] = census(unit, prediction)
        at, sample = sampled(world, unit, unit.explanations[flaw], rng)
        resampled = estimation.calibrated(sample, estimation.replicates(sample, rng))
        for name, estimator in estimators.items():
            true = known[run % len(cases)][f"census {name}"]
            found = estimation.interval(sample, prediction[at], estimator, resampled, rng, 9)
            inside = found.low - 1e-9 <= true <= found.high + 1e-9
            seen = found.low_seen - 1e-9 <= true <= found.high + 1e-9
            side = "below" if true < found.low - 1e-9 else "above" if true > found.high + 1e-9 else ""
            kind = f"flawed, {unit.rule.split()[-1]}" if flaw == "flawed" else flaw
            rows.append((unit.rule.split()[0], kind, name, true, inside, seen, side, found.high - found.low, found.high - found.low_seen))
    columns = ["rule", "flaw", "metric", "population", "inside", "inside_seen", "side", "width", "width_seen"]
    return pd.DataFrame(rows, columns=columns)


if __name__ == "__main__":
    started = time.monotonic()
    rng = np.random.default_rng(0)
    import sys
    world = zipf_world(4000, 0) if "z" in sys.argv else corpus_world(2_200_000, 0)
    print(world.n, time.monotonic() - started)
    units = [(world, make_unit(world, rule, rng)) for rule in RULES for _ in range(2)]
    print([(u.rule, round(u.fires.mean(), 6)) for _, u in units])
    t = label_tests(units, rng)
    print(t.groupby(["metric", "flaw"], sort=False)["falls"].mean().unstack().round(2)); print(time.monotonic() - started)
    r = ranking({world: [u for _, u in units]}, rng); print(meta_auprc(r).round(3)); print(time.monotonic() - started)
    c = coverage(units, 300, rng)
    print(c.groupby(["metric", "flaw"])[["inside", "inside_seen", "width", "width_seen"]].mean().round(3)); print(time.monotonic() - started)
    print(c[c.metric=='Pearson'].groupby(["rule", "flaw"])[["population","inside", "inside_seen", "width", "width_seen"]].mean().round(3)); print(time.monotonic() - started)
