"""Trials of the `population` protocol are samples of the score split, and their scores estimates over all of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autointerp import statistics
from autointerp.activations.plan import SPLITS
from autointerp.activations.source import StoreSource
from autointerp.protocols.population import Population
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Measure, Prediction, Trial, Undefined
from autointerp.records.unit import Unit
from autointerp.scorers.population import ALLOCATION, MEASURES, PopulationScorer
from autointerp.scorers.simulation import SimulationScorer
from autointerp.seams import Unavailable
from tests.autointerp.harvests import SMALL, World, batches_of, world

UNIT, NEURON = Unit("features", 1, "1"), Unit("neurons", 2, "2+")
SCORER = PopulationScorer(width=SMALL.excerpt_tokens)
TOLD = Explanation('Fires on "t3"', "test")


@pytest.fixture(scope="module")
def made() -> World:
    sizes = replace(SMALL, score=replace(SMALL.score, top=8, anchors=28))
    return replace(world(2, n_windows=400), sizes=sizes)


@pytest.fixture(scope="module")
def source(made: World, tmp_path_factory: pytest.TempPathFactory) -> StoreSource:
    store = made.harvest(tmp_path_factory.mktemp("store"), batches_of(400, 100))

    def recompute(unit: Unit, windows: Sequence[int]) -> np.ndarray:
        return made.dense[unit.arm][list(windows), :, unit.index]

    return StoreSource(store, recompute)


def _trial(source: StoreSource, unit: Unit = UNIT, told: Explanation = TOLD, seed: int = 0) -> Trial:
    trial = replace(SCORER, seed=seed).pose(source.record(unit), told, source)
    assert isinstance(trial, Trial)
    return trial


def _answers(levels: np.ndarray) -> list[Prediction | Failure]:
    return [Prediction(tuple(row)) for row in levels.astype(float).tolist()]


def _anchors(made: World) -> np.ndarray:
    """Which positions are anchors of the score split."""
    fits = made.windows.length - made.windows.first >= SMALL.excerpt_tokens
    return made.windows.counted() & ((made.split == SPLITS.index("score")) & fits)[:, None]


def _value(trial: Trial, levels: np.ndarray, name: str = "pearson") -> Measure:
    measure = SCORER.score(trial, _answers(levels)).measures[name]
    assert isinstance(measure, Measure)
    return measure


@pytest.mark.parametrize("unit", [UNIT, NEURON])
def test_a_trial_is_a_sample_of_the_score_split(source: StoreSource, made: World, unit: Unit) -> None:
    """At most 120 items, the anchor of each with its truth, strata that add up to the split, the top taken whole."""
    trial = _trial(source, unit)
    sample, anchors, record = trial.sample, trial.anchors, source.record(unit)
    assert sample is not None
    assert anchors is not None
    assert len(trial.items) <= ALLOCATION.firing + ALLOCATION.silent == 120
    assert (trial.truth[np.arange(len(anchors)), anchors] == sample.truth).all()
    assert (sample.fires == (sample.truth > record.threshold)).all()
    assert sample.totals.anchors == _anchors(made).sum()
    assert sample.totals.fired == (made.fires(unit.arm, unit.index) & _anchors(made)).sum()
    n_firing = 1 + -(-SMALL.n_intervals // 2)
    assert sample.size[:n_firing].sum() == sample.totals.fired
    assert sample.size[n_firing:].sum() == sample.totals.anchors
    assert sample.size[0] == sample.taken[0] == 8
    assert (sample.taken >= np.minimum(sample.size, ALLOCATION.fewest)).all()
    highest = np.sort(made.dense[unit.arm][..., unit.index][_anchors(made)])[-1]
    assert sample.truth.max() == highest


def test_an_item_is_the_text_around_its_anchor(source: StoreSource) -> None:
    """Tokens are those of the score windows, and nothing in an item tells its stratum."""
    trial = _trial(source)
    assert {len(item.tokens) for item in trial.items} == {SMALL.excerpt_tokens}
    assert [item.tokens for item in trial.items] == [tuple(f"t{i}" for i in row) for row in trial.ids.tolist()]
    again = _trial(source)
    assert again.items == trial.items
    assert _trial(source, seed=1).items != trial.items


def test_an_oracle_scores_one(source: StoreSource) -> None:
    """Unquantised truth correlates fully and finds every firing."""
    trial = _trial(source)
    assert _value(trial, trial.truth).value == pytest.approx(1)
    assert _value(trial, trial.truth, "auprc").value == pytest.approx(1)


def test_only_anchors_count(source: StoreSource) -> None:
    """Predictions at other tokens of the items change nothing."""
    trial = _trial(source)
    assert trial.anchors is not None
    levels = np.random.default_rng(0).integers(0, 10, trial.truth.shape).astype(float)
    others = np.arange(levels.shape[1])[None, :] != trial.anchors[:, None]
    assert _value(trial, np.where(others, 0, levels)) == _value(trial, levels)


def test_p03_estimates_scatter_about_the_value_over_all_anchors(source: StoreSource, made: World) -> None:
    """A predictor that knows only the token: the mean over draws is the census, though each has few of the anchors."""
    anchors, truth = _anchors(made), made.dense["features"][..., 1]
    by_token = np.bincount(made.windows.tokens[anchors], truth[anchors], 23) * (np.arange(23) % 3 == 0)
    census = statistics.pearson(truth[anchors].astype(float), by_token[made.windows.tokens[anchors]])
    found = []
    for seed in range(40):
        trial = _trial(source, seed=seed)
        found.append(_value(trial, by_token[trial.ids]).value)
    assert np.mean(found) == pytest.approx(census, abs=0.05)


def test_a_constant_prediction_scores_zero_with_a_flag(source: StoreSource) -> None:
    """Whatever the level."""
    trial = _trial(source)
    score = SCORER.score(trial, _answers(np.full(trial.truth.shape, 4.0)))
    assert score.constant
    assert _value(trial, np.full(trial.truth.shape, 4.0)).value == 0


def test_missing_answers_are_left_out_up_to_a_tenth(source: StoreSource) -> None:
    """Others of the stratum stand for them; beyond a tenth every measure is undefined."""
    trial, missing = _trial(source), Failure("simulate", "invalid", "test")
    answers = _answers(trial.truth)
    few = [missing if i % 25 == 0 else answer for i, answer in enumerate(answers)]
    score = SCORER.score(trial, few)
    pearson = score.measures["pearson"]
    assert score.missing == sum(i % 25 == 0 for i in range(len(answers)))
    assert isinstance(pearson, Undefined) or pearson.value == pytest.approx(1)
    many = [missing if i % 5 == 0 else answer for i, answer in enumerate(answers)]
    assert all(isinstance(each, Undefined) for each in SCORER.score(trial, many).measures.values())


def test_a_score_has_every_measure_and_what_documents_do_to_it(source: StoreSource) -> None:
    """Names are fixed; the influence of clusters adds up to about 0."""
    trial = _trial(source)
    score = SCORER.score(trial, _answers(np.minimum(trial.truth, 3)))
    assert tuple(sorted(score.measures)) == tuple(sorted(MEASURES))
    assert score.influence is not None
    assert abs(float(score.influence.changes["pearson"].astype(float).sum())) < 0.01
    assert set(score.influence.clusters.tolist()) == set(trial.clusters.tolist())


def test_without_a_subject_nothing_is_posed(source: StoreSource) -> None:
    """Truth is recomputed or not at all."""
    with pytest.raises(Unavailable):
        SCORER.pose(source.record(UNIT), TOLD, StoreSource(source.store))
    unknown = replace(source.record(UNIT), firing=None)
    assert isinstance(SCORER.pose(unknown, TOLD, source), Failure)


def test_the_preset_asks_the_harvest_for_what_it_draws() -> None:
    """As many anchors of a stratum as one can get, and tops for the certainty stratum."""
    preset = Population()
    assert preset.harvest.score.anchors == ALLOCATION.firing - (ALLOCATION.strata - 1) * ALLOCATION.fewest
    assert preset.harvest.score.top >= ALLOCATION.top
    assert isinstance(preset.scorer(), PopulationScorer)
    assert isinstance(preset.scorer("select"), SimulationScorer)


def test_a_harvest_in_another_directory_gives_the_same_trial(source: StoreSource, made: World, tmp_path: Path) -> None:
    """Draws depend on unit, explanation and seed alone."""
    other = StoreSource(made.harvest(tmp_path, batches_of(400, 37)), source.recompute)
    assert _trial(other).items == _trial(source).items
    assert _trial(source, told=Explanation("other words", "test")).items != _trial(source).items
