"""Top-and-random scoring: which windows, what they come to, and what calibration may look at."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp import statistics
from autointerp.protocols.bills_2023 import Bills2023
from autointerp.records.explanation import Evidence, Explanation, Failure
from autointerp.records.trial import Measure, Prediction, Trial, Undefined
from autointerp.records.unit import Excerpt, Group, Split, UnitRecord
from autointerp.scorers.resamples import correlations
from autointerp.scorers.top_and_random import deal, linear_fit, percentile_fit
from tests.autointerp import synthetic

WIDTH = 64
PROTOCOL = Bills2023()
SCORER = PROTOCOL.scorer()
EXPLANATION = Explanation("x", "y")


def window(number: int, group: Group, split: Split, rng: np.random.Generator) -> Excerpt:
    """64 tokens; top ones fire on a tenth of them."""
    fires = rng.random(WIDTH) < (0.1 if group == "top" else 0.02)
    return Excerpt(
        window=number, start=0, cluster=number, ids=tuple(rng.integers(500, size=WIDTH).tolist()),
        tokens=tuple(f"{split}{number}-{i}" for i in range(WIDTH)),
        activations=tuple((fires * rng.random(WIDTH) * 6).tolist()), anchor=32, group=group, interval=0,
    )  # fmt: skip


def record(*, tops: int = 12, calibrate: bool = True) -> UnitRecord:
    """Windows of every split."""
    rng = np.random.default_rng(2)

    def of(split: Split, begin: int) -> tuple[Excerpt, ...]:
        found = [window(begin + i, "top", split, rng) for i in range(tops)]
        return (*found, *(window(begin + 50 + i, "random", split, rng) for i in range(10)))

    kept: dict[Split, tuple[Excerpt, ...]] = {"explain": of("explain", 0), "score": of("score", 100)}
    kept["calibrate"] = of("calibrate", 200) if calibrate else ()
    unit = synthetic.record()
    return replace(unit, statistics={**unit.statistics, "calibrate": synthetic.SILENT}, wider={WIDTH: kept})


def posed(unit: UnitRecord) -> Trial:
    """The trial, which there is."""
    trial = SCORER.pose(unit, EXPLANATION, synthetic.OneUnit(unit))
    assert isinstance(trial, Trial)
    return trial


def answered(trial: Trial, levels: np.ndarray) -> list[Prediction | Failure]:
    """Levels as predictions."""
    return [Prediction(tuple(map(float, row))) for row in levels]


def test_the_evidence_is_every_second_top_window_of_explain_documents() -> None:
    """Five windows of 64 tokens, levels up to 10, no logits; fewer are too few."""
    unit = record()
    evidence = PROTOCOL.evidence(unit)
    assert isinstance(evidence, Evidence)
    tops = [each.tokens for each in unit.wider[WIDTH]["explain"] if each.group == "top"]
    assert [each.tokens for each in evidence.excerpts] == tops[:10:2]
    assert (evidence.top_level, evidence.promoted) == (10, ())
    failure = PROTOCOL.evidence(record(tops=8))
    assert isinstance(failure, Failure)
    assert failure.kind == "too_few_excerpts"


def test_a_trial_has_five_of_each_and_as_many_to_calibrate_on() -> None:
    """No window of another split, none twice; the calibrate split is asked and marked as such."""
    trial = posed(record())
    assert trial.fitted is not None
    for fitted, split in ((False, "score"), (True, "calibrate")):
        chosen = trial.fitted == fitted
        assert sorted(np.array(trial.groups)[chosen]) == ["random"] * 5 + ["top"] * 5
        assert all(item.tokens[0].startswith(split) for item, own in zip(trial.items, chosen, strict=True) if own)
    assert len(set(trial.items)) == 20


def test_a_random_window_that_is_a_top_window_is_passed_over() -> None:
    """The same window is not asked twice under two names."""
    rng = np.random.default_rng(0)
    tops = [window(i, "top", "score", rng) for i in range(4)]
    random = [window(0, "random", "score", rng), window(9, "random", "score", rng)]
    assert [(each.group, each.window) for each in deal([*tops, *random], 2)] == [("top", 0), ("top", 2), ("random", 9)]


def test_the_oracle_scores_one_under_every_measure() -> None:
    """Unquantised truth correlates perfectly, and either calibration recovers all of it."""
    trial = posed(record())
    measures = SCORER.score(trial, answered(trial, trial.truth / trial.maximum * 10)).measures
    for name in ("ev_correlation", "ev_correlation_top", "ev_correlation_random", "linear_r2", "linear_absolute"):
        measure = measures[name]
        assert isinstance(measure, Measure)
        assert measure.value == pytest.approx(1.0), name


def test_calibration_sees_the_calibrate_split_and_scores_see_none_of_it() -> None:
    """Other answers on calibrate windows move the calibrated measures only, which need such windows."""
    trial = posed(record())
    assert trial.fitted is not None
    levels = trial.truth.copy()
    before = SCORER.score(trial, answered(trial, levels)).measures
    levels[trial.fitted] = levels[trial.fitted][:, ::-1]
    after = SCORER.score(trial, answered(trial, levels)).measures
    moved = {name for name in before if before[name] != after[name]}
    assert moved
    assert all(name.startswith(("linear", "percentile")) for name in moved)
    bare = posed(record(calibrate=False))
    measures = SCORER.score(bare, answered(bare, bare.truth)).measures
    assert isinstance(measures["linear_r2"], Undefined)
    assert isinstance(measures["ev_correlation"], Measure)


def test_p11_a_missing_window_is_left_out_and_never_zeros() -> None:
    """Of ten windows one may be missing, not two; missing windows of the calibrate split cost only the calibration."""
    trial = posed(record())
    assert trial.fitted is not None
    lost = Failure("simulate", "invalid", "x")
    given = answered(trial, trial.truth)
    scored = np.flatnonzero(~trial.fitted)
    one = SCORER.score(trial, [lost if i == scored[0] else each for i, each in enumerate(given)])
    assert isinstance(one.measures["ev_correlation"], Measure)
    assert one.measures["ev_correlation"].value == pytest.approx(1.0)
    two = SCORER.score(trial, [lost if i in scored[:2] else each for i, each in enumerate(given)])
    assert isinstance(two.measures["ev_correlation"], Undefined)
    none = SCORER.score(trial, [lost if fitted else each for fitted, each in zip(trial.fitted, given, strict=True)])
    assert isinstance(none.measures["linear_r2"], Undefined)
    assert isinstance(none.measures["ev_correlation"], Measure)


def test_a_constant_prediction_scores_zero_with_a_flag() -> None:
    """All zeros correlate with nothing, and explain nothing after calibration but the mean."""
    trial = posed(record())
    score = SCORER.score(trial, answered(trial, np.zeros(trial.truth.shape)))
    assert score.constant
    assert isinstance(score.measures["ev_correlation"], Measure)
    assert score.measures["ev_correlation"].value == 0.0


@given(st.lists(st.tuples(st.integers(0, 10), st.floats(0, 5)), min_size=3, max_size=40))
def test_percentile_matching_gives_the_calibrate_set_its_own_mean_and_order(pairs: list[tuple[int, float]]) -> None:
    """The matched values have the truth's mean, rise with the prediction and stay in its range."""
    prediction, truth = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    matched = percentile_fit(prediction, truth)(prediction)
    assert matched.mean() == pytest.approx(truth.mean())
    assert (np.diff(matched[np.argsort(prediction, kind="stable")]) >= -1e-9).all()
    assert matched.min() >= truth.min() - 1e-9
    assert matched.max() <= truth.max() + 1e-9
    line = linear_fit(prediction, truth)(prediction)
    if len(set(prediction.tolist())) > 1:
        assert line == pytest.approx(np.polyval(np.polyfit(prediction, truth, 1), prediction), abs=1e-6)


def test_resampled_correlations_are_those_of_the_repeated_windows() -> None:
    """Row by row the correlation of the sample that a resample stands for."""
    rng = np.random.default_rng(3)
    truth, prediction = rng.random((6, 4)), rng.random((6, 4))
    times = np.array([[1, 1, 1, 1, 1, 1], [2, 0, 1, 0, 3, 0]])
    found = correlations(truth, prediction, times.astype(float))
    for row, value in zip(times, found, strict=True):
        chosen = np.repeat(np.arange(6), row)
        assert value == pytest.approx(statistics.pearson(truth[chosen], prediction[chosen]))
