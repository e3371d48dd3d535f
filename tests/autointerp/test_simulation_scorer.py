"""A trial hides its truth, and its score says what the predictions are worth."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp import notation, statistics
from autointerp.records.anchors import Activations, Pool, Text
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Measure, Prediction, Score, Trial, Undefined
from autointerp.records.unit import Split, SplitStatistics, Unit, UnitRecord
from autointerp.scorers.simulation import MEASURES, GroupSizes, SimulationScorer, choose, importance
from tests.autointerp import synthetic

SIZES = GroupSizes(top=6, per_interval=2, random=10, out_of_context=20)
SCORER = SimulationScorer(sizes=SIZES, top_level=9)
MISSING = Failure("simulate", "invalid", "test")


class _Nothing:
    """A source that has nothing to give: posing needs the record alone."""

    def units(self) -> Sequence[Unit]:
        raise NotImplementedError

    def record(self, unit: Unit) -> UnitRecord:
        raise NotImplementedError

    def activations(self, unit: Unit, windows: Sequence[int]) -> Activations:
        raise NotImplementedError

    def text(self, split: Split) -> Text:
        raise NotImplementedError

    def pool(self, split: Split) -> Pool:
        raise NotImplementedError


def _pose(record: UnitRecord, scorer: SimulationScorer = SCORER) -> Trial | Failure:
    return scorer.pose(record, Explanation("words", "test"), _Nothing())


def _trial(record: UnitRecord) -> Trial:
    trial = _pose(record)
    assert isinstance(trial, Trial)
    return trial


def _predict(levels: np.ndarray) -> list[Prediction | Failure]:
    return [Prediction(tuple(row)) for row in levels.astype(float).tolist()]


def _value(score: Score, name: str) -> float:
    measure = score.measures[name]
    assert isinstance(measure, Measure)
    return measure.value


@pytest.fixture(scope="module")
def trial() -> Trial:
    """For tests that change the answers only."""
    return _trial(synthetic.record())


def test_a_trial_has_the_papers_sixty_items(trial: Trial) -> None:
    """6 top, 2 of each interval, 10 random, 20 out of context, of 9 tokens each, all different."""
    assert Counter(trial.groups) == {"top": 6, "interval": 24, "random": 10, "out_of_context": 20}
    assert Counter(trial.intervals.tolist()) == {0: 36, **dict.fromkeys(range(1, 13), 2)}
    assert trial.truth.shape == trial.ids.shape == trial.unigram.shape == (60, 9)
    assert len({item.tokens for item in trial.items}) == 60


def test_a_trial_comes_from_score_documents_only() -> None:
    """Every item is one of the record's score excerpts, with its own truth and cluster."""
    record = synthetic.record()
    trial = _trial(record)
    known = {e.ids: (e.activations, e.cluster, e.tokens) for e in record.excerpts["score"]}
    for ids, truth, cluster, item in zip(trial.ids, trial.truth, trial.clusters, trial.items, strict=True):
        assert known[tuple(ids.tolist())] == (tuple(truth.tolist()), cluster, item.tokens)


def test_items_tell_nothing_of_the_truth() -> None:
    """An item is its tokens; neither they nor their order change when the activations do."""
    record = synthetic.record()
    assert [field.name for field in dataclasses.fields(Item)] == ["tokens", "marked"]
    others_truth = tuple(
        dataclasses.replace(e, activations=tuple(a / 2 + i for i, a in enumerate(e.activations)))
        for e in record.excerpts["score"]
    )
    assert _trial(synthetic.with_excerpts(record, "score", others_truth)).items == _trial(record).items


def test_the_order_is_the_units_own() -> None:
    """Items are shuffled across groups: the same every time, another for another unit, arm or seed."""
    record = synthetic.record()
    items = _trial(record).items
    assert list(_trial(record).groups) != sorted(_trial(record).groups)
    assert _trial(record).items == items
    for change in ({"index": 1}, {"arm": "neurons"}):
        other = dataclasses.replace(record, unit=dataclasses.replace(record.unit, **change))
        assert _trial(other).items != items
    reseeded = _pose(record, dataclasses.replace(SCORER, seed=1))
    assert isinstance(reseeded, Trial)
    assert reseeded.items != items


def test_duplicates_give_way_to_the_next_of_their_group() -> None:
    """An excerpt with the tokens of an earlier one is passed over; the group is filled from its own spares."""
    record = synthetic.record()
    kept = record.excerpts["score"]
    first = kept[0]
    twins = (dataclasses.replace(first, group="random", interval=0), dataclasses.replace(first, start=99))
    chosen = choose((*twins, *kept), SIZES)
    assert len(chosen) == 60
    assert Counter(e.ids for e in chosen)[first.ids] == 1
    assert chosen[0].start == 99
    assert [e for e in chosen if e.group == "random"] == [e for e in kept if e.group == "random"][:10]


def test_a_short_group_stays_short() -> None:
    """An interval without excerpts is not made up for by others."""
    record = synthetic.record()
    fewer = tuple(e for e in record.excerpts["score"] if not (e.group == "interval" and e.interval in (3, 4)))
    assert len(choose(fewer, SIZES)) == 56


