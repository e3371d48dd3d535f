"""What commands print: a comparison, a cost estimate or a list of values, as a table, Markdown, JSON or CSV."""

import csv
import io
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, assert_never

from autointerp.compare import ArmSummary, Comparison
from autointerp.config import Format
from autointerp.contrast import Contrast
from autointerp.llm.estimate import Estimate as CostEstimate
from autointerp.llm.ledger import LedgerRow
from autointerp.llm.tables import Budget
from autointerp.matching import Matched
from autointerp.records.trial import Undefined
from autointerp.report.grid import Grid, as_markdown, as_table
from autointerp.report.grids import grids
from autointerp.report.measured import WORDS
from autointerp.report.verdict import verdict
from autointerp.statistics import Estimate

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_CSV_COLUMNS = ("table", "arm", "baseline", "measure", "statistic", "n", "n_baseline", "value", "low", "high", "reason")
_NANO = 1e9
"""Nano-dollars per dollar."""


def render(comparisons: Mapping[str, Comparison], output: Format, width: int = 120) -> str:
    """Each protocol's comparison for standard output; `width` is the number of characters per line of a ``table``.

    In a table the headline protocol, the verdict and the differences come last, because a terminal shows the end.
    """
    match output:
        case "table":
            parts = [_as_text(name, each, width) for name, each in comparisons.items()]
            return "\n\n".join(reversed(parts))
        case "md":
            return "\n\n".join(_as_page(name, each) for name, each in comparisons.items())
        case "json":
            return as_json(comparisons)
        case "csv":
            rows = (
                [name, *(row.get(column, "") for column in _CSV_COLUMNS)]
                for name, each in comparisons.items()
                for row in _csv_rows(each)
            )
            return _as_csv(("protocol", *_CSV_COLUMNS), rows)
        case _:
            assert_never(output)


def _as_text(protocol: str, comparison: Comparison, width: int) -> str:
    lines = (textwrap.fill(line, width) for line in verdict(comparison).splitlines())
    return as_table(reversed(grids(comparison)), width) + f"\n{protocol}\n" + "\n".join(lines)


def _as_page(protocol: str, comparison: Comparison) -> str:
    said = verdict(comparison).replace("\n", "\n\n")
    return "\n\n".join([f"# Comparison under {protocol}", said, *map(as_markdown, grids(comparison))])


def render_estimate(
    rows: Sequence[CostEstimate], output: Format, width: int = 120, *, minutes: float | None = None
) -> str:
    """What a run will cost, by stage and model; money in dollars, as expected and at most (``csv``, ``json``: nano)."""
    match output:
        case "table" | "md":
            cells = [_estimate_cells(row) for row in rows]
            money = [sum(getattr(row, name) for row in rows) / _NANO for name in ("low", "expected", "upper")]
            total = f"Total ${money[1]:.2f} (${money[0]:.2f} with prompt caching, at most ${money[2]:.2f})."
            columns = ("stage", "model", "calls", "stored", "input tokens", "output tokens", "expected", "at most")
            time = "" if minutes is None else f" At least {minutes:,.1f} minutes at the given limits."
            title = f"{total}{time} Nothing was sent." if rows else "No language model is asked: no calls, $0."
            grid = Grid(title, columns, tuple(cells))
            return as_table([grid], width).rstrip() if output == "table" else as_markdown(grid)
        case "json":
            return as_json(rows)
        case "csv":
            names = [field.name for field in fields(CostEstimate)]
            return _as_csv(names, ([getattr(row, name) for name in names] for row in rows))
        case _:
            assert_never(output)


def render_ledger(rows: Sequence[LedgerRow], budget: Budget | None, output: Format, width: int = 120) -> str:
    """What a run's calls cost, by stage, model and arm; money in dollars (``csv``, ``json``: nano)."""
    match output:
        case "table" | "md":
            columns = ("stage", "model", "arm", "answers", "stored", "attempts", "input", "cached", "output", "cost")
            grid = Grid(_spent(rows, budget), columns, tuple(map(_ledger_cells, rows)))
            failed = [(f"{row.stage} {row.arm}", kind, f"{n:,}") for row in rows for kind, n in row.failures.items()]
            failures = Grid("Calls without a readable answer", ("stage, arm", "kind", "calls"), tuple(failed))
            grids = [grid, failures] if failed else [grid]
            return as_table(grids, width).rstrip() if output == "table" else "\n\n".join(map(as_markdown, grids))
        case "json":
            return as_json({"budget": budget, "rows": rows})
        case "csv":
            names = [field.name for field in fields(LedgerRow)]
            return _as_csv(names, ([as_json(getattr(row, name)) for name in names] for row in rows))
        case _:
            assert_never(output)


def _spent(rows: Sequence[LedgerRow], budget: Budget | None) -> str:
    if budget is None:
        return "No language model was asked: no calls, $0."
    limit = "no limit" if budget.cap is None else f"limit ${budget.cap / _NANO:.2f}"
    answers = sum(row.calls for row in rows)
    each = f", ${sum(row.cost for row in rows) / _NANO / answers:.5f} an answer" if answers else ""
    return f"${budget.committed / _NANO:.4f} committed ({limit}){each}."


def _ledger_cells(row: LedgerRow) -> tuple[str, ...]:
    usage = row.usage
    counts = row.calls, row.cached, row.attempts, usage.input_tokens, usage.cache_read_tokens, usage.output_tokens
    return row.stage, row.model, row.arm, *(f"{count:,}" for count in counts), f"${row.cost / _NANO:.4f}"


