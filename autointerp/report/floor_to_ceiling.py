"""The figure for a paper: every arm between its floor and the truth in levels, one panel per protocol."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autointerp.compare import ArmSummary, Comparison
from autointerp.counted import FLOOR, OF_CEILING
from autointerp.report.plots import STYLE, Row, colours, save, shown
from autointerp.statistics import Estimate

_ROW = 0.36
"""Inches per arm."""
_GREY = "#8c8c8c"
_HEAD: Row = ("protocol", "measure", "arm", "asked", "scored", "what", "n", "mean", "low", "high")


def write(folder: Path, comparisons: Mapping[str, Comparison]) -> list[Path]:
    """Draw the comparisons, by protocol, into `folder` with the rows that they show; each file appears whole.

    A row is an arm: its mean score with the two-way interval, between the mean floor and the mean truth in levels
    of the same units, and the mean of `unigram` on them. The number beside it is the median share of the way up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        arms = max((len(each.arms) for each in comparisons.values()), default=0)
        width = 1.8 + 3.9 * max(len(comparisons), 1)
        figure = Figure(figsize=(width, 1.7 + _ROW * arms), layout="constrained")
        panels = figure.subplots(1, max(len(comparisons), 1), squeeze=False)[0]
        for axes, (protocol, comparison) in zip(panels, comparisons.items(), strict=False):
            _panel(axes, protocol, comparison)
        figure.legend(handles=_key(), loc="outside lower center", ncols=5 if len(comparisons) > 1 else 2)
        rows = [row for protocol, comparison in comparisons.items() for row in _rows(protocol, comparison)]
        return save(folder / "floor_to_ceiling", figure, [_HEAD, *rows])


def _panel(axes: Axes, protocol: str, comparison: Comparison) -> None:
    headline, n = comparison.headline, len(comparison.arms)
    for place, (arm, colour) in enumerate(
        zip(comparison.arms, colours([arm.info for arm in comparison.arms]), strict=True)
    ):
        y = n - 1 - place
        floor, ceiling = (_mean(arm, name) for name in (FLOOR, f"quantised_oracle_{headline}"))
        if floor and ceiling:
            axes.plot(
                [floor.value, ceiling.value], [y, y], color="#dcdcdc", linewidth=7, solid_capstyle="butt", zorder=1
            )
        for end in (floor, ceiling):
            if end:
                axes.plot([end.low, end.high], [y, y], color=_GREY, linewidth=1.2, zorder=2)
                axes.plot(end.value, y, color=_GREY, marker="|", markersize=13, markeredgewidth=1.8, zorder=2)
        if unigram := _mean(arm, f"unigram_{headline}"):
            axes.plot(unigram.value, y, color="#444444", marker="x", markersize=6, markeredgewidth=1.4, zorder=3)
        if score := _mean(arm, headline):
            face = "white" if arm.info.kind == "control" else colour
            axes.plot([score.low, score.high], [y, y], color=colour, linewidth=2.2, zorder=4)
            axes.plot(score.value, y, color=colour, marker="o", markersize=7.5, markerfacecolor=face, zorder=5)
        if OF_CEILING in arm.measures and isinstance(share := arm.measures[OF_CEILING].median, Estimate):
            axes.annotate(f"{share.value:.0%}", (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    names = [f"{shown(arm.info.label)} ({arm.funnel.scored:,} of {arm.funnel.asked:,})" for arm in comparison.arms]
    axes.set_yticks(range(n), names[::-1])
    axes.set_ylim(-0.6, n - 0.4)
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_xlim(right=1.0)
    axes.set(title=protocol, xlabel=f"mean {headline.replace('_', ' ')} over units")


def _mean(arm: ArmSummary, measure: str) -> Estimate | None:
    found = arm.measures[measure].mean if measure in arm.measures else None
    return found if isinstance(found, Estimate) else None


def _key() -> list[Line2D]:
    """What the marks mean; the arms name themselves."""
    return [
        Line2D([], [], color="#0072B2", marker="o", markersize=7, linewidth=2.2, label="score, 95 % interval"),
        Line2D(
            [], [], color="#0072B2", marker="o", markersize=7, markerfacecolor="white", linewidth=0, label="control"
        ),
        Line2D(
            [],
            [],
            color=_GREY,
            marker="|",
            markersize=12,
            markeredgewidth=1.8,
            linewidth=0,
            label="floor, truth in levels",
        ),
        Line2D([], [], color="#444444", marker="x", markersize=6, linewidth=0, label="unigram"),
        Line2D([], [], linewidth=0, label="%: median share of the way up"),
    ]


def _rows(protocol: str, comparison: Comparison) -> Iterator[Row]:
    headline = comparison.headline
    names = {
        "score": headline,
        "floor": FLOOR,
        "unigram": f"unigram_{headline}",
        "bigram": f"bigram_{headline}",
        "ceiling": f"quantised_oracle_{headline}",
    }
    for arm in comparison.arms:
        for what, measure in names.items():
            if mean := _mean(arm, measure):
                n, funnel = arm.measures[measure].n, arm.funnel
                asked = funnel.asked, funnel.scored
                yield protocol, headline, arm.info.label, *asked, what, n, mean.value, mean.low, mean.high
