"""The validity tables and figures, from the rows that were measured."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autointerp.power import detectable_difference

NAME = "metric_validity"
_OURS = ("population Pearson", "population AUPRC", "population F1")
_VISIBLE = "all but extra hidden"
_ROUNDING = 1e-9
_ARMS = (100, 250, 1000)
_EXPLANATION, _WINDOW = 0.00244, 0.00046 / 60
"""Dollars per explanation (claude-sonnet-5-5) and per simulated excerpt (gpt-6-luna), prefixes cached: cost.md."""
_SEEDS = (
    "The proposal and the intervals of `population` were chosen by looking at results of seeds 0 and 101, and at real "
    "units (`population_check`); under another seed the units, the text's splits and the samples are fresh."
)
_SAID = {
    "validity": "Share of units whose score falls when half of the predicted anchors are silenced (missing), or as "
    "many more are predicted: on a dozen other tokens that the explanation names (extra named), on many of "
    "which it names a dozen (extra partly named), or anywhere (extra hidden). `meta-AUPRC`: average "
    "precision of telling true from false explanations by their score. `census` is "
    "computed over every anchor: what the metric is worth where sampling plays no part.\n\n"
    "Hidden false predictions are missed by every sampled metric because neither the explanation nor the table of "
    "tokens says where they lie: a unit of density 1e-3 has as few as 1 in 1,000 anchors, and the some 20 "
    "draws that are uniform over all anchors meet one in 2 % of samples. Only the lower end of `population`'s interval "
    "allows for them.",
    "density": "The same flawed explanation (precision 1/6 or 1/2, full recall) at every density: bias against the "
    "value over all anchors. `findable`: false predictions on the explanation's own words; `hidden`: anywhere.",
    "coverage": "Share of samples whose 95 % interval holds the value over all anchors, with its standard error (the "
    "samples of a unit go together). `below`, `above`: where the truth lay otherwise. `bias`: of the estimate. "
    "`seen`: the interval without the allowance for false predictions where none was drawn: it can hold only where "
    "there are none.",
    "coverage_by_rule": "The same by the units' rule, without the hidden flaw.",
    "type_one": "Two arms of 100 units drawn from the same scores: share of runs that call them different at 5 %. "
    "The bootstrap has 400 resamples, the permutation test 499.",
    "power": "Smallest difference of mean population Pearson that two arms see in 80 % of runs at 5 %, and what both "
    "cost: units of every rule in equal numbers, with explanations that also name a dozen wrong tokens. "
    "`sd of scores`: over units, the error of an estimate included. Errors are standard errors over the units.",
}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")


def write(out: Path, found: dict[str, pd.DataFrame], meta: pd.Series, seed: int, how: str) -> str:
    """Write `metric_validity.md`, its CSV files and its figures into `out`; the text of the tables."""
    out.mkdir(parents=True, exist_ok=True)
    tables = {
        "validity": validity(found["labels"], meta),
        "density": density(found["density"]),
        "coverage": covered(found["coverage"], "flaw"),
        "coverage_by_rule": covered(found["coverage"], "rule"),
        "type_one": found["type one"],
        "power": power(found["power"]),
    }
    for name, table in tables.items():
        table.to_csv(out / f"{NAME}_{name}.csv", index=False, float_format="%.5g", lineterminator="\n")
    parts = [f"# Validity of metrics on synthetic truth\n\nSeed {seed}; {how}.\n\n{_SEEDS}"]
    shown = {**tables, "density": across(tables["density"])}
    parts += [f"## {name}\n\n{_SAID[name]}\n\n{markdown(table)}" for name, table in shown.items()]
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


def covered(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Coverage by metric and `by` (flaw or rule), and over all samples whose flaws one can see."""
    flawed = rows["flaw"] == "flawed"
    rows = rows.assign(flaw=rows["flaw"].mask(flawed, rows["rule"]), rule=rows["rule"].mask(flawed, "flawed"))
    visible = rows[rows["flaw"] != "extra hidden"]
    told = [rows if by == "flaw" else visible, visible.assign(**{by: _VISIBLE})]
    hit = pd.concat(told).assign(
        below=lambda r: r["population"] < r["low"] - _ROUNDING,
        above=lambda r: r["population"] > r["high"] + _ROUNDING,
        inside=lambda r: ~r["below"] & ~r["above"],
        inside_seen=lambda r: ~r["above"] & (r["population"] >= r["low_seen"] - _ROUNDING),
        width=lambda r: r["high"] - r["low"],
        width_seen=lambda r: r["high"] - r["low_seen"],
        bias=lambda r: r["value"] - r["population"],
    )
    parts = hit.groupby(["metric", by], sort=False)
    table = parts[["inside", "below", "above", "width", "bias", "inside_seen", "width_seen"]].mean()
    table.insert(0, "samples", parts.size())
    table.insert(2, "error", parts.apply(_error))
    return table.reset_index()


def _error(part: pd.DataFrame) -> float:
    """Standard error of the share inside: the samples of one unit go together."""
    sums = part.groupby("unit")["inside"].agg(["sum", "size"])
    off = sums["sum"] - part["inside"].mean() * sums["size"]
    return float(np.sqrt((off**2).sum()) / len(part))


def power(rows: pd.DataFrame) -> pd.DataFrame:
    """Detectable differences by excerpts and units per arm, with the error that comes from having so few units."""
    lines = []
    for excerpts, part in rows.groupby("excerpts"):
        wide = part.assign(draw=part.groupby("unit").cumcount()).pivot_table("estimate", "unit", "draw").to_numpy()
        noise, scatter = wide.var(axis=1, ddof=1), ((wide - wide.mean(axis=0)) ** 2).mean(axis=1)
        within, total, units = noise.mean(), scatter.sum() / (len(wide) - 1), np.sqrt(len(wide))
        line = [excerpts, np.sqrt(total), np.sqrt(within), noise.std(ddof=1) / units / (2 * np.sqrt(within))]
        for n in _ARMS:
            seen = detectable_difference(n, n, float(np.sqrt(total)), float(np.sqrt(total)))
            dollars = 2 * n * (_EXPLANATION + float(str(excerpts)) * _WINDOW)
            lines.append([*line, n, seen, seen * scatter.std(ddof=1) / units / (2 * total), dollars])
    columns = ["excerpts", "sd of scores", "sd of an estimate", "error of that", "units per arm"]
    return pd.DataFrame(lines, columns=[*columns, "detectable difference", "its error", "dollars"])


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