def test_silent_units_and_few_excerpts_are_failures() -> None:
    """Nothing to predict, or too little, is a reason and no score."""
    record = synthetic.record()
    silent = _pose(synthetic.with_statistics(record, "score", synthetic.SILENT))
    few = _pose(synthetic.with_excerpts(record, "score", record.excerpts["score"][:6] * 2))
    assert isinstance(silent, Failure)
    assert isinstance(few, Failure)
    assert (silent.stage, silent.kind) == ("pose", "silent_in_score")
    assert (few.stage, few.kind) == ("pose", "too_few_excerpts")
    assert few.message.startswith("6 score excerpts; 20")


def test_weights_are_the_papers() -> None:
    """By hand: 1000 + 3000 positions; interval 2 fires on 6 + 10, interval 12 on 1 + 0 of them."""
    record = synthetic.record()
    explain = SplitStatistics(1000, 12, 6.0, 0.1, (5, 6, *(0,) * 9, 1))
    score = SplitStatistics(3000, 10, 5.0, 0.1, (0, 10, *(0,) * 9, 0))
    calibrate = SplitStatistics(500, 40, 5.0, 0.1, (0, 40, *(0,) * 9, 0))  # harvested for another protocol: no matter
    record = dataclasses.replace(record, statistics={"explain": explain, "score": score, "calibrate": calibrate})
    density, second, last = 22 / 4000, 16 / 22, 1 / 22
    expected = {"random": 1.0, "out_of_context": density * last, "top": density * last, "interval": density * second}
    for group, weight in expected.items():
        excerpt = dataclasses.replace(record.excerpts["score"][0], group=group, interval=2)
        assert importance(record, excerpt) == pytest.approx(weight)


