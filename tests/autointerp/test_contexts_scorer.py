"""Detection and fuzzing: truth from activations, honest negatives, natural weights."""

from dataclasses import replace

import numpy as np
import pytest

from autointerp.activations.sampling import Anchors
from autointerp.protocols.contexts import Fuzzing2025
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Measure, Prediction, Score, Trial, Undefined
from autointerp.records.unit import Excerpt, Group, Split, SplitStatistics, UnitRecord
from autointerp.scorers.contexts import DetectionScorer, FuzzingScorer
from autointerp.scorers.resamples import average_precision
from autointerp.scorers.yes_no import NOT_FITTED, best_cut
from sae.corpus.windows import Windows
from tests.autointerp import synthetic

WIDTH = 32
TOKENS, COUNTS = 100_000, tuple(range(240, 0, -20))
EXPLANATION = Explanation("x", "y")
DETECTION, FUZZING = DetectionScorer(tokens=WIDTH), FuzzingScorer(tokens=WIDTH)


def context(
    number: int, group: Group, interval: int, firing: int, rng: np.random.Generator, place: int = 16
) -> Excerpt:
    """32 tokens of which `firing` fire, the anchor at `place` among them where it has an interval."""
    activations = np.zeros(WIDTH)
    others = rng.permutation(np.delete(np.arange(WIDTH), place))
    places = [place, *others[: firing - 1]] if interval else others[:firing]
    activations[places] = 1.0
    return Excerpt(
        window=number, start=0, cluster=number, ids=tuple(rng.integers(500, size=WIDTH).tolist()),
        tokens=tuple(f"t{i}" for i in range(WIDTH)), activations=tuple(activations.tolist()), anchor=place, group=group,
        interval=interval,
    )  # fmt: skip


