"""The validity tables and figures, from the rows that were measured."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NAME = "metric_validity"
_OURS = ("population Pearson", "population AUPRC", "population F1")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")


def write(out: Path, found: dict[str, pd.DataFrame], meta: pd.Series, sizes: object, seconds: float) -> str:
    """Write `metric_validity.md`, its CSV files and its figures into `out`; the text of the tables."""
    out.mkdir(parents=True, exist_ok=True)
    tables = {
        "validity": validity(found["labels"], meta),
        "density": density(found["density"]),
        "coverage": covered(found["coverage"]),
        "type_one": found["type one"],
        "power": found["power"],
    }
    for name, table in tables.items():
        table.to_csv(out / f"{NAME}_{name}.csv", index=False, float_format="%.5g", lineterminator="\n")
    said = {
        "validity": "Share of units whose score falls when half of the predicted anchors are silenced (missing), or as "
        "many more are predicted: on a dozen other tokens that the explanation names (extra named), on many of "
        "which it names a dozen (extra partly named), or anywhere (extra hidden). `meta-AUPRC`: average "
        "precision of telling true from false explanations by their score. `census` is "
        "computed over every anchor: what the metric is worth where sampling plays no part.",
        "density": "The same flawed explanation (precision 1/6 or 1/2, full recall) at every density: bias against the "
        "value over all anchors. `findable`: false predictions on the explanation's own words; `hidden`: anywhere.",
        "coverage": "Share of runs whose 95 % interval holds the value over all anchors; `seen` is that without "
        "the allowance for false predictions where none was drawn. `below`, `above`: where the truth lay otherwise.",
        "type_one": "Two arms of 100 units drawn from the same scores: share of runs that call them different at 5 %.",
        "power": "Smallest difference of mean population Pearson seen in 80 % of runs at 5 %, and what both arms cost.",
    }
    parts = [f"# Validity of metrics on synthetic truth\n\n{sizes}; {seconds:.0f} s."]
    shown = {**tables, "density": across(tables["density"])}
    parts += [f"## {name}\n\n{said[name]}\n\n{markdown(table)}" for name, table in shown.items()]
    text = "\n\n".join(parts) + "\n"
    (out / f"{NAME}.md").write_text(text, encoding="utf-8")
    with mpl.rc_context({"svg.hashsalt": NAME, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        _draw(out, tables)
    return text


def validity(labels: pd.DataFrame, meta: pd.Series) -> pd.DataFrame:
    """Pass rates of the label tests by metric and flaw, with the ranking beside them."""
    rates = labels.groupby(["metric", "flaw"], sort=False)["falls"].mean().unstack(sort=False)
    rates["units"] = labels.groupby(["metric", "flaw"], sort=False).size().unstack(sort=False).iloc[:, 0]
    rates["meta-AUPRC"] = meta.reindex(rates.index)
    return rates.reset_index().rename_axis(columns=None)


def density(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean estimate less the mean over all anchors, by flaw, precision, density and metric."""
    rows = rows.assign(bias=rows["estimate"] - rows["population"])
    parts = rows.groupby(["flaw", "precision", "metric", "density"], sort=False)
    table = parts.agg(
        n=("bias", "size"), population=("population", "mean"), estimate=("estimate", "mean"), bias=("bias", "mean")
    )
    table["standard error"] = parts["bias"].sem()
    return table.reset_index()


def across(table: pd.DataFrame) -> pd.DataFrame:
    """Bias by density, one line per flaw, precision and metric."""
    wide = table.pivot_table("bias", ["flaw", "precision", "metric"], "density", sort=False)
    return wide.rename(columns="{:g}".format).reset_index().rename_axis(columns=None)


def covered(rows: pd.DataFrame) -> pd.DataFrame:
    """Coverage by metric and flaw, and over all runs whose flaws a sample can see."""
    visible = rows[rows["flaw"] != "extra hidden"].assign(flaw="all but extra hidden")
    hit = pd.concat([rows, visible]).assign(below=lambda r: r["side"] == "below", above=lambda r: r["side"] == "above")
    parts = hit.groupby(["metric", "flaw"], sort=False)
    table = parts[["inside", "inside_seen", "below", "above", "width", "width_seen"]].mean()
    table.insert(0, "runs", parts.size())
    return table.reset_index()


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, numbers to three digits."""

    def cell(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def _draw(out: Path, tables: dict[str, pd.DataFrame]) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _labels(left, tables["validity"])
    _density(right, tables["density"])
    for suffix in ("png", "svg"):
        figure.savefig(out / f"{NAME}.{suffix}", dpi=150, metadata={"Date": None} if suffix == "svg" else None)


def _labels(axes: Axes, table: pd.DataFrame) -> None:
    place = np.arange(len(table))
    flaws = [flaw for flaw in ("missing", "extra named", "extra partly named", "extra hidden") if flaw in table]
    for i, flaw in enumerate(flaws):
        axes.barh(place + (i - 1.5) * 0.2, table[flaw], height=0.19, label=flaw, color=_COLOURS[i])
    axes.set_yticks(place, table["metric"])
    axes.invert_yaxis()
    axes.axvline(0.95, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("share of units whose score falls")
    axes.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.4, 1.12), ncols=4)


def _density(axes: Axes, table: pd.DataFrame) -> None:
    lowest = table[table["precision"] == table["precision"].min()]
    shown = ("population Pearson", "monosemanticity Spearman", "monosemanticity Pearson", "top-and-random correlation")
    for i, metric in enumerate(shown):
        for flaw, style in (("findable", "-o"), ("hidden", ":s")):
            part = lowest[(lowest["metric"] == metric) & (lowest["flaw"] == flaw)]
            axes.plot(part["density"], part["bias"], style, color=_COLOURS[i], label=f"{metric}, {flaw}", markersize=3)
    axes.axhspan(-0.05, 0.05, color="#eeeeee", zorder=0)
    axes.set_xscale("log")
    axes.set_xlabel("density")
    axes.set_ylabel("bias against the value over all anchors")
    axes.legend(frameon=False, fontsize=6, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2)
