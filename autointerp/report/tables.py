"""The files of results: rows of every unit, and the comparison that anybody can compute from them again."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autointerp.compare import Comparison
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.outcome import ArmInfo, Outcome, OutcomeStatistics
from autointerp.records.trial import Influence, Measure, Score, Undefined
from autointerp.records.unit import Unit
from autointerp.report.render import as_json, plain, render
from autointerp.report.verdict import verdict
from sae.errors import UserError

SCORES, EXPLANATIONS, SUMMARY_JSON, SUMMARY_MD = "scores.parquet", "explanations.parquet", "summary.json", "summary.md"
_SCHEMA = 1
_METADATA = b"autointerp"
_UNIT = [
    *(("arm", pa.string()), ("index", pa.int32()), ("name", pa.string())),
    *(("order", pa.int32()), ("protocol", pa.string())),
]
_FAILURE = [("failure_stage", pa.string()), ("failure_kind", pa.string()), ("failure_message", pa.string())]
_SCORES = pa.schema([
    *_UNIT,
    ("measure", pa.string()),
    ("headline", pa.bool_()),
    ("value", pa.float64()),
    ("low", pa.float64()),
    ("high", pa.float64()),
    ("undefined_reason", pa.string()),
    ("density", pa.float64()),
    ("density_score", pa.float64()),
    ("maximum", pa.float64()),
    ("mean", pa.float64()),
    ("items", pa.int32()),
    ("missing", pa.int32()),
    ("constant", pa.bool_()),
    *_FAILURE,
    ("evidence", pa.int32()),
    ("overlap", pa.float64()),
    ("single_token", pa.bool_()),
    ("token_entropy", pa.float64()),
    ("clusters", pa.list_(pa.int32())),
    ("influence", pa.list_(pa.float16())),
])  # fmt: skip
"""One row per unit, protocol and measure; one with the failure for a unit without a score. `density`, `maximum` and
`mean` are the explain split's, `density_score` the score split's; `clusters`, in the headline's row, are those of the
`influence` of every measure of the unit under the protocol."""
_LATER = {"evidence", "overlap", "single_token", "token_entropy", "clusters", "influence"}
"""Columns that older tables lack; they are read as null."""
_EXPLANATIONS = pa.schema([*_UNIT, ("explainer", pa.string()), ("text", pa.string()), *_FAILURE])
"""One row per unit and protocol; all null beside the unit where no explanation was asked for."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What `compare` needs, as the files of results hold it."""

    outcomes: tuple[Outcome, ...] = field(repr=False)
    """Of every unit that ended, in admission order, the protocols of each together."""
    arms: tuple[ArmInfo, ...]
    """In the order of the comparison."""
    reference: str
    """Label of the arm that the baselines are taken from."""
    seed: int
    """Of every bootstrap."""


def by_protocol(outcomes: Iterable[Outcome]) -> dict[str, tuple[Outcome, ...]]:
    """The outcomes under each protocol, the headline first: units name their protocols in the run's order."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.protocol, []).append(outcome)
    return {name: tuple(own) for name, own in found.items()}


def folders(run_dir: Path, protocols: Iterable[str]) -> dict[str, Path]:
    """Where each protocol's summary and figures lie: the first in `run_dir`, any other in a folder of its name."""
    return {name: run_dir / name if number else run_dir for number, name in enumerate(protocols)}


def write_tables(run_dir: Path, outcomes: Sequence[Outcome], comparisons: Mapping[str, Comparison]) -> list[Path]:
    """Write the rows of all `outcomes`, counted or not, and each protocol's summary; each file appears whole."""
    run_dir.mkdir(parents=True, exist_ok=True)
    place = {name: number for number, name in enumerate(comparisons)}
    ordered = sorted(outcomes, key=lambda outcome: (outcome.order, place[outcome.protocol]))
    headline = next(iter(comparisons.values()))
    arms = [asdict(arm.info) for arm in headline.arms]
    how = {"schema": _SCHEMA, "arms": arms, "reference": headline.reference, "seed": headline.seed}
    _write_parquet(run_dir / SCORES, (row for each in ordered for row in _score_rows(each)), _SCORES, how)
    write_explanations(run_dir, ordered)
    written = [run_dir / SCORES, run_dir / EXPLANATIONS]
    for name, folder in folders(run_dir, comparisons).items():
        folder.mkdir(exist_ok=True)
        comparison = comparisons[name]
        summary = {"schema": _SCHEMA, "protocol": name, "verdict": verdict(comparison), **plain(comparison)}
        _write_text(folder / SUMMARY_JSON, as_json(summary) + "\n")
        _write_text(folder / SUMMARY_MD, render({name: comparison}, "md") + "\n")
        written += [folder / SUMMARY_JSON, folder / SUMMARY_MD]
    return written