def record(random_positives: int = 3, firing: int = 4, out_of_context: int = 30) -> UnitRecord:
    """Four contexts of each interval, 20 random ones, and tops elsewhere of which every third fires."""
    rng = np.random.default_rng(5)
    found = [context(i, "interval", 1 + i // 4, firing, rng) for i in range(48)]
    found += [context(100 + i, "random", 0, 2 if i < random_positives else 0, rng) for i in range(20)]
    found += [context(200 + i, "out_of_context", 0, 1 if i % 3 == 0 else 0, rng) for i in range(out_of_context)]
    statistics = SplitStatistics(TOKENS, sum(COUNTS), 6.0, 0.05, COUNTS)
    unit = replace(synthetic.record(), statistics={"explain": statistics, "score": statistics, "select": statistics})
    return replace(unit, wider={WIDTH: {"score": tuple(found), "select": tuple(found[:40])}})


def told_by_tokens(mean: float) -> UnitRecord:
    """A unit that fires on token 700 and on no other, and whose mean there is `mean`, of a maximum of 6."""
    unit = record()
    found = tuple(
        replace(each, ids=tuple(700 if fires else id_ for id_, fires in zip(each.ids, each.activations, strict=True)))
        for each in unit.wider[WIDTH]["score"]
    )
    return replace(unit, wider={WIDTH: {"score": found, "explain": found}}, token_means={700: mean})


def posed(scorer: DetectionScorer | FuzzingScorer, unit: UnitRecord) -> Trial:
    """The trial, which there is."""
    trial = scorer.pose(unit, EXPLANATION, synthetic.OneUnit(unit))
    assert isinstance(trial, Trial)
    return trial


def scored(scorer: DetectionScorer | FuzzingScorer, trial: Trial, certainties: np.ndarray) -> Score:
    """What answers come to."""
    return scorer.score(trial, [Prediction((float(each),)) for each in certainties])


def value(score: Score, name: str) -> float:
    """A measure that is defined."""
    measure = score.measures[name]
    assert isinstance(measure, Measure), measure
    return measure.value


def test_p10_truth_comes_from_activations_and_never_from_the_group() -> None:
    """Random contexts that fire are positive; a top token's context that fires is no hard negative."""
    trial = posed(DETECTION, record())
    groups, truth = np.array(trial.groups), trial.truth[:, 0]
    assert {g: int((groups == g).sum()) for g in set(trial.groups)} == {"interval": 24, "random": 18, "hard": 18}
    assert truth[groups == "interval"].all()
    assert truth[groups == "random"].sum() == 3
    assert not truth[groups == "hard"].any()


def test_strata_that_run_out_stay_short_and_too_few_are_refused() -> None:
    """Nothing fills in for missing hard negatives, and 20 contexts are the least."""
    assert posed(DETECTION, record(out_of_context=6)).groups.count("hard") == 4
    unit = record()
    short = replace(unit, wider={WIDTH: {"score": unit.wider[WIDTH]["score"][:10]}})
    for scorer in (DETECTION, FUZZING):
        failure = scorer.pose(short, EXPLANATION, synthetic.OneUnit(short))
        assert isinstance(failure, Failure)
        assert failure.kind == "too_few_excerpts"


def test_weights_add_up_to_the_tokens_of_the_split() -> None:
    """Firing tokens by interval, silent tokens by the random contexts; hard negatives stand for nothing."""
    trial = posed(DETECTION, record())
    groups = np.array(trial.groups)
    for interval in range(1, 13):
        assert trial.weights[trial.intervals == interval].sum() == pytest.approx(COUNTS[interval - 1])
    assert trial.weights[groups == "random"].sum() == pytest.approx(TOKENS - sum(COUNTS))
    assert trial.weights[groups == "hard"].sum() == 0


def test_p12_positives_per_call_are_left_to_chance() -> None:
    """No call of ten has a number of positives that could be learnt, and no two units have the same order."""
    unit = record()
    trials = [posed(DETECTION, replace(unit, unit=replace(unit.unit, index=i))) for i in range(8)]
    counts = {int(each.truth[start : start + 10].sum()) for each in trials for start in range(0, 60, 10)}
    assert len(counts) >= 5
    assert len({each.ids.tobytes() for each in trials}) == 8


def test_a_perfect_judge_scores_one_and_a_constant_one_a_half() -> None:
    """Saying yes always, or no always, is worth nothing more than chance; precision is that of running text."""
    trial = posed(DETECTION, record())
    truth = trial.truth[:, 0]
    perfect = scored(DETECTION, trial, truth)
    assert [value(perfect, name) for name in ("balanced_accuracy", "f1", "auprc")] == [1.0, 1.0, 1.0]
    ends = [value(perfect, f"{name}_balanced_accuracy") for name in ("constant", "quantised_oracle")]
    assert ends == [0.5, 1.0]
    for answer in (0.0, 1.0):
        constant = scored(DETECTION, trial, np.full(len(truth), answer))
        assert constant.constant
        assert value(constant, "balanced_accuracy") == 0.5
        natural = (trial.weights * truth).sum() / trial.weights.sum()
        assert value(constant, "auprc") == pytest.approx(natural)
        assert natural < truth.mean()


def test_hard_and_random_negatives_are_told_apart() -> None:
    """A judge that knows tokens only falls for hard negatives."""
    trial = posed(DETECTION, record())
    fooled = (trial.truth[:, 0] > 0) | (np.array(trial.groups) == "hard")
    score = scored(DETECTION, trial, fooled.astype(float))
    assert (value(score, "specificity_hard"), value(score, "specificity_random")) == (0.0, 1.0)


def test_a_unit_that_fires_everywhere_has_no_specificity() -> None:
    """Without a negative there is no number, and the reason is said."""
    trial = posed(DETECTION, record(random_positives=20, out_of_context=0))
    score = scored(DETECTION, trial, np.ones(len(trial.items)))
    assert score.measures["balanced_accuracy"] == Undefined("the trial has no positive item, or no negative one")
    assert value(score, "recall") == 1.0


def test_missing_answers_are_left_out_and_many_make_it_undefined() -> None:
    """P11: a failure is never a no."""
    trial = posed(DETECTION, record())
    lost = Failure("simulate", "invalid", "x")
    right = [Prediction((float(each),)) for each in trial.truth[:, 0]]
    few = DETECTION.score(trial, [lost, *right[1:]])
    assert (few.missing, value(few, "balanced_accuracy")) == (1, 1.0)
    many = DETECTION.score(trial, [*[lost] * 10, *right[10:]])
    assert isinstance(many.measures["balanced_accuracy"], Undefined)


def test_fuzzing_marks_all_firing_tokens_or_as_many_others() -> None:
    """Neither the context nor the number of marks tells which it is, and no context is asked twice."""
    unit = record()
    trial = posed(FUZZING, unit)
    by_ids = {each.ids: np.flatnonzero(each.activations) for each in unit.wider[WIDTH]["score"]}
    assert trial.truth.sum() == len(trial.items) / 2 == 24
    for item, ids, (true,) in zip(trial.items, trial.ids, trial.truth, strict=True):
        fires = by_ids[tuple(ids.tolist())]
        assert len(item.marked) == len(fires)
        assert set(item.marked) == set(fires.tolist()) if true else not set(item.marked) & set(fires.tolist())
    assert len({tuple(ids.tolist()) for ids in trial.ids}) == 48
    assert (trial.weights[trial.truth[:, 0] > 0].sum(), trial.weights.sum()) == pytest.approx((1.0, 2.0))


def test_p12_contexts_that_mostly_fire_are_asked_of_neither_kind() -> None:
    """They cannot be marked wrongly; were they asked as true items alone, the number of marks would tell."""
    unit, rng = record(), np.random.default_rng(1)
    dense = [context(300 + i, "interval", 1 + i // 2, 20, rng) for i in range(24)]
    both = replace(unit, wider={WIDTH: {"score": (*dense, *unit.wider[WIDTH]["score"])}})
    trial = posed(FUZZING, both)
    assert trial.truth.sum() == len(trial.items) / 2 == 24
    assert {len(item.marked) for item in trial.items} == {4}
    alone = record(firing=20)
    failure = FUZZING.pose(alone, EXPLANATION, synthetic.OneUnit(alone))
    assert isinstance(failure, Failure)
    assert failure.kind == "too_few_excerpts"


@pytest.mark.parametrize("mean", [0.05, 3.0])
def test_a_token_table_answers_as_well_as_it_can_whatever_its_scale(mean: float) -> None:
    """Of a unit of one token it knows all, be the mean a hundredth of the maximum; the cut comes from explain alone."""
    unit = told_by_tokens(mean)
    asked = unit.wider[WIDTH]["score"]
    turned = tuple(replace(each, activations=each.activations[::-1]) for each in asked)
    for scorer in (DETECTION, FUZZING):
        trial = posed(scorer, unit)
        score = scored(scorer, trial, np.zeros(len(trial.items)))
        assert value(score, "unigram_balanced_accuracy") == value(score, "unigram_auprc") == 1.0
        assert (
            posed(scorer, replace(unit, wider={WIDTH: {**unit.wider[WIDTH], "score": turned}})).learnt == trial.learnt
        )


def test_where_no_context_explains_the_table_has_no_yes_and_still_its_order() -> None:
    """Balanced accuracy needs a cut, which is never taken from the items that are asked; AUPRC needs none."""
    unit = told_by_tokens(0.05)
    for scorer in (DETECTION, FUZZING):
        trial = posed(scorer, replace(unit, wider={WIDTH: {"score": unit.wider[WIDTH]["score"]}}))
        score = scored(scorer, trial, np.zeros(len(trial.items)))
        assert score.measures["unigram_balanced_accuracy"] == score.measures["anchor_balanced_accuracy"] == NOT_FITTED
        assert value(score, "unigram_auprc") == 1.0


def test_the_best_cut_is_in_the_middle_of_the_gap_and_a_useless_table_says_no() -> None:
    """Ties between cuts go to the lowest; where all values are the same, yes is never said."""
    says, positive = np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, False, True, True])
    assert best_cut(says, positive) == pytest.approx(0.4)
    assert best_cut(says, ~positive) == best_cut(np.zeros(4), positive) == 1.0


@pytest.mark.parametrize(("centred", "tells"), [(True, True), (Fuzzing2025().harvest.wider[0].centred, False)])
def test_p12_the_place_of_the_marks_tells_nothing_as_contexts_are_harvested(*, centred: bool, tells: bool) -> None:
    """Were contexts centred on their anchor, its place would tell most of the truth without any explanation."""
    none = np.zeros(400, dtype=np.int32)
    windows = Windows(np.zeros((400, 128), dtype=np.int32), none + 128, none, none, 0)
    anchors, rng = Anchors(windows, WIDTH, centred=centred), np.random.default_rng(3)
    reached: list[float] = []
    for _ in range(8):
        found: dict[Split, tuple[Excerpt, ...]] = {}
        for split in ("explain", "score"):
            window, position = (rng.integers(n, size=48).astype(np.int32) for n in (400, 128))
            at = (position - anchors.start(window, position)).tolist()
            found[split] = tuple(context(i, "interval", 1 + i // 4, 2, rng, place) for i, place in enumerate(at))
        trial = posed(FUZZING, replace(record(), wider={WIDTH: found}))
        reached.append(value(scored(FUZZING, trial, np.zeros(48)), "anchor_balanced_accuracy"))
    assert np.mean(reached) > 0.75 if tells else abs(np.mean(reached) - 0.5) < 0.05


def test_the_highest_activation_can_be_asked() -> None:
    """A context that is also a top one is asked for its interval, and of two intervals' contexts the higher is kept."""
    unit = record()
    found = unit.wider[WIDTH]["score"]
    best = [each for each in found if each.group == "interval" and each.interval == 12]
    tops = tuple(replace(each, group="top") for each in best)
    low = tuple(replace(each, interval=1, anchor=0) for each in best)
    both = replace(unit, wider={WIDTH: {"score": (*tops, *low, *found)}})
    for scorer in (DETECTION, FUZZING):
        for trial in (posed(scorer, both), posed(scorer, unit)):
            assert (trial.intervals == 12).sum() == (2 if scorer is DETECTION else 4)
            assert tuple(best[0].ids) in {tuple(ids) for ids in trial.ids.tolist()}


def test_average_precision_with_weights_is_that_of_the_repeated_sample() -> None:
    """A weight of three counts as three items; ties are taken together."""
    rng = np.random.default_rng(0)
    certain, positive = rng.integers(4, size=30) / 3, rng.random(30) < 0.4
    weights = rng.integers(1, 4, size=30)
    whole = average_precision(np.repeat(certain, weights), np.repeat(positive, weights), np.ones((1, weights.sum())))
    assert average_precision(certain, positive, weights[None, :].astype(float)) == pytest.approx(whole)
    assert average_precision(
        np.array([3.0, 2.0, 1.0]), np.array([True, False, True]), np.ones((1, 3))
    ) == pytest.approx([(1 + 2 / 3) / 2])


def test_token_tables_answer_too_and_documents_have_their_influence() -> None:
    """`bigram` knows what `unigram` does not, where a source gives it; influences add up to nothing."""
    unit = told_by_tokens(1.0)
    trial = posed(DETECTION, unit)
    score = scored(DETECTION, trial, np.arange(len(trial.items)) % 3 / 2)
    assert 0 <= value(score, "unigram_balanced_accuracy") <= 1
    assert isinstance(score.measures["bigram_balanced_accuracy"], Undefined)
    pairs = tuple(replace(each, bigram=each.activations) for each in unit.wider[WIDTH]["score"])
    for scorer in (DETECTION, FUZZING):
        told = posed(scorer, replace(unit, wider={WIDTH: {**unit.wider[WIDTH], "score": pairs}}))
        assert value(scored(scorer, told, np.zeros(len(told.items))), "bigram_balanced_accuracy") == 1.0
    assert score.influence is not None
    for changes in score.influence.changes.values():
        assert float(changes.astype(np.float64).sum()) == pytest.approx(0, abs=0.02)
