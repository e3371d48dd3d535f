"""A run's ledger: what each stage, model and arm cost."""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from autointerp.records.call import Usage

_Name: TypeAlias = tuple[str, str, str]
_SPENT = """
SELECT stage, model, arm, sum(state = 'settled'), count(*), sum(input_tokens), sum(cache_read_tokens),
  sum(cache_write_tokens), sum(output_tokens), sum(coalesce(actual, reserved)),
  sum(CASE WHEN state = 'settled' THEN actual ELSE 0 END)
FROM attempt WHERE run = ? GROUP BY stage, model, arm
"""
_FAILED = """
SELECT stage, model, arm, kind, count(*) FROM (
  SELECT stage, model, arm, kind, max(id) FROM attempt WHERE run = ? GROUP BY key)
WHERE kind NOT IN ('answered', '') GROUP BY stage, model, arm, kind
"""
_HITS = "SELECT stage, model, arm, calls FROM hit WHERE run = ?"


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What one stage, model and arm of a run cost."""

    stage: str
    """``explain`` or ``simulate``."""
    model: str
    """``provider/name``."""
    arm: str
    """Label of the arm."""
    calls: int = 0
    """Answers paid for; refused, truncated and unreadable ones included."""
    cached: int = 0
    """Answers that came from the store, or from an identical call in flight, at no cost."""
    attempts: int = 0
    """Requests sent, failed ones included."""
    usage: Usage = Usage(0, 0, 0, 0)  # noqa: RUF009 - frozen
    """Tokens as reported."""
    cost: int = 0
    """Nano-dollars committed; attempts whose bill is unknown count at their bound."""
    settled: int = 0
    """Nano-dollars of `cost` that answers were billed at; the rest is reserved, or its bill is unknown."""
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    """Calls whose last attempt brought no answer, or one that could not be read (``invalid``), by kind."""


def read_ledger(db: sqlite3.Connection, run: str) -> list[LedgerRow]:
    """Rows by stage, model and arm, in that order."""
    spent: dict[_Name, tuple[int, ...]] = {row[:3]: row[3:] for row in db.execute(_SPENT, (run,))}
    hits: dict[_Name, int] = {row[:3]: row[3] for row in db.execute(_HITS, (run,))}
    failed: dict[_Name, dict[str, int]] = defaultdict(dict)
    for stage, model, arm, kind, count in db.execute(_FAILED, (run,)):
        failed[stage, model, arm][kind] = count
    rows: list[LedgerRow] = []
    for stage, model, arm in sorted({*spent, *hits}):
        name = stage, model, arm
        calls, attempts, read, cache_read, cache_write, written, cost, settled = spent.get(name, (0,) * 8)
        rows.append(
            LedgerRow(
                stage,
                model,
                arm,
                calls=calls,
                cached=hits.get(name, 0),
                attempts=attempts,
                usage=Usage(read, cache_read, cache_write, written),
                cost=cost,
                settled=settled,
                failures=failed.get(name, {}),
            )
        )
    return rows
