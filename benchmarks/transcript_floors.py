"""The kept transcripts between floors and ceiling, and what so few units can show.

    python -m benchmarks.transcript_floors results/transcripts/claude > results/transcripts/floors.md

Every predictor is scored on the same items of the same units by the protocol's scorer. The kept items do not say which
token an excerpt was drawn for; it is the middle one but at the ends of a window.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from autointerp.inference import Sample, average, difference
from autointerp.permutation import permutation_test
from autointerp.power import detectable_difference
from autointerp.records.trial import Measure, Prediction, Score, Trial, Undefined
from autointerp.simulate.llm import read_predictions
from autointerp.statistics import Estimate
from benchmarks.transcripts import PROTOCOL, SEED, _kept, _lookup, _reply, read_units

MEASURE = "spearman"
ROWS: Mapping[str, str] = {
    "constant": "constant (floor)",
    "anchor": "highest level at the middle token (floor)",
    "shuffled": "the model, told of another unit",
    "unigram": "`unigram`",
    "lookup": "`lookup`, from the same evidence",
    "model": "the model",
    "ceiling": "the truth in levels (ceiling)",
}


def scored(model: Path) -> dict[str, dict[str, Sample]]:
    """By predictor and arm, the Spearman correlation of every unit with what its documents do to it."""
    units, scorer = read_units(model.parent), PROTOCOL.scorer()
    found: defaultdict[tuple[str, str], list[tuple[float, np.ndarray, np.ndarray]]] = defaultdict(list)
    others: defaultdict[int, list[tuple[float, np.ndarray, np.ndarray]]] = defaultdict(list)
    for question, reply in _kept(model, "simulate"):
        trial = units[question.unit].trial
        score = scorer.score(trial, read_predictions(_reply(reply), trial.items))
        own = question.told == question.unit
        (found[units[question.unit].arm, "model"] if own else others[question.unit]).extend(_cells(score, MEASURE))
        if own:
            found[units[question.unit].arm, "unigram"].extend(_cells(score, f"unigram_{MEASURE}"))
            found[units[question.unit].arm, "ceiling"].extend(_cells(score, f"quantised_oracle_{MEASURE}"))
    for unit in units:
        for name, predictions in _fixed(unit.trial).items():
            found[unit.arm, name].extend(_cells(scorer.score(unit.trial, predictions), MEASURE))
        if looked_up := _lookup(unit):
            found[unit.arm, "lookup"].extend(_cells(looked_up, MEASURE))
    for unit, cells in others.items():
        value, changes = (np.mean([each[i] for each in cells], axis=0) for i in (0, 2))
        found[units[unit].arm, "shuffled"].append((float(value), cells[0][1], changes))
    arms = sorted({unit.arm for unit in units})
    return {name: {arm: _sample(found[arm, name]) for arm in arms} for name in ROWS}


def page(model: Path) -> str:
    """The table and what it can show, as Markdown."""
    table = scored(model)
    first, second = sorted(table["model"])
    lines = [
        "# The transcripts between floors and ceiling",
        "",
        "Mean Spearman correlation over units, 20 items each, under `monosemanticity-2023`; 95 % two-way bootstrap",
        "intervals (units, and the documents that they share; of the ceiling over units alone). Written by",
        "`benchmarks/transcript_floors.py`; a test computes it again.",
        "",
        f"| predictor | {first} | {second} | {first} less {second} |",
        "|---|---:|---:|---:|",
    ]
    for name, title in ROWS.items():
        x, y = table[name][first], table[name][second]
        cells = [_mean(x, name, first), _mean(y, name, second)]
        gap = difference(x, y, ("mean",), _rng(name), 2000)["mean"]
        lines.append(f"| {title} | {' | '.join(cells)} | {_shown(gap, sign=True)} |")
    return "\n".join([*lines, "", *_power(table, first, second), *_paired(table)]) + "\n"


def _power(table: Mapping[str, Mapping[str, Sample]], first: str, second: str) -> Iterator[str]:
    x, y = table["model"][first].values, table["model"][second].values
    spreads = float(x.std(ddof=1)), float(y.std(ddof=1))
    seen, p = detectable_difference(len(x), len(y), *spreads), permutation_test(x, y, _rng("test"))
    yield (
        f"**What {len(x)} and {len(y)} units can show.** Their scores scatter by {spreads[0]:.3f} and {spreads[1]:.3f} "
        f"(standard deviation): a difference of {seen:.2f} is seen with 80 % power at two-sided 5 %. The difference "
        f"found is {x.mean() - y.mean():+.3f} (permutation p = {p:.2g}): this sample cannot tell whether the arms "
        "differ by less."
    )


def _paired(table: Mapping[str, Mapping[str, Sample]]) -> Iterator[str]:
    yield ""
    yield "Pairs, unit by unit: the model less another predictor of the same items (means, intervals over units)."
    yield ""
    yield "| | " + " | ".join(table["model"]) + " |"
    yield "|---|" + "---:|" * len(table["model"])
    for name in ("anchor", "unigram", "lookup", "ceiling"):
        gaps = [_gap(own, table[name][arm], name, arm) for arm, own in table["model"].items()]
        yield f"| the model less {ROWS[name]} | {' | '.join(gaps)} |"


def _gap(own: Sample, other: Sample, name: str, arm: str) -> str:
    if len(own) != len(other):
        return "-"
    return _shown(average(Sample.of(own.values - other.values), ("mean",), _rng(name, arm), 2000)["mean"], sign=True)


def _fixed(trial: Trial) -> dict[str, list[Prediction]]:
    width = trial.truth.shape[1]
    middle = tuple(float(trial.top_level) * (at == width // 2) for at in range(width))
    return {
        "constant": [Prediction((0.0,) * width)] * len(trial.items),
        "anchor": [Prediction(middle)] * len(trial.items),
    }


def _cells(score: Score, measure: str) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    if isinstance(found := score.measures[measure], Measure) and score.influence is not None:
        none = np.zeros(len(score.influence.clusters))
        changes = score.influence.changes.get(measure, none).astype(np.float64)
        yield found.value, score.influence.clusters, changes


def _sample(cells: list[tuple[float, np.ndarray, np.ndarray]]) -> Sample:
    unit = np.repeat(np.arange(len(cells)), [len(clusters) for _, clusters, _ in cells])
    values = np.array([value for value, _, _ in cells])
    return Sample(values, unit, *(np.concatenate([each[i] for each in cells]) for i in (1, 2)))


def _mean(sample: Sample, *words: str) -> str:
    return f"{_shown(average(sample, ('mean',), _rng(*words), 2000)['mean'])}, n = {len(sample)}"


def _shown(value: Estimate | Undefined, *, sign: bool = False) -> str:
    if isinstance(value, Undefined):
        return "-"
    return f"{value.value + 0.0:{'+' if sign else ''}.3f} [{value.low:.3f}, {value.high:.3f}]"


def _rng(*words: str) -> np.random.Generator:
    return np.random.default_rng([SEED, *"/".join(words).encode()])


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    print(page(parser.parse_args().model), end="")


if __name__ == "__main__":
    main()
