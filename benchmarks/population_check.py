"""Estimates of the `population` protocol against the values that they estimate, on real units.

    autointerp run --protocol population --out RUN
    python -m benchmarks.population_check RUN [--units 256] [--out results/benchmarks]

Explanations are `lookup`'s, which predict a level for every token id: so Pearson and average precision over every
anchor of the score split are known exactly, and so are the activations of the chosen units, in one pass over it.
"""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from autointerp.activations.source import StoreSource
from autointerp.activations.store import Store
from autointerp.config import load_run
from autointerp.explain.lookup import token_table
from autointerp.harvesting import HARVEST
from autointerp.notation import read_table
from autointerp.proposal import TextIndex
from autointerp.protocols.population import Population
from autointerp.records.anchors import Text
from autointerp.records.explanation import Evidence, Explanation
from autointerp.records.trial import Measure, Score, Trial
from autointerp.records.unit import Unit, UnitRecord
from autointerp.simulate.lookup import LookupSimulator
from autointerp.wiring import Setting, load_setting
from benchmarks.validity_report import markdown
from sae.features import stream_units

NAME = "population_check"
PROTOCOL = Population()
WIDTH = 9
MEASURES = ("pearson", "pearson_seen", "auprc")
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Firings:
    """Where one unit fires in the score split."""

    window: np.ndarray
    """Place of each firing's window in the split's text, rising."""
    position: np.ndarray
    """Position in it."""
    value: np.ndarray
    """Activation."""

    def on(self, text: Text, windows: Sequence[int]) -> np.ndarray:
        """Activations on whole windows (rows of the store's), of shape (window, position)."""
        out = np.zeros((len(windows), text.tokens.shape[1]), dtype=np.float32)
        for row, place in enumerate(np.searchsorted(text.row, windows).tolist()):
            here = slice(*np.searchsorted(self.window, [place, place + 1]))
            out[row, self.position[here]] = self.value[here]
        return out


def firings(setting: Setting, text: Text, label: str, units: Sequence[Unit]) -> dict[Unit, Firings]:
    """All firings of the units of one arm, from one pass over the score split."""
    arm = next(arm for arm in setting.arms if arm.info.label == label)
    rows = np.array(sorted(unit.index for unit in units))
    windows = setting.corpus.windows.select(text.row.astype(np.int64))
    stream = stream_units(
        arm.subject,
        {label: (arm.site, arm.dictionary)},
        windows,
        units={label: rows},
        batch=setting.config.windows_per_pass,
    )
    parts = [blocks[label] for _, blocks in stream]
    owner, window, position, value = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("unit", "window", "position", "value")
    )
    found = {}
    for unit in units:
        mine = np.flatnonzero(owner == unit.index)
        found[unit] = Firings(window[mine], position[mine], value[mine])
    return found


def exact(record: UnitRecord, fired: Firings, index: TextIndex, level: np.ndarray) -> dict[str, float]:
    """Pearson and average precision over every anchor, of a level by token id."""
    text, n = index.text, len(index.token)
    within = text.length[fired.window] - text.first >= WIDTH
    value = fired.value[within].astype(np.float64)
    predicted = level[text.tokens[fired.window[within], fired.position[within]]]
    first, second = index.count @ level, index.count @ level**2
    covariance = value @ predicted / n - value.sum() / n * first / n
    spread = (second / n - (first / n) ** 2) * ((value**2).sum() / n - (value.sum() / n) ** 2)
    levels, place = np.unique(level, return_inverse=True)
    both = np.bincount(place, index.count)[::-1].cumsum()
    fires = value > record.threshold
    at = np.searchsorted(levels, predicted[fires])
    right = np.bincount(at, minlength=len(levels))[::-1].cumsum()
    precise = np.diff(right, prepend=0) * right / np.maximum(both, 1)
    pearson = float(covariance / np.sqrt(spread)) if spread > 0 else 0.0
    return {"pearson": pearson, "pearson_seen": pearson, "auprc": float(precise.sum() / max(fires.sum(), 1))}