def render_values(values: Mapping[str, object], output: Format, width: int = 120) -> str:
    """Named values, one per line; in words where people read them."""
    match output:
        case "table" | "md":
            shown = tuple((WORDS.get(name, name), _short(value)) for name, value in values.items())
            grid = Grid("Result", ("measure", "value"), shown)
            return as_table([grid], width).rstrip() if output == "table" else as_markdown(grid)
        case "json":
            return as_json(values)
        case "csv":
            return _as_csv(("name", "value"), values.items())
        case _:
            assert_never(output)


def render_columns(columns: Mapping[str, Mapping[str, object]], output: Format, width: int = 120) -> str:
    """Named values of several things, one column each; the names of the first are those of all."""
    names = list(next(iter(columns.values())))
    match output:
        case "table" | "md":
            rows = ((WORDS.get(name, name), *(_short(values[name]) for values in columns.values())) for name in names)
            grid = Grid("Result", ("measure", *columns), tuple(rows))
            return as_table([grid], width).rstrip() if output == "table" else as_markdown(grid)
        case "json":
            return as_json(columns)
        case "csv":
            rows = ((name, *(values[name] for values in columns.values())) for name in names)
            return _as_csv(("name", *columns), rows)
        case _:
            assert_never(output)


def _short(value: object) -> str:
    match value:
        case None:
            return "unknown"
        case float():
            return f"{value:.4g}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def as_json(value: object) -> str:
    """`plain` as indented text."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def plain(value: object) -> Any:
    """`value` in JSON's own types at full precision; an `Undefined` is a null value with its reason."""
    if isinstance(value, Undefined):
        return {"value": None, "reason": value.reason}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_fields(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    if isinstance(value, Sequence):
        return [plain(each) for each in value]
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _plain_fields(value: "DataclassInstance") -> dict[str, Any]:
    return {field.name: plain(getattr(value, field.name)) for field in fields(value)}


def _estimate_cells(row: CostEstimate) -> tuple[str, ...]:
    tokens = f"{row.input_expected:,}", f"{row.output_expected:,}"
    money = f"${row.expected / _NANO:.2f}", f"${row.upper / _NANO:.2f}"
    return row.stage, row.model, f"{row.calls:,}", f"{row.cached:,}", *tokens, *money


def _as_csv(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def _csv_rows(comparison: Comparison) -> Iterator[dict[str, object]]:
    for arm in comparison.arms:
        yield from _csv_arm(arm)
    for contrast in comparison.contrasts:
        where = {"arm": comparison.reference, "baseline": contrast.baseline}
        for measure, difference in contrast.differences.items():
            row = {**where, "table": "differences", "measure": measure}
            row |= {"n": difference.n[0], "n_baseline": difference.n[1]}
            for name in ("median", "mean", "superior"):
                yield {**row, "statistic": name, **_csv_value(getattr(difference, name))}
            for name in ("u", "p", "effect"):
                test = difference.test
                value = test if isinstance(test, Undefined) else float(getattr(test, name))
                yield {**row, "statistic": name, **_csv_value(value)}
        yield from _csv_alike(comparison.headline, contrast, where)
        if not isinstance(bounds := contrast.bounds, Undefined):
            row = {**where, "table": "bounds", "measure": comparison.headline, "statistic": "mean"}
            ends = {"low": bounds.low, "high": bounds.high}
            yield {**row, "n": bounds.missing[0], "n_baseline": bounds.missing[1], **ends}
        for i, mean in enumerate(contrast.intervals, start=1):
            row = {**where, "table": "difference by interval", "measure": f"interval_{i}"}
            yield {**row, "statistic": "mean", **_csv_value(mean)}


def _csv_alike(headline: str, contrast: Contrast, where: Mapping[str, object]) -> Iterator[dict[str, object]]:
    row: dict[str, object] = {**where, "table": "tests", "measure": headline}
    for name in ("p", "q", "detectable"):
        yield {**row, "statistic": name, **_csv_value(getattr(contrast, name))}
    row["statistic"] = "mean"
    for name in ("density", "evidence"):
        match getattr(contrast, name):
            case Matched(_, kept, _, mean):
                yield {**row, "table": f"equal {name}", "n": kept[0], "n_baseline": kept[1], **_csv_value(mean)}
            case undefined:
                yield {**row, "table": f"equal {name}", **_csv_value(undefined)}
    length = contrast.length
    yield {**row, "table": "equal length", **_csv_value(length if isinstance(length, Undefined) else length.mean)}


def _csv_arm(arm: ArmSummary) -> Iterator[dict[str, object]]:
    where, funnel = {"arm": arm.info.label}, arm.funnel
    counts = {"asked": funnel.asked, "counted": funnel.counted, **funnel.failed}
    for name, n in {**counts, "undefined": funnel.undefined, "scored": funnel.scored}.items():
        yield {**where, "table": "units", "statistic": name, "value": n}
    for name, share in (("constant_share", arm.constant_share), ("missing_share", arm.missing_share)):
        yield {**where, "table": "units", "statistic": name, **_csv_value(share)}
    for measure, averages in arm.measures.items():
        row = {**where, "table": "scores", "measure": measure, "n": averages.n}
        yield {**row, "statistic": "median", **_csv_value(averages.median)}
        yield {**row, "statistic": "mean", **_csv_value(averages.mean)}
        yield {**row, "statistic": "sd", **_csv_value(averages.sd)}
    for i, interval in enumerate(arm.intervals, start=1):
        row = {**where, "table": "intervals", "measure": f"interval_{i}", "n": interval.n}
        yield {**row, "statistic": "mean", **_csv_value(interval.mean)}


def _csv_value(value: Estimate | Undefined | float) -> dict[str, object]:
    match value:
        case Undefined(reason):
            return {"reason": reason}
        case Estimate(estimate, low, high):
            return {"value": estimate, "low": low, "high": high}
        case _:
            return {"value": value}
