"""Figures, each as PNG and SVG with the CSV of what it shows beside it."""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from autointerp.compare import ArmSummary, Comparison, counted_prefix, has_intervals
from autointerp.records.outcome import ArmInfo, Outcome
from autointerp.records.trial import Measure, Score
from autointerp.records.unit import N_INTERVALS
from autointerp.statistics import Estimate

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "autointerp",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
_COLOURS = {"features": "#0072B2", "neurons": "#D55E00", "neurons-matched": "#009E73", "random": "#777777"}
_MORE_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255", "#999933", "#000000")
"""The palettes of Okabe and Ito and of Tol, told apart by colour-blind readers."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_BIN = 0.05
_FEW = 3
"""Arms up to which histograms may lie over each other."""
_FEWEST_PER_DECADE = 5
_DPI = 160
_LINE = 0.22
"""Inches of a legend's line."""
_LABEL = 28
"""Characters of an arm's label."""

Row: TypeAlias = tuple[str | int | float | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Series:
    """One arm, as every figure draws it."""

    label: str
    colour: str
    marker: str
    summary: ArmSummary
    units: list[Outcome]
    """Counted units."""
    scored: list[Outcome]
    """Those with a headline score."""
    scores: Float[np.ndarray, " scored"]
    densities: Float[np.ndarray, " scored"]
    floor: Float[np.ndarray, " unit"]
    """Score of `unigram`, where it is defined."""

    @property
    def name(self) -> str:
        return f"{shown(self.label)} (n = {len(self.scored):,})"


def write_plots(folder: Path, outcomes: Sequence[Outcome], comparison: Comparison) -> list[Path]:
    """Draw all figures of the counted units into `folder`; each file appears whole.

    The same outcomes give the same bytes with the same matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arms = _series(outcomes, comparison)
    draw: dict[str, Callable[[list[_Series], str], tuple[Figure, Sequence[Row]]]] = {
        "score_distribution": _score_distribution,
        "score_by_interval": _score_by_interval,
        "score_by_density": _score_by_density,
        "density_histogram": _density_histogram,
    }
    if not has_intervals(comparison):
        del draw["score_by_interval"]
    written: list[Path] = []
    with mpl.rc_context(STYLE):
        for name, drawn in draw.items():
            figure, rows = drawn(arms, comparison.headline)
            written += save(folder / name, figure, rows)
    return written


def _series(outcomes: Sequence[Outcome], comparison: Comparison) -> list[_Series]:
    counted = counted_prefix(outcomes)
    palette = colours([arm.info for arm in comparison.arms])
    headline = comparison.headline
    series: list[_Series] = []
    for arm, colour, marker in zip(comparison.arms, palette, _MARKERS * len(palette), strict=False):
        units = [outcome for outcome in counted if outcome.unit.arm == arm.info.label]
        scored = [outcome for outcome in units if _value(outcome, headline) is not None]
        floor = [value for outcome in units if (value := _value(outcome, f"unigram_{headline}")) is not None]
        series.append(
            _Series(
                arm.info.label,
                colour,
                marker,
                arm,
                units,
                scored,
                np.array([_value(outcome, headline) for outcome in scored], dtype=np.float64),
                np.array([outcome.statistics.density_explain for outcome in scored], dtype=np.float64),
                np.array(floor, dtype=np.float64),
            )
        )
    return series


def colours(arms: Sequence[ArmInfo]) -> list[str]:
    """One colour per arm, by its kind, so that the same kind looks the same in every run."""
    kinds = {arm.kind for arm in arms}
    spare = [*_MORE_COLOURS, *(colour for kind, colour in _COLOURS.items() if kind not in kinds)] * len(arms)
    free = dict(_COLOURS)
    return [free.pop(arm.kind, None) or spare.pop(0) for arm in arms]


def shown(label: str) -> str:
    """An arm's label as a figure has room for it: the end of a long path says which it is."""
    return label if len(label) <= _LABEL else f"…{label[1 - _LABEL :]}"


def _value(outcome: Outcome, measure: str) -> float | None:
    found = outcome.result.measures.get(measure) if isinstance(outcome.result, Score) else None
    return found.value if isinstance(found, Measure) else None


def _axis_name(headline: str) -> str:
    name = headline.replace("_", " ")
    return f"score: {name.capitalize()} correlation" if headline in ("spearman", "pearson") else f"score: {name}"


def _score_distribution(arms: list[_Series], headline: str) -> tuple[Figure, Sequence[Row]]:
    drawn = [arm for arm in arms if len(arm.scores)]
    few = len(drawn) <= _FEW
    figure = Figure(figsize=(9, 3.8 if few else 2.8 + 0.25 * len(drawn)), layout="constrained")
    left, cumulative = figure.subplots(1, 2)
    low = min([0.0, *(float(arm.scores.min()) for arm in drawn)])
    edges = np.arange(np.floor(low / _BIN), round(1 / _BIN) + 1) * _BIN
    if few:
        _histograms(left, drawn, edges)
    else:
        _quantiles(left, drawn)
    for arm in drawn:
        cumulative.ecdf(arm.scores, color=arm.colour, linewidth=1.8, label=arm.name)
        if len(arm.floor) and few:
            unigram = f"{shown(arm.label)}, unigram"
            cumulative.ecdf(arm.floor, color=arm.colour, linewidth=1.2, linestyle="--", label=unigram)
    cumulative.set(title="Cumulative distribution", ylabel="share of units up to the score", ylim=(0, 1))
    cumulative.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (left, cumulative):
        axes.set(xlabel=_axis_name(headline), xlim=(edges[0], 1))
    _legend(figure, cumulative)
    rows = [
        (arm.label, each.unit.index, each.unit.name, _value(each, headline), _value(each, f"unigram_{headline}"))
        for arm in arms
        for each in arm.scored
    ]
    return figure, [("arm", "index", "name", headline, f"unigram_{headline}"), *rows]


def _histograms(axes: Axes, arms: list[_Series], edges: np.ndarray) -> None:
    """Over each other: legible for few arms."""
    for arm in arms:
        weights = np.full(len(arm.scores), 1 / len(arm.scores))
        axes.hist(arm.scores, edges.tolist(), weights=weights, color=arm.colour, alpha=0.3)
        axes.hist(arm.scores, edges.tolist(), weights=weights, color=arm.colour, histtype="step", linewidth=1.4)
        axes.axvline(float(np.median(arm.scores)), color=arm.colour, linewidth=1.4, linestyle=":")
    axes.set(title="Distribution of scores (dotted: medians)", ylabel=f"share of units per {_BIN:g}")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _quantiles(axes: Axes, arms: list[_Series]) -> None:
    """One row per arm, the first on top: nine tenths of the units, half of them, their median, that of `unigram`."""
    places = np.arange(len(arms))[::-1]
    for place, arm in zip(places, arms, strict=True):
        ends = np.quantile(arm.scores, [0.05, 0.25, 0.5, 0.75, 0.95])
        axes.plot(ends[[0, 4]], [place, place], color=arm.colour, linewidth=1.2)
        axes.plot(ends[[1, 3]], [place, place], color=arm.colour, linewidth=6, alpha=0.45, solid_capstyle="butt")
        axes.plot(ends[2], place, color=arm.colour, marker=arm.marker, markersize=6)
        if len(arm.floor):
            axes.plot(np.median(arm.floor), place, color="#444444", marker="|", markersize=12, markeredgewidth=1.6)
    axes.set_yticks(places, [shown(arm.label) for arm in arms])
    axes.set_title("Medians, halves, nine tenths (bar: unigram)")


def _score_by_interval(arms: list[_Series], headline: str) -> tuple[Figure, Sequence[Row]]:
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    rows: list[Row] = [("arm", "interval", "n", "mean", "low", "high")]
    for place, arm in enumerate(arms):
        points = [(i, each) for i, each in enumerate(arm.summary.intervals, start=1)]
        found = [(i, each.n, each.mean) for i, each in points if isinstance(each.mean, Estimate)]
        rows += [(arm.label, i, n, mean.value, mean.low, mean.high) for i, n, mean in found]
        at = np.array([i for i, _, _ in found]) + min(0.12, 0.7 / len(arms)) * (place - (len(arms) - 1) / 2)
        values = np.array([mean.value for _, _, mean in found])
        ends = np.array([(mean.value - mean.low, mean.high - mean.value) for _, _, mean in found]).reshape(-1, 2).T
        style: dict[str, Any] = {"color": arm.colour, "marker": arm.marker, "markersize": 5}
        counts = [n for _, n, _ in found]
        label = f"{shown(arm.label)} ({min(counts):,} to {max(counts):,})" if counts else shown(arm.label)
        axes.errorbar(at, values, yerr=ends, label=label, linewidth=1.2, capsize=2.5, **style)
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set_xticks(range(1, N_INTERVALS + 1))
    axes.set(title="Score within each activation interval", xlabel="activation interval (1: weakest, 12: strongest)")
    axes.set_ylabel(f"mean {_axis_name(headline)}\nwith 95 % interval over units")
    _legend(figure, axes, "units in an interval")
    return figure, rows


def _score_by_density(arms: list[_Series], headline: str) -> tuple[Figure, Sequence[Row]]:
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    for arm in arms:
        alpha = float(np.clip(150 / max(len(arm.scores), 1), 0.15, 0.6))
        dots: dict[str, Any] = {"s": 7, "alpha": alpha, "linewidths": 0, "rasterized": True}
        fires = arm.densities > 0
        axes.scatter(arm.densities[fires], arm.scores[fires], color=arm.colour, marker=arm.marker, **dots)
    for arm in arms:
        centres, medians = _decade_medians(arm.densities, arm.scores)
        outline: dict[str, Any] = {"markersize": 9, "markeredgecolor": "white", "markeredgewidth": 1.2, "linewidth": 2}
        axes.plot(centres, medians, color=arm.colour, marker=arm.marker, label=arm.name, **outline)
    axes.set(title="Score against density (large marks: median per decade)", ylabel=_axis_name(headline))
    axes.set_xlabel("density: share of tokens on which the unit fires")
    _legend(figure, axes)
    rows = [
        (arm.label, each.unit.index, each.unit.name, each.statistics.density_explain, _value(each, headline))
        for arm in arms
        for each in arm.scored
    ]
    return figure, [("arm", "index", "name", "density", headline), *rows]


def _decade_medians(densities: np.ndarray, scores: np.ndarray) -> tuple[list[float], list[float]]:
    """Median density and median score of the units of each decade of density that has enough of them."""
    densities, scores = densities[densities > 0], scores[densities > 0]
    decades = np.floor(np.log10(densities))
    inside = [decades == decade for decade in np.unique(decades)]
    enough = [chosen for chosen in inside if chosen.sum() >= _FEWEST_PER_DECADE]
    return [float(np.median(densities[each])) for each in enough], [float(np.median(scores[each])) for each in enough]


def _density_histogram(arms: list[_Series], headline: str) -> tuple[Figure, Sequence[Row]]:
    del headline  # drawn for every unit that fires, scored or not
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    densities = {arm.label: np.array([each.statistics.density_explain for each in arm.units]) for arm in arms}
    alive = {label: values[values > 0] for label, values in densities.items()}
    lowest = min([0.1, *(float(values.min()) for values in alive.values() if len(values))])
    exponents = np.arange(np.floor(4 * np.log10(lowest)), 1) / 4
    edges = 10**exponents
    rows: list[Row] = [("arm", "density_low", "density_high", "units")]
    for arm in arms:
        values = alive[arm.label]
        counts, _ = np.histogram(values, edges)
        rows += [(arm.label, *map(float, span), int(n)) for *span, n in zip(edges, edges[1:], counts, strict=False)]
        share = counts / max(len(values), 1)
        silent = len(densities[arm.label]) - len(values)
        label = f"{shown(arm.label)} (n = {len(values):,}; {silent:,} never fire)"
        axes.stairs(share, edges, color=arm.colour, fill=True, alpha=0.3)
        axes.stairs(share, edges, color=arm.colour, linewidth=1.4, label=label)
    axes.set(title="Density of the units that fire", xlabel="density: share of tokens on which the unit fires")
    axes.set_ylabel("share of units per quarter decade")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _legend(figure, axes)
    return figure, rows


def _legend(figure: Figure, axes: Axes, title: str = "") -> None:
    """One legend below the figure, in as many columns as its width holds; the figure grows with its lines."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        column_inches = 0.6 + 0.08 * max(map(len, labels))
        columns = max(1, int(figure.get_figwidth() / column_inches))
        figure.set_figheight(figure.get_figheight() + _LINE * max(0, -(-len(labels) // columns) - 2))
        place: dict[str, Any] = {"loc": "outside lower center", "ncols": min(len(labels), columns)}
        figure.legend(handles, labels, title=title or None, **place)


def save(path: Path, figure: Figure, rows: Sequence[Row]) -> list[Path]:
    targets = [path.with_suffix(suffix) for suffix in (".png", ".svg", ".csv")]
    png, svg, table = (target.with_name(target.name + ".tmp") for target in targets)
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    figure.savefig(svg, format="svg", dpi=_DPI, metadata={"Date": None, "Creator": None})
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    for temporary, target in zip((png, svg, table), targets, strict=True):
        os.replace(temporary, target)  # noqa: PTH105
    return targets