def write_explanations(run_dir: Path, outcomes: Sequence[Outcome]) -> None:
    """Write what was said of every unit, or why nothing was.

    Rows on disk of units that are not among `outcomes` stay: an interrupted session must not forget explanations.
    """
    path = run_dir / EXPLANATIONS
    before = _read_parquet(path, _EXPLANATIONS)[0] if path.exists() else []
    every = [*before, *map(_explanation_row, outcomes)]
    rows = {(row["arm"], row["index"], row["protocol"]): row for row in every}
    ordered = sorted(rows.values(), key=lambda row: row["order"])
    _write_parquet(path, ordered, _EXPLANATIONS, {"schema": _SCHEMA})


def count_outcomes(run_dir: Path) -> int:
    """Outcomes that the scores on disk hold; 0 where there are none that can be read."""
    try:
        return len(read_outcomes(run_dir).outcomes)
    except UserError:
        return 0


def read_explanations(run_dir: Path) -> dict[tuple[Unit, str], Explanation | Failure]:
    """By unit and protocol, what `write_explanations` wrote, without what was never explained; raises `UserError`."""
    rows, _ = _read_parquet(run_dir / EXPLANATIONS, _EXPLANATIONS)
    found = ((_unit(row), row["protocol"], _explanation(row)) for row in rows)
    return {(unit, protocol): said for unit, protocol, said in found if said is not None}


def read_outcomes(run_dir: Path) -> Rows:
    """The outcomes that `write_tables` wrote, so that `compare` gives the same comparison again.

    Raises `UserError` where a file is missing or is not what `write_tables` writes.
    """
    scores, how = _read_parquet(run_dir / SCORES, _SCORES)
    explanations = read_explanations(run_dir)
    try:
        ends = groupby(scores, key=lambda row: (row["order"], row["protocol"]))
        outcomes = [_outcome(list(rows), explanations) for _, rows in ends]
        return Rows(tuple(outcomes), tuple(ArmInfo(**arm) for arm in how["arms"]), how["reference"], how["seed"])
    except (KeyError, TypeError) as error:
        raise _malformed(run_dir / SCORES, error) from error


def _score_rows(outcome: Outcome) -> Iterator[dict[str, object]]:
    statistics = outcome.statistics
    row: dict[str, object] = {
        **_unit_cells(outcome),
        "density": statistics.density_explain,
        "density_score": statistics.density_score,
        "maximum": statistics.maximum,
        "mean": statistics.mean,
        "evidence": statistics.evidence,
        "overlap": statistics.overlap,
        "single_token": statistics.single_token,
        "token_entropy": statistics.token_entropy,
    }
    match outcome.result:
        case Failure() as failure:
            yield {**row, **_failure_cells(failure)}
        case Score() as score:
            row |= {"items": score.items, "missing": score.missing, "constant": score.constant}
            for name, measure in score.measures.items():
                cells = {"measure": name, "headline": name == score.headline, **_measure_cells(measure)}
                yield {**row, **cells, **_influence_cells(score, name)}


def _explanation_row(outcome: Outcome) -> dict[str, Any]:
    match outcome.explanation:
        case Explanation(text, explainer):
            cells = {"explainer": explainer, "text": text}
        case Failure() as failure:
            cells = _failure_cells(failure)
        case None:
            cells = {}
    return {**_unit_cells(outcome), **cells}


def _unit_cells(outcome: Outcome) -> dict[str, object]:
    unit = {"arm": outcome.unit.arm, "index": outcome.unit.index, "name": outcome.unit.name}
    return {**unit, "order": outcome.order, "protocol": outcome.protocol}