def test_the_weighted_measure_uses_the_weights(trial: Trial) -> None:
    """It is the Spearman correlation in which every token counts by its item's weight."""
    levels = notation.quantise(trial.unigram, trial.maximum, 9).astype(float)
    weights = np.repeat(trial.weights[:, None], 9, axis=1)
    expected = statistics.spearman(trial.truth, levels, weights)
    score = SCORER.score(trial, _predict(levels))
    assert _value(score, "spearman_weighted") == expected
    assert _value(score, "spearman_weighted") != pytest.approx(_value(score, "spearman"), abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_an_unquantised_oracle_scores_one(seed: int) -> None:
    """Who knows the activations scores exactly 1 on every measure of its predictions."""
    trial = _trial(synthetic.record(seed))
    score = SCORER.score(trial, _predict(trial.truth))
    assert set(score.measures) == set(MEASURES)
    for name in MEASURES:
        if not name.startswith(("unigram", "bigram", "anchor", "quantised")):
            measure = score.measures[name]
            assert isinstance(measure, Measure)
            assert measure.value == 1
            assert measure.low == pytest.approx(1) or measure.low == -1
    assert not score.constant


@pytest.mark.parametrize(("seed", "level"), [(1, 0), (2, 3), (3, 9)])
def test_a_constant_prediction_scores_zero_with_a_flag(seed: int, level: int) -> None:
    """The same level everywhere scores 0, is flagged, and is not missing."""
    trial = _trial(synthetic.record(seed))
    score = SCORER.score(trial, _predict(np.full(trial.truth.shape, level)))
    assert score.constant
    assert score.missing == 0
    assert {_value(score, name) for name in ("spearman", "pearson", "spearman_weighted", "spearman_interval_5")} == {0}
    assert _value(score, "quantised_oracle_spearman") > 0.8


def test_shuffled_predictions_score_nothing_on_average(trial: Trial) -> None:
    """Perfect levels at the wrong tokens average near 0, and about as many intervals as they should miss 0."""
    rng = np.random.default_rng(0)
    scores = [SCORER.score(trial, _predict(rng.permuted(trial.truth.ravel()).reshape(60, 9))) for _ in range(60)]
    assert abs(np.mean([_value(score, "spearman") for score in scores])) < 0.03
    assert abs(np.mean([_value(score, "pearson") for score in scores])) < 0.03
    headline = [cast(Measure, score.measures["spearman"]) for score in scores]
    assert sum(measure.low <= 0 <= measure.high for measure in headline) >= 51


@settings(max_examples=10)
@given(missing=st.sets(st.integers(0, 59), min_size=1, max_size=6))
def test_missing_items_are_left_out(trial: Trial, missing: set[int]) -> None:
    """Up to a tenth missing: every number is that of a trial without those items, and they are counted."""
    kept = np.array([i not in missing for i in range(60)])
    answers: Sequence[Prediction | Failure] = _predict(trial.unigram)
    score = SCORER.score(trial, [answer if keep else MISSING for answer, keep in zip(answers, kept, strict=True)])
    groups = tuple(group for group, keep in zip(trial.groups, kept, strict=True) if keep)
    items = tuple(item for item, keep in zip(trial.items, kept, strict=True) if keep)
    names = ("ids", "truth", "unigram", "weights", "clusters", "intervals", "bigram", "anchors")
    smaller = dataclasses.replace(
        trial, items=items, groups=groups, **{name: getattr(trial, name)[kept] for name in names}
    )
    assert score.measures == SCORER.score(smaller, _predict(smaller.unigram)).measures
    assert (score.items, score.missing) == (60, len(missing))


def test_too_many_missing_leave_no_measure(trial: Trial) -> None:
    """With less than nine tenths answered nothing is defined, whatever the answers were."""
    answers = _predict(trial.truth)
    for missing in (7, 60):
        score = SCORER.score(trial, [MISSING] * missing + answers[missing:])
        assert set(score.measures) == set(MEASURES)
        for measure in score.measures.values():
            assert isinstance(measure, Undefined)
            assert measure.reason.startswith(f"incomplete: {60 - missing} of 60")
        assert score.missing == missing


def test_every_item_needs_a_result(trial: Trial) -> None:
    """A simulator that loses an item is a programming error, never a shift of its answers."""
    with pytest.raises(ValueError, match="zip"):
        SCORER.score(trial, _predict(trial.truth)[1:])


def test_an_intervals_measure_sees_its_items_and_the_random_ones(trial: Trial) -> None:
    """Predictions on other items do not move it; without an item of the interval it is undefined."""
    others = ~((trial.intervals == 5) | (np.array(trial.groups) == "random"))
    levels = trial.unigram.copy()
    before = SCORER.score(trial, _predict(levels))
    levels[others] = np.random.default_rng(0).random(levels[others].shape)
    after = SCORER.score(trial, _predict(levels))
    assert after.measures["spearman_interval_5"] == before.measures["spearman_interval_5"]
    assert after.measures["spearman_interval_6"] != before.measures["spearman_interval_6"]
    emptied = dataclasses.replace(trial, intervals=np.where(trial.intervals == 5, 0, trial.intervals).astype(np.int32))
    assert SCORER.score(emptied, _predict(levels)).measures["spearman_interval_5"] == Undefined(
        "no item of this interval"
    )


def test_unigram_is_the_token_means() -> None:
    """The reference predictor looks up the mean activation of each token id, 0 where it never fired."""
    record = synthetic.record()
    trial = _trial(record)
    assert (trial.unigram == np.where(trial.ids < 30, trial.ids / 5, 0)).all()
    score = SCORER.score(trial, _predict(np.zeros(trial.truth.shape)))
    assert _value(score, "unigram_spearman") == statistics.spearman(trial.truth, trial.unigram)
    assert _value(score, "unigram_pearson") == statistics.pearson(trial.truth, trial.unigram)


def test_the_quantised_oracle_is_the_ceiling_of_levels(trial: Trial) -> None:
    """It is the score of a simulator that answers the true levels."""
    levels = notation.quantise(trial.truth, trial.maximum, trial.top_level)
    score = SCORER.score(trial, _predict(levels))
    assert score.measures["quantised_oracle_spearman"] == score.measures["spearman"]
    assert 0.8 < _value(score, "spearman") < 1


def test_reference_predictors_stand_in_their_order(trial: Trial) -> None:
    """Exact truth above its levels, these above a noisy reading, above tokens alone, above nothing.

    Always the highest level at the anchor is what position gives away; it is measured and needs no explanation.
    """
    rng = np.random.default_rng(0)
    levels = notation.quantise(trial.truth, trial.maximum, trial.top_level).astype(np.float64)
    noisy = np.clip(levels + rng.normal(0, 0.6, levels.shape) * (levels > 0), 0, 9)
    predictions = trial.truth, levels, noisy, trial.unigram, np.zeros(levels.shape)
    scores = [_value(SCORER.score(trial, _predict(each)), "spearman") for each in predictions]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)
    score = SCORER.score(trial, _predict(noisy))
    at_anchor = np.zeros(levels.shape)
    at_anchor[:, 4] = 9
    assert _value(score, "anchor_spearman") == statistics.spearman(trial.truth, at_anchor)
    assert trial.bigram is not None
    assert _value(score, "bigram_pearson") == statistics.pearson(trial.truth, trial.bigram)
    assert 0 < _value(score, "anchor_spearman") < _value(score, "quantised_oracle_spearman")


def test_a_source_without_pairs_leaves_bigram_undefined(trial: Trial) -> None:
    """Foreign data sets have no such table; everything else stands."""
    without = SCORER.score(dataclasses.replace(trial, bigram=None), _predict(trial.unigram)).measures
    assert isinstance(without["bigram_spearman"], Undefined)
    assert without["spearman"] == SCORER.score(trial, _predict(trial.unigram)).measures["spearman"]


def test_no_number_is_nan(trial: Trial) -> None:
    """Every measure is finite and lies in an ordered interval within [-1, 1], or is undefined with its reason."""
    score = SCORER.score(trial, _predict(trial.unigram))
    for measure in score.measures.values():
        assert isinstance(measure, Measure)
        assert -1 <= measure.low <= measure.high <= 1
        assert -1 <= measure.value <= 1
    flat = dataclasses.replace(trial, truth=np.zeros(trial.truth.shape))
    assert SCORER.score(flat, _predict(trial.unigram)).measures["pearson"] == Undefined("the truth is constant")
    assert score.headline == "spearman"
