"""Every metric as a run computes it: from the sample of its protocol, not from the population."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from autointerp import estimation, statistics
from autointerp.proposal import Proposal, propose
from autointerp.records.anchors import AnchorSample, Totals
from autointerp.scorers.population import ALLOCATION, Allocation
from benchmarks.validity_world import WIDTH, SyntheticUnit, World

HEADLINE = "population Pearson"
INTERVALS = 12


@dataclass(frozen=True, eq=False)
class Excerpts:
    """Windows of one protocol's sample: anchors of each, as rows of the world's anchors."""

    at: np.ndarray
    """Of shape (excerpt, token)."""
    weights: np.ndarray
    """Importance of each excerpt, shape (excerpt)."""
    active: np.ndarray
    """Whether the excerpt was drawn because it is active, shape (excerpt)."""


def around(world: World, anchors: np.ndarray, width: int) -> np.ndarray:
    """The `width` anchors around each, shifted where they would leave the window; shape (anchor, width)."""
    window = world.index.window[anchors]
    ends = world.ends[window]
    begin = np.clip(anchors - width // 2, ends - world.lengths[window], np.maximum(ends - width, 0))
    return begin[:, None] + np.arange(width)


def monosemanticity(world: World, unit: SyntheticUnit, rng: np.random.Generator) -> Excerpts:
    """6 top, 2 of each of 12 intervals, 10 random, 20 of the top tokens elsewhere (Bricken et al. 2023)."""
    firing = np.flatnonzero(unit.fires)
    order = firing[np.argsort(-unit.truth[firing], kind="stable")]
    maximum = unit.truth.max()
    interval = np.minimum(np.ceil(INTERVALS * unit.truth[firing] / maximum), INTERVALS)
    parts, weights = [order[:6]], [np.full(min(6, len(order)), (interval == INTERVALS).sum() / world.n)]
    for i in range(1, INTERVALS + 1):
        here = firing[interval == i]
        parts.append(rng.permutation(here)[:2])
        weights.append(np.full(len(parts[-1]), len(here) / world.n))
    parts.append(rng.integers(world.n, size=10))
    weights.append(np.ones(10))
    top = list(dict.fromkeys(world.token[order[:200]].tolist()))[:10]
    elsewhere = np.flatnonzero(np.isin(world.token, top))
    parts.append(rng.permutation(elsewhere)[:20])
    weights.append(np.full(len(parts[-1]), weights[0][0] if len(weights[0]) else 0.0))
    anchors, weight = np.concatenate(parts), np.maximum(np.concatenate(weights), 1 / world.n)
    return Excerpts(around(world, anchors, WIDTH), weight, np.zeros(len(anchors), dtype=np.bool_))


def top_and_random(world: World, unit: SyntheticUnit, rng: np.random.Generator) -> Excerpts:
    """5 of the 20 highest fragments of 64 tokens and 5 random ones (Bills et al. 2023)."""
    width = min(64, int(world.lengths.min()))
    firing = np.flatnonzero(unit.fires)
    order = firing[np.argsort(-unit.truth[firing], kind="stable")]
    _, first = np.unique(world.index.window[order], return_index=True)
    top = order[np.sort(first)[:20]][::4][:5]
    anchors = np.concatenate([top, rng.integers(world.n, size=5)])
    return Excerpts(around(world, anchors, width), np.ones(len(anchors)), np.arange(len(anchors)) < len(top))


def balanced(world: World, unit: SyntheticUnit, rng: np.random.Generator, each: int = 50) -> Excerpts:
    """50 active contexts of 32 tokens, by deciles of activation, and 50 random ones without a firing."""
    width = min(32, int(world.lengths.min()))
    firing = np.flatnonzero(unit.fires)
    order = firing[np.argsort(unit.truth[firing], kind="stable")]
    active = np.concatenate([rng.permutation(part)[: each // 10] for part in np.array_split(order, 10) if len(part)])
    places = around(world, rng.integers(world.n, size=20 * each), width)
    silent = places[~unit.fires[places].any(axis=1)][:each]
    at = np.concatenate([around(world, active, width), silent])
    return Excerpts(at, np.ones(len(at)), np.arange(len(at)) < len(active))


@dataclass(frozen=True, eq=False)
class Design:
    """The strata of the `population` protocol for one explanation, as its scorer makes them: to draw from again."""

    world: World
    """The text."""
    unit: SyntheticUnit
    """What is sampled."""
    firing: tuple[np.ndarray, ...]
    """Firing anchors of each stratum, the highest first."""
    wanted: tuple[int, ...]
    """Draws of each."""
    proposal: Proposal
    """Where false predictions are sought."""
    sought: tuple[int, ...]
    """Draws of each of its strata."""

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, AnchorSample]:
        """Anchors, and the sample that they are."""
        pairs = zip(self.firing, self.wanted, strict=True)
        parts = [rng.choice(part, size=n, replace=False) if n < len(part) else part for part, n in pairs]
        for h, n in enumerate(self.sought):
            drawn = self.proposal.draw(h, n, rng)
            parts.append(drawn[~self.unit.fires[drawn]])
        at = np.concatenate(parts)
        truth = self.unit.truth
        totals = Totals(self.world.n, int(self.unit.fires.sum()), float(truth.sum()), float((truth**2).sum()))
        strata = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        size = np.array([*map(len, self.firing), *self.proposal.sizes.tolist()], dtype=float)
        taken = np.array([*self.wanted, *self.sought], dtype=float)
        return at, AnchorSample(strata, self.world.cluster[at], truth[at], self.unit.fires[at], size, taken, totals)


def design(world: World, unit: SyntheticUnit, explanation: str, sizes: Allocation = ALLOCATION) -> Design:
    """Strata and draws for an explanation of the unit."""
    firing = np.flatnonzero(unit.fires)
    order = firing[np.argsort(-unit.truth[firing], kind="stable")]
    top, rest = order[: sizes.top], order[sizes.top :]
    stratum = np.minimum(np.ceil(sizes.strata * unit.truth[rest] / max(unit.truth.max(), 1e-300)), sizes.strata) - 1
    counts = np.bincount(stratum.astype(np.int64), minlength=sizes.strata)
    squares = np.bincount(stratum.astype(np.int64), unit.truth[rest] ** 2, minlength=sizes.strata)
    wanted = estimation.allocate(counts, np.sqrt(counts * squares), sizes.firing - len(top), sizes.fewest)
    proposal = propose(
        explanation, unit.unigram, world.index, len(firing), strata=sizes.proposed, uniform=sizes.uniform
    )
    sought = estimation.allocate(proposal.sizes, proposal.measure, sizes.silent, sizes.fewest)
    parts = (top, *(rest[stratum == h] for h in range(sizes.strata)))
    return Design(world, unit, parts, (len(top), *wanted.tolist()), proposal, tuple(sought.tolist()))


def scaled(sizes: Allocation, factor: float) -> Allocation:
    """The same allocation with another number of excerpts; fewer strata where there are few."""
    few = factor < 0.5
    return replace(
        sizes,
        top=round(sizes.top * factor),
        firing=round(sizes.firing * factor),
        silent=round(sizes.silent * factor),
        strata=3 if few else sizes.strata,
        proposed=2 if few else sizes.proposed,
        fewest=3 if few else sizes.fewest,
    )


def average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Average precision, ties taken together."""
    if not truth.any():
        return 0.0
    levels, place = np.unique(score, return_inverse=True)
    right = np.cumsum(np.bincount(place, truth, len(levels))[::-1])
    both = np.cumsum(np.bincount(place, minlength=len(levels))[::-1])
    return float((np.diff(right / truth.sum(), prepend=0.0) * right / both).sum())