def _failure_cells(failure: Failure) -> dict[str, object]:
    return {"failure_stage": failure.stage, "failure_kind": failure.kind, "failure_message": failure.message}


def _measure_cells(measure: Measure | Undefined) -> dict[str, object]:
    match measure:
        case Undefined(reason):
            return {"undefined_reason": reason}
        case Measure(value, low, high):
            return {"value": value, "low": low, "high": high}


def _influence_cells(score: Score, measure: str) -> dict[str, object]:
    if score.influence is None:
        return {}
    clusters = score.influence.clusters if measure == score.headline else None
    return {"clusters": clusters, "influence": score.influence.changes.get(measure)}


def _unit(row: Mapping[str, Any]) -> Unit:
    return Unit(row["arm"], row["index"], row["name"])


def _outcome(rows: list[dict[str, Any]], explanations: Mapping[tuple[Unit, str], Explanation | Failure]) -> Outcome:
    first = rows[0]
    unit, protocol = _unit(first), first["protocol"]
    return Outcome(
        unit,
        protocol,
        first["order"],
        OutcomeStatistics(
            first["density"],
            first["density_score"],
            first["maximum"],
            first["mean"],
            first["evidence"],
            first["overlap"],
            first["single_token"],
            first["token_entropy"],
        ),
        explanations.get((unit, protocol)),
        _failure(first) or _score(rows),
    )


def _score(rows: list[dict[str, Any]]) -> Score:
    first = rows[0]
    headline = next((row["measure"] for row in rows if row["headline"]), first["measure"])
    measures = {row["measure"]: _measure(row) for row in rows}
    return Score(measures, headline, first["items"], first["missing"], first["constant"], _influence(rows))


def _influence(rows: list[dict[str, Any]]) -> Influence | None:
    clusters = next((row["clusters"] for row in rows if row["clusters"] is not None), None)
    if clusters is None:
        return None
    changes = {row["measure"]: row["influence"] for row in rows if row["influence"] is not None}
    arrays = {name: np.array(each, dtype=np.float16) for name, each in changes.items()}
    return Influence(np.array(clusters, dtype=np.int32), arrays)


def _measure(row: dict[str, Any]) -> Measure | Undefined:
    if row["undefined_reason"] is not None:
        return Undefined(row["undefined_reason"])
    return Measure(row["value"], row["low"], row["high"])


def _explanation(row: dict[str, Any]) -> Explanation | Failure | None:
    if row["text"] is not None:
        return Explanation(row["text"], row["explainer"])
    return _failure(row)


def _failure(row: dict[str, Any]) -> Failure | None:
    if row["failure_kind"] is None:
        return None
    return Failure(row["failure_stage"], row["failure_kind"], row["failure_message"])


def _write_parquet(path: Path, rows: Iterable[dict[str, object]], schema: pa.Schema, how: Mapping[str, object]) -> None:
    metadata = {_METADATA: json.dumps(how, ensure_ascii=False).encode()}
    held = list(rows)
    columns = {name: [row.get(name) for row in held] for name in schema.names}  # several times faster than from_pylist
    table = pa.table(columns, schema=schema.with_metadata(metadata))
    temporary = path.with_name(path.name + ".tmp")
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, path)  # noqa: PTH105


def _read_parquet(path: Path, schema: pa.Schema) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    if not path.exists():
        raise UserError(f"{path} is missing.", do="Give the results directory of a run that has scored units.")
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise _malformed(path, error) from error
    metadata = (table.schema.metadata or {}).get(_METADATA)
    for column in schema:
        if column.name in _LATER - set(table.schema.names):
            table = table.append_column(column, pa.nulls(len(table), column.type))
    if set(schema.names) == set(table.schema.names):
        table = table.select(schema.names)
    if metadata is None or not table.schema.equals(schema):
        missing = sorted(set(schema.names) - set(table.schema.names))
        raise UserError(
            f"{path} has other columns than this version writes.", f"Missing: {missing}." if missing else ""
        )
    columns = table.to_pydict()
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)], json.loads(
        metadata
    )


def _malformed(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is malformed.", str(error), "Delete it and run `autointerp resume` to write it again.")


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)  # noqa: PTH105