def checked(directory: Path, arm: str, n: int, seed: int) -> pd.DataFrame:
    """Estimates with their intervals beside the exact values, by unit and measure."""
    config = load_run(directory)
    store, setting = Store.open(directory / HARVEST), load_setting(config, directory, print)
    if setting.key != store.manifest["key"]:
        raise SystemExit(f"{directory} was harvested from another subject, dictionary or corpus.")
    source = StoreSource(store)
    index = TextIndex(source.text("score"), WIDTH)
    able = [unit for unit in source.units() if unit.arm == arm]
    chosen = [able[i] for i in np.sort(np.random.default_rng(seed).permutation(len(able))[:n])]
    fired = firings(setting, index.text, arm, chosen)
    source = StoreSource(store, lambda unit, windows: fired[unit].on(index.text, windows))
    rows = []
    for unit in chosen:
        record = source.record(unit)
        if (scored := _scored(record, source)) is None:
            continue
        explanation, score = scored
        entries, default = read_table(explanation.text) or ((), 0.0)
        table = dict(entries)
        level = np.array([table.get(token, default) for token in index.text.vocabulary])
        known = exact(record, fired[unit], index, level)
        measured = {name: each for name in MEASURES if isinstance(each := score.measures[name], Measure)}
        density = len(fired[unit].value) / len(index.token)
        rows += [
            (unit.index, density, name, known[name], each.value, each.low, each.high) for name, each in measured.items()
        ]
    found = pd.DataFrame(rows, columns=["unit", "density", "measure", "exact", "estimate", "low", "high"])
    return found.assign(anchors=len(index.token))


def _scored(record: UnitRecord, source: StoreSource) -> tuple[Explanation, Score] | None:
    """`lookup`'s explanation of the unit and its score; None where there is either none."""
    evidence = PROTOCOL.evidence(record)
    explanation = token_table(evidence) if isinstance(evidence, Evidence) else evidence
    if not isinstance(explanation, Explanation):
        return None
    scorer = PROTOCOL.scorer()
    trial = scorer.pose(record, explanation, source)
    if not isinstance(trial, Trial):
        return None
    return explanation, scorer.score(trial, asyncio.run(LookupSimulator().simulate(explanation, trial.items)))


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per measure: bias, scatter and correlation of the estimates, and what their intervals hold."""
    lines = []
    for measure, part in rows.groupby("measure", sort=False):
        off = part["estimate"] - part["exact"]
        below, above = part["exact"] < part["low"] - _ROUNDING, part["exact"] > part["high"] + _ROUNDING
        inside, error = 1 - (below | above).mean(), off.std(ddof=1)
        line = [measure, len(part), part["exact"].mean(), off.mean(), error / np.sqrt(len(part)), error]
        line += [part["exact"].corr(part["estimate"]), inside, np.sqrt(inside * (1 - inside) / len(part))]
        lines.append([*line, below.mean(), above.mean(), (part["high"] - part["low"]).mean()])
    columns = ["measure", "units", "exact", "bias", "error of bias", "sd of errors", "correlation", "inside"]
    return pd.DataFrame(lines, columns=[*columns, "error of inside", "below", "above", "width"])


def main() -> None:
    """Check a run's harvest and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="results directory of a run with --protocol population")
    parser.add_argument("--arm", default="features")
    parser.add_argument("--units", type=int, default=256, help="drawn at random from the arm")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    given = parser.parse_args()
    rows = checked(given.run, given.arm, given.units, given.seed)
    text = (
        f"# Population estimates against exact values\n\n{given.units} random units of `{given.arm}` (seed "
        f"{given.seed}) over {load_run(given.run).tokens} tokens, explained by `lookup`; those that `lookup` cannot "
        "explain, that never fire in the score split "
        f"or that have no estimate are left out. `exact` is over every one of the {rows['anchors'].max():,} anchors of "
        "the score split. `inside`: share of 95 % intervals that hold it; `below`, `above`: where it lay otherwise. "
        "`pearson_seen` is without the "
        f"allowance for false predictions where none was drawn.\n\n{markdown(summary(rows))}\n"
    )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"{NAME}.md").write_text(text, encoding="utf-8")
    rows.to_csv(given.out / f"{NAME}.csv", index=False, float_format="%.6g", lineterminator="\n")
    print(text)


if __name__ == "__main__":
    main()
