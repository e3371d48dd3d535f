"""What is said of a unit under a protocol, as rows of the results' files and back."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from autointerp.records.explanation import Explanation, Failure
from autointerp.records.outcome import Outcome, OutcomeStatistics
from autointerp.records.trial import Influence, Measure, Score, Undefined
from autointerp.records.unit import Unit

_UNIT = [
    *(("arm", pa.string()), ("index", pa.int32()), ("name", pa.string())),
    *(("order", pa.int32()), ("protocol", pa.string())),
]
_FAILURE = [("failure_stage", pa.string()), ("failure_kind", pa.string()), ("failure_message", pa.string())]
SCORE_ROWS = pa.schema([
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
LATER = {"evidence", "overlap", "single_token", "token_entropy", "clusters", "influence"}
"""Columns that older tables lack; they are read as null."""
EXPLANATION_ROWS = pa.schema([*_UNIT, ("explainer", pa.string()), ("text", pa.string()), *_FAILURE])
"""One row per unit and protocol; all null beside the unit where no explanation was asked for."""


def score_rows(outcome: Outcome) -> Iterator[dict[str, object]]:
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


def explanation_row(outcome: Outcome) -> dict[str, Any]:
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


def read_unit(row: Mapping[str, Any]) -> Unit:
    return Unit(row["arm"], row["index"], row["name"])


def read_outcome(rows: list[dict[str, Any]], explanations: Mapping[tuple[Unit, str], Explanation | Failure]) -> Outcome:
    first = rows[0]
    unit, protocol = read_unit(first), first["protocol"]
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


def read_explanation(row: dict[str, Any]) -> Explanation | Failure | None:
    if row["text"] is not None:
        return Explanation(row["text"], row["explainer"])
    return _failure(row)


def _failure(row: dict[str, Any]) -> Failure | None:
    if row["failure_kind"] is None:
        return None
    return Failure(row["failure_stage"], row["failure_kind"], row["failure_message"])
