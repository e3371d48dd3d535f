"""Prompts of a run answered by a real language model, kept verbatim, and read again by the shipped readers and scorers.

    python benchmarks/transcripts.py pose results/demo/harvest results/transcripts        # once: units and their trials
    python benchmarks/transcripts.py prompts results/transcripts/MODEL explain /tmp/prompts
    python benchmarks/transcripts.py keep results/transcripts/MODEL explain /tmp/prompts  # *.reply, verbatim
    ... the same two with `simulate`, whose prompts hold the explanations just kept, then
    python benchmarks/transcripts.py replay results/transcripts/MODEL

Whoever answers sees one prompt file in a fresh conversation and nothing else. The units are the first of each arm in
the admission order of a run with the default seed, so nothing is selected. Each of the first `ROUND * ROUNDS` of
an arm is also simulated from the explanations of `SHUFFLES` other units of its arm.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from autointerp import statistics
from autointerp.activations.source import StoreSource
from autointerp.activations.store import Store
from autointerp.explain.llm import read_explanation, render_explain
from autointerp.explain.lookup import LookupExplainer
from autointerp.pipeline import admission_order
from autointerp.prompts import load_prompt
from autointerp.protocols.monosemanticity_2023 import Monosemanticity2023
from autointerp.records.call import Reply, Request, Usage
from autointerp.records.explanation import Evidence, Explanation, Failure
from autointerp.records.trial import Item, Measure, Prediction, Score, Trial
from autointerp.simulate.llm import read_predictions, render_simulate
from autointerp.simulate.lookup import LookupSimulator
from autointerp.simulate.packs import packs

SEED = 0
UNITS, ROUND, ROUNDS, SHUFFLES = 15, 5, 2, 3
"""Per arm: units explained and simulated; units of a round that are simulated from others' explanations too, and
rounds of them (the prompts were answered round by round); how many others."""
_ARRAYS = ("ids", "truth", "unigram", "weights", "clusters", "intervals")
_EVIDENCE = TypeAdapter(Evidence)
PROTOCOL = Monosemanticity2023(seed=SEED)


@dataclass(frozen=True, slots=True)
class Posed:
    """A unit with what is asked about it: its evidence, and the first call's worth of its trial."""

    arm: str
    name: str
    evidence: Evidence
    trial: Trial


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt: an explanation asked for, or a trial asked from the explanation of unit `told`."""

    unit: int
    told: int
    request: Request

    @property
    def name(self) -> str:
        """The prompt file's name without its suffix."""
        return f"{self.unit:02d}" if self.told == self.unit else f"{self.unit:02d}-told-{self.told:02d}"


def pose(harvest: Path, out: Path) -> None:
    """Write the chosen units with their evidence and trials, so that a replay needs no model and no corpus."""
    source, scorer = StoreSource(Store.open(harvest)), PROTOCOL.scorer()
    taken: dict[str, list[str]] = {}
    for unit in admission_order(source.units(), SEED):
        chosen = taken.setdefault(unit.arm, [])
        record = source.record(unit)
        evidence = PROTOCOL.evidence(record)
        if len(chosen) == UNITS or isinstance(evidence, Failure):
            continue
        trial = scorer.pose(record, Explanation("", ""), source)
        if isinstance(trial, Failure):
            continue
        row = {"arm": unit.arm, "name": unit.name, "evidence": asdict(evidence), "trial": _trial_cells(trial)}
        chosen.append(json.dumps(row, ensure_ascii=False))
    out.mkdir(parents=True, exist_ok=True)
    (out / "units.jsonl").write_text("\n".join(row for arm in sorted(taken) for row in taken[arm]) + "\n", "utf-8")


def write_prompts(model: Path, stage: str, folder: Path) -> None:
    """One file per prompt: the system text, then the user's."""
    folder.mkdir(parents=True, exist_ok=True)
    for question in questions(model, stage):
        (folder / f"{question.name}.txt").write_text(f"{question.request.system}\n\n{question.request.user}\n", "utf-8")


