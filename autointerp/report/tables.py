"""The files of results: rows of every unit, and the comparison that anybody can compute from them again."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from autointerp.compare import Comparison
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.outcome import ArmInfo, Outcome
from autointerp.records.unit import Unit
from autointerp.report.render import as_json, plain, render
from autointerp.report.rows import (
    EXPLANATION_ROWS,
    LATER,
    SCORE_ROWS,
    explanation_row,
    read_explanation,
    read_outcome,
    read_unit,
    score_rows,
)
from autointerp.report.verdict import verdict
from sae.errors import UserError

SCORES, EXPLANATIONS, SUMMARY_JSON, SUMMARY_MD = "scores.parquet", "explanations.parquet", "summary.json", "summary.md"
_SCHEMA = 1
_METADATA = b"autointerp"


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
    _write_parquet(run_dir / SCORES, (row for each in ordered for row in score_rows(each)), SCORE_ROWS, how)
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
    before = _read_parquet(path, EXPLANATION_ROWS)[0] if path.exists() else []
    every = [*before, *map(explanation_row, outcomes)]
    rows = {(row["arm"], row["index"], row["protocol"]): row for row in every}
    ordered = sorted(rows.values(), key=lambda row: row["order"])
    _write_parquet(path, ordered, EXPLANATION_ROWS, {"schema": _SCHEMA})


def count_outcomes(run_dir: Path) -> int:
    """Outcomes that the scores on disk hold; 0 where there are none that can be read."""
    try:
        return len(read_outcomes(run_dir).outcomes)
    except UserError:
        return 0


def read_explanations(run_dir: Path) -> dict[tuple[Unit, str], Explanation | Failure]:
    """By unit and protocol, what `write_explanations` wrote, without what was never explained; raises `UserError`."""
    rows, _ = _read_parquet(run_dir / EXPLANATIONS, EXPLANATION_ROWS)
    found = ((read_unit(row), row["protocol"], read_explanation(row)) for row in rows)
    return {(unit, protocol): said for unit, protocol, said in found if said is not None}


def read_outcomes(run_dir: Path) -> Rows:
    """The outcomes that `write_tables` wrote, so that `compare` gives the same comparison again.

    Raises `UserError` where a file is missing or is not what `write_tables` writes.
    """
    scores, how = _read_parquet(run_dir / SCORES, SCORE_ROWS)
    explanations = read_explanations(run_dir)
    try:
        ends = groupby(scores, key=lambda row: (row["order"], row["protocol"]))
        outcomes = [read_outcome(list(rows), explanations) for _, rows in ends]
        return Rows(tuple(outcomes), tuple(ArmInfo(**arm) for arm in how["arms"]), how["reference"], how["seed"])
    except (KeyError, TypeError) as error:
        raise _malformed(run_dir / SCORES, error) from error


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
        if column.name in LATER - set(table.schema.names):
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