def _correlation(truth: np.ndarray, prediction: np.ndarray) -> float:
    return statistics.pearson(truth, prediction) or 0.0


def _classification(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Balanced accuracy and F1."""
    right, wrong = (truth & predicted).sum(), (~truth & predicted).sum()
    recall, specificity = right / max(truth.sum(), 1), 1 - wrong / max((~truth).sum(), 1)
    return float((recall + specificity) / 2), float(2 * right / max(right + wrong + truth.sum(), 1))


Score: TypeAlias = Callable[[str, np.ndarray], Mapping[str, float]]
"""Scores of an explanation by metric, from its text and its predictions at every anchor."""


def scorer(world: World, unit: SyntheticUnit, rng: np.random.Generator) -> Score:
    """Scores of an explanation of the unit under every metric; samples that do not depend on it are drawn once."""
    mono, bills, contexts = (draw(world, unit, rng) for draw in (monosemanticity, top_and_random, balanced))
    noise = rng.random(contexts.at.shape)
    marked_right, marked_wrong = (_marked(unit, contexts, noise, fires=fires) for fires in (True, False))

    def score(text: str, prediction: np.ndarray) -> Mapping[str, float]:
        truth, levels = unit.truth[mono.at], prediction[mono.at]
        weights = np.broadcast_to(mono.weights[:, None], truth.shape)
        active = prediction[contexts.at].max(axis=1)
        accuracy, detected = _classification(contexts.active, active >= 1)
        pairs = np.concatenate([marked_right, marked_wrong])
        fuzzed, _ = _classification(np.arange(len(pairs)) < len(marked_right), prediction[pairs] >= 1)
        at, sample = design(world, unit, text).draw(rng)
        base = estimation.base_weights(sample)[None, :]
        ways = {
            "Pearson": (estimation.pearson, estimation.calibrated(sample, base)),
            "AUPRC": (estimation.auprc, base),
            "F1": (estimation.f1, base),
        }
        drawn = prediction[at].astype(np.float64)
        ours = {name: float(estimator(sample, weights, drawn)[0]) for name, (estimator, weights) in ways.items()}
        return {
            "monosemanticity Spearman": statistics.spearman(truth, levels) or 0.0,
            "monosemanticity Pearson": _correlation(truth, levels),
            "monosemanticity weighted Spearman": statistics.spearman(truth, levels, weights) or 0.0,
            "top-and-random correlation": _correlation(unit.truth[bills.at], prediction[bills.at]),
            "detection balanced accuracy": accuracy,
            "detection F1": detected,
            "detection AUPRC (balanced sample)": average_precision(contexts.active, active),
            "fuzzing balanced accuracy": fuzzed,
            **{f"population {name}": value for name, value in ours.items()},
        }

    return score


def census(unit: SyntheticUnit, prediction: np.ndarray) -> Mapping[str, float]:
    """The same of the whole population, which no run can afford; predictions are whole levels."""
    levels, fires = prediction.astype(np.int64), unit.fires
    both, right = np.bincount(levels), np.bincount(levels, fires, minlength=int(levels.max()) + 1)
    level_ranks = (np.cumsum(both) - both / 2)[levels]
    accuracy, f1 = _classification(fires, levels >= 1)
    found, predicted = np.cumsum(right[::-1]), np.cumsum(both[::-1])
    precise = np.diff(found, prepend=0.0) * found / np.maximum(predicted, 1)
    return {
        "census Spearman": _correlation(unit.ranks, level_ranks),
        "census Pearson": _correlation(unit.truth, levels.astype(np.float64)),
        "census AUPRC": float(precise.sum() / max(fires.sum(), 1)),
        "census balanced accuracy": accuracy,
        "census F1": f1,
    }


def _marked(unit: SyntheticUnit, contexts: Excerpts, noise: np.ndarray, *, fires: bool) -> np.ndarray:
    """One anchor of each active context that fires, or one that does not: what fuzzing marks rightly or wrongly."""
    chosen = unit.fires[contexts.at] == fires
    chosen[~contexts.active] = False
    rows = np.flatnonzero(chosen.any(axis=1))
    column = np.where(chosen, noise, -1).argmax(axis=1)
    return contexts.at[rows, column[rows]]