def keep(model: Path, stage: str, folder: Path) -> None:
    """Take the replies beside the prompts, verbatim, with the hash of what they answer."""
    rows: list[str] = []
    for question in questions(model, stage):
        reply = (folder / f"{question.name}.reply").read_text("utf-8")
        row = {"unit": question.unit, "told": question.told, "prompt": digest(question.request), "reply": reply}
        rows.append(json.dumps(row, ensure_ascii=False))
    model.mkdir(parents=True, exist_ok=True)
    (model / f"{stage}.jsonl").write_text("\n".join(rows) + "\n", "utf-8")


def questions(model: Path, stage: str) -> Iterator[Question]:
    """Every question of `stage`, rendered by the shipped prompts."""
    units = read_units(model.parent)
    if stage == "explain":
        for index, unit in enumerate(units):
            yield Question(index, index, render_explain(unit.evidence, model.name, load_prompt("explain", "v1")))
        return
    explanations = {index: told for index, told in enumerate(read_explanations(model)) if isinstance(told, Explanation)}
    for index, told in pairs(units, sorted(explanations)):
        items, prompt = units[index].trial.items, load_prompt("simulate", "v1")
        yield Question(index, told, render_simulate(explanations[told], items, model.name, prompt))


def pairs(units: Sequence[Posed], explained: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Which unit is predicted from whose explanation: its own, then, for the first ones, those of others of its arm."""
    rounds = [np.random.default_rng(SEED + i) for i in range(ROUNDS)]
    for arm in sorted({unit.arm for unit in units}):
        members = [index for index in explained if units[index].arm == arm]
        for rank, index in enumerate(members):
            yield index, index
            if rank < ROUND * ROUNDS:
                others = [other for other in members if other != index]
                yield from (
                    (index, int(other)) for other in rounds[rank // ROUND].choice(others, SHUFFLES, replace=False)
                )


def replay(model: Path) -> dict[str, Any]:
    """Read and score the kept replies again; refuses replies to other prompts than those shipped."""
    units, explained = read_units(model.parent), read_explanations(model)
    scorer = PROTOCOL.scorer()
    scores: dict[tuple[int, int], Score] = {}
    items = read = 0
    for question, reply in _kept(model, "simulate"):
        trial = units[question.unit].trial
        predictions = read_predictions(_reply(reply), trial.items)
        items, read = items + len(predictions), read + sum(isinstance(p, Prediction) for p in predictions)
        scores[question.unit, question.told] = scorer.score(trial, predictions)
    summary: dict[str, Any] = {
        "explanations": len(explained),
        "explanations_read": sum(isinstance(each, Explanation) for each in explained),
        "simulations": len(scores),
        "items": items,
        "items_read": read,
        "units": [_unit_row(units, explained, scores, index) for index in range(len(units))],
    }
    rng = np.random.default_rng(SEED)
    arms = sorted({unit.arm for unit in units})
    for measure in ("spearman", "pearson"):
        values = {arm: _column(summary, arm, measure) for arm in arms}
        summary[measure] = {arm: _plain(statistics.bootstrap_interval(values[arm], "mean", rng)) for arm in arms}
        summary[measure]["lookup"] = {
            arm: _plain(statistics.bootstrap_interval(_column(summary, arm, f"lookup_{measure}"), "mean", rng))
            for arm in arms
        }
        first, second = (values[arm] for arm in arms)
        summary[measure][f"{arms[0]} less {arms[1]}"] = _plain(
            statistics.bootstrap_difference(first, second, "mean", rng)
        )
    summary["auc"] = {
        arm: _plain(statistics.bootstrap_interval(_column(summary, arm, "auc"), "mean", rng)) for arm in arms
    }
    return summary


def read_units(folder: Path) -> list[Posed]:
    """What `pose` wrote."""
    rows = map(json.loads, (folder / "units.jsonl").read_text("utf-8").splitlines())
    return [
        Posed(row["arm"], row["name"], _EVIDENCE.validate_python(row["evidence"]), _trial(row["trial"])) for row in rows
    ]


def read_explanations(model: Path) -> list[Explanation | Failure]:
    """What the explainer's replies say, unit by unit."""
    return [read_explanation(_reply(reply), model.name) for _, reply in _kept(model, "explain")]


def digest(request: Request) -> str:
    """SHA-256 of all that was shown."""
    return hashlib.sha256(f"{request.system}\n\n{request.user}".encode()).hexdigest()


def _kept(model: Path, stage: str) -> Iterator[tuple[Question, str]]:
    rows = [json.loads(line) for line in (model / f"{stage}.jsonl").read_text("utf-8").splitlines()]
    for question, row in zip(questions(model, stage), rows, strict=True):
        if digest(question.request) != row["prompt"]:
            raise SystemExit(f"{stage} {question.name}: the reply kept answers another prompt.")
        yield question, row["reply"]


def _unit_row(
    units: Sequence[Posed],
    explained: Sequence[Explanation | Failure],
    scores: dict[tuple[int, int], Score],
    index: int,
) -> dict[str, Any]:
    unit, told = units[index], explained[index]
    row: dict[str, Any] = {"arm": unit.arm, "name": unit.name}
    row["explanation"] = told.text if isinstance(told, Explanation) else told.message
    looked_up = _lookup(unit)
    for measure in ("spearman", "pearson"):
        row[measure] = _value(scores.get((index, index)), measure)
        row[f"lookup_{measure}"] = _value(looked_up, measure)
    own = row["spearman"]
    others = [_value(score, "spearman") for (asked, said), score in scores.items() if asked == index != said]
    wins = [float(own > other) + 0.5 * float(own == other) for other in others if other is not None and own is not None]
    row["auc"] = sum(wins) / len(wins) if wins else None
    return row


def _lookup(unit: Posed) -> Score | None:
    """The same trial by `lookup`, from the same evidence."""
    import asyncio

    async def judge() -> Score | None:
        explanation = await LookupExplainer().explain(unit.evidence)
        if isinstance(explanation, Failure):
            return None
        return PROTOCOL.scorer().score(unit.trial, await LookupSimulator().simulate(explanation, unit.trial.items))

    return asyncio.run(judge())


def _value(score: Score | None, measure: str) -> float | None:
    found = score.measures[measure] if score else None
    return found.value if isinstance(found, Measure) else None


def _column(summary: dict[str, Any], arm: str, name: str) -> np.ndarray:
    return np.array([row[name] for row in summary["units"] if row["arm"] == arm and row[name] is not None])


def _plain(value: object) -> object:
    """An interval over units alone, rounded."""
    cells = asdict(value)  # type: ignore[call-overload]
    return {
        name: round(each, 3) if isinstance(each, float) else each for name, each in cells.items() if each is not False
    }


def _reply(text: str) -> Reply:
    return Reply(text, Usage(0, 0, 0, 0), 0, "", cached=True)


def _trial_cells(trial: Trial) -> dict[str, Any]:
    """The first call's worth of `trial`, as plain values; its items are in random order already."""
    kept = len(packs(trial.items)[0])
    cells: dict[str, Any] = {name: getattr(trial, name)[:kept].tolist() for name in _ARRAYS}
    cells["items"] = [item.tokens for item in trial.items[:kept]]
    return cells | {"groups": trial.groups[:kept], "maximum": trial.maximum, "top_level": trial.top_level}


def _trial(cells: dict[str, Any]) -> Trial:
    types = {"ids": np.int32, "clusters": np.int32, "intervals": np.int32}
    arrays = {name: np.array(cells[name], dtype=types.get(name, np.float64)) for name in _ARRAYS}
    return Trial(
        items=tuple(Item(tuple(tokens)) for tokens in cells["items"]),
        groups=tuple(cells["groups"]),
        maximum=cells["maximum"],
        top_level=cells["top_level"],
        **arrays,
    )


def main() -> None:
    """One of the four steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("pose", "prompts", "keep", "replay"))
    parser.add_argument("paths", nargs="+")
    given = parser.parse_args()
    match given.step, given.paths:
        case "pose", [harvest, out]:
            pose(Path(harvest), Path(out))
        case "prompts", [model, stage, folder]:
            write_prompts(Path(model), stage, Path(folder))
        case "keep", [model, stage, folder]:
            keep(Path(model), stage, Path(folder))
        case "replay", [model]:
            print(json.dumps(replay(Path(model)), indent=2, ensure_ascii=False))
        case _:
            parser.error("wrong paths for this step")


if __name__ == "__main__":
    main()
