"""Tests for the pitfalls of automated interpretability that this program guards against, by their numbers.

The numbers are those of the list that the project keeps of published faults. Each test can fail by itself; larger
proofs lie beside the code, and tests there that are named by a number count too.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from autointerp import statistics
from autointerp.activations.plan import SPLITS
from autointerp.compare import compare
from autointerp.counted import LIFT
from autointerp.explain.llm import render_explain
from autointerp.inference import Sample, difference
from autointerp.matching import LengthControl, Wording, length_control
from autointerp.power import detectable_difference
from autointerp.prompts import load_prompt
from autointerp.protocols.monosemanticity_2023 import Monosemanticity2023
from autointerp.records.anchors import Pool
from autointerp.records.explanation import Evidence, Explanation, Failure
from autointerp.records.trial import Measure, Prediction, Score, Trial, Undefined
from autointerp.records.unit import Split, Unit, UnitRecord
from autointerp.report.verdict import verdict
from autointerp.simulate.llm import render_simulate
from autointerp.statistics import Estimate
from sae.baselines import Neurons
from sae.corpus.splits import SHARES
from tests.autointerp.synthetic import record
from tests.autointerp.synthetic_outcomes import arm_info, outcome, realistic

PROTOCOL = Monosemanticity2023()


class Nothing:
    """A source that no trial of these may ask."""

    def units(self) -> list[Unit]:
        """None."""
        return []

    def record(self, unit: Unit) -> UnitRecord:
        """Never asked."""
        raise NotImplementedError

    def activations(self, unit: Unit, windows: Sequence[int]) -> np.ndarray:
        """Never asked."""
        raise NotImplementedError

    def pool(self, split: Split) -> Pool:
        """Never asked."""
        raise NotImplementedError

    def text(self, split: Split) -> None:
        """Never asked."""
        raise NotImplementedError


@pytest.fixture(scope="module")
def trial() -> Trial:
    """A unit's trial."""
    posed = PROTOCOL.scorer().pose(record(), Explanation("", ""), Nothing())
    assert isinstance(posed, Trial)
    return posed


def value(score: Score, measure: str) -> float:
    """A measure that must be defined."""
    found = score.measures[measure]
    assert isinstance(found, Measure)
    return found.value


def test_p01_extra_labels_lower_pearson_where_spearman_does_not_mind() -> None:
    """P1: of sparse units whose explanation fires twice too often, Pearson punishes all, Spearman many it does not."""
    rng, fell = np.random.default_rng(0), {"pearson": 0, "spearman": 0}
    for _ in range(100):
        truth = np.where(rng.random(2000) < 0.01, rng.gamma(2, size=2000), 0.0)
        noisy = truth + 0.3 * rng.random(2000)  # what a simulator thinks of silent tokens
        extra = np.where((truth == 0) & (rng.random(2000) < 0.01), rng.gamma(2, size=2000), noisy)
        for name, correlation in (("pearson", statistics.pearson), ("spearman", statistics.spearman)):
            before, after = correlation(truth, noisy), correlation(truth, extra)
            assert before is not None
            assert after is not None
            fell[name] += after < before - 0.05
    assert fell["pearson"] == 100
    assert fell["spearman"] < 50


def test_p04_every_verdict_has_the_lift_over_a_token_table() -> None:
    """P4: a unit that its token decides has no lift, and the lift is said wherever scores are."""
    outcomes, arms = realistic(40, 40)
    comparison = compare(outcomes, arms, "features", 0)
    assert all(LIFT in arm.measures for arm in comparison.arms)
    assert "Above unigram" in verdict(comparison)
    token_only = [outcome(i, "features", i, 0.25) for i in range(8)]
    lift = compare(token_only, [arm_info("features", 8)], "features", 0).arms[0].measures[LIFT].mean
    assert isinstance(lift, Estimate)
    assert lift.value == 0


def test_p05_a_floor_and_the_truth_in_levels_place_every_score(trial: Trial) -> None:
    """P5: nothing said scores 0, the truth in levels more than that, and the truth itself 1."""
    scorer, width = PROTOCOL.scorer(), trial.truth.shape[1]
    silent = scorer.score(trial, [Prediction((0.0,) * width)] * len(trial.items))
    exact = scorer.score(trial, [Prediction(tuple(row)) for row in trial.truth.tolist()])
    levels = np.minimum(np.floor(trial.truth / trial.maximum * 10), 9)
    quantised = scorer.score(trial, [Prediction(tuple(row)) for row in levels.tolist()])
    assert (value(silent, "spearman"), value(exact, "spearman")) == (0, 1)
    assert value(quantised, "spearman") == pytest.approx(value(exact, "quantised_oracle_spearman"), abs=0.02)
    assert silent.constant


def test_p06_both_tails_of_a_signed_neuron_are_units() -> None:
    """P6: a neuron that goes below zero gives two units, each with its tail."""
    torch = pytest.importorskip("torch")
    tails = Neurons(2, signed=True).encode(torch.tensor([[1.5, -0.5]]))
    assert sorted(tails[0].tolist()) == [0.0, 0.0, 0.5, 1.5]
    assert set(Neurons(2, signed=True).names()) == {"0+", "0-", "1+", "1-"}


def test_p08_copies_within_a_document_are_no_new_information() -> None:
    """P8: tokens repeated in their document narrow no interval, and units that share documents are not independent."""
    rng = np.random.default_rng(1)
    x = rng.random((30, 4))
    y, clusters = x + rng.normal(size=x.shape), rng.integers(12, size=30)
    widths: list[float] = []
    for copies in (1, 3):
        repeated = [np.concatenate([each] * copies) for each in (x, y, clusters)]
        draws = statistics.draw_clusters(repeated[2], np.random.default_rng(2))
        found = statistics.pearson_with_interval(repeated[0], repeated[1], draws)
        assert found is not None
        interval = found[1]
        widths.append(interval.high - interval.low)
    assert widths[1] == pytest.approx(widths[0])
    shared = [
        Sample(rng.normal(size=8) * 0.01, np.arange(8), np.zeros(8, dtype=int), np.full(8, s)) for s in (0.2, -0.2)
    ]
    two_way, alone = (
        difference(*arms, ("mean",), np.random.default_rng(3))["mean"]
        for arms in (shared, [Sample.of(each.values) for each in shared])
    )
    assert isinstance(two_way, Estimate)
    assert isinstance(alone, Estimate)
    assert two_way.high - two_way.low > 5 * (alone.high - alone.low)


def test_p09_what_a_run_can_see_is_known_before() -> None:
    """P9: 250 units an arm see 0.05, 15 see no less than 0.2."""
    assert detectable_difference(250, 250) == pytest.approx(0.05, abs=0.001)
    assert detectable_difference(15, 15) > 0.2


def test_p10_random_windows_are_labelled_by_activations(harvest: Path) -> None:
    """P10: random excerpts keep what the unit did there; somewhere it fires."""
    table = pq.read_table(harvest / "harvest" / "excerpts.parquet").to_pylist()
    drawn = [row for row in table if row["group"] == "random" and row["split"] == "score"]
    assert any(max(row["activations"]) > 0 for row in drawn)
    assert any(max(row["activations"]) == 0 for row in drawn)


def test_p11_what_failed_is_missing_and_never_zero(trial: Trial) -> None:
    """P11: unread items leave the score, below nine tenths there is none, and bounds say what they could have done."""
    scorer = PROTOCOL.scorer()
    truth = [Prediction(tuple(row)) for row in trial.truth.tolist()]
    unread = Failure("simulate", "invalid", "no")
    few = scorer.score(trial, [unread, *truth[1:]])
    assert (value(few, "pearson"), few.missing) == (1, 1)
    half = scorer.score(trial, [unread if i % 2 else each for i, each in enumerate(truth)])
    assert isinstance(half.measures["pearson"], Undefined)
    outcomes = [outcome(i, "features", i, None if i < 2 else 0.5) for i in range(10)]
    outcomes += [outcome(10 + i, "neurons", i, 0.5) for i in range(10)]
    arms = [arm_info("features", 10), arm_info("neurons", 10, "neurons")]
    bounds = compare(outcomes, arms, "features", 0).contrasts[0].bounds
    assert not isinstance(bounds, Undefined)
    assert bounds.low < 0 < bounds.high


def test_p12_a_prompt_tells_neither_group_nor_count(trial: Trial) -> None:
    """P12: items of all groups are mixed, the firing ones of a pack vary by unit, and no label reaches the prompt."""
    assert trial.groups != tuple(sorted(trial.groups, key=trial.groups.index))
    counts = set[int]()
    for seed in range(6):
        other = PROTOCOL.scorer().pose(record(seed), Explanation("", ""), Nothing())
        assert isinstance(other, Trial)
        counts.add(int((other.truth[:20].max(axis=1) > 0).sum()))
    assert len(counts) > 1
    shown = render_simulate(Explanation("x", "x"), trial.items[:20], "openai/gpt-6-luna", load_prompt("simulate", "v1"))
    assert not any(label in shown.user for label in ("interval", "top", "random", "out of context"))


def test_p13_length_wins_nothing_at_equal_length() -> None:
    """P13: scores that rise with the words alone differ between arms, not at equal length; the prompt is strict."""
    rng = np.random.default_rng(4)
    words = [rng.integers(10, 20, size=60), rng.integers(14, 30, size=60)]
    arms = [Wording(0.1 * np.log2(each) + 0.01 * rng.normal(size=60), each, None) for each in words]
    assert arms[1].scores.mean() > arms[0].scores.mean() + 0.03
    found = length_control(*arms)
    assert isinstance(found, LengthControl)
    assert abs(found.mean.value) < 0.01
    evidence = PROTOCOL.evidence(record())
    assert isinstance(evidence, Evidence)
    request = render_explain(evidence, "openai/gpt-6-luna", load_prompt("explain", "v1"))
    assert request.schema is not None
    assert request.max_tokens < 1000


def test_p14_the_split_for_choosing_is_not_scored() -> None:
    """P14: choosing has a split of its own, which is neither explained from nor scored."""
    assert set(SPLITS) == set(SHARES)
    assert {"explain", "select", "score"} <= set(SHARES)


def test_p17_the_funnel_loses_nobody() -> None:
    """P17: every unit asked is scored, undefined or failed by a kind, in every arm."""
    outcomes, arms = realistic(80, 40)
    for arm in compare(outcomes, arms, "features", 0).arms:
        funnel = arm.funnel
        assert funnel.counted == funnel.asked == funnel.scored + funnel.undefined + sum(funnel.failed.values())
        assert not funnel.failed or arm.info.label == "features" or funnel.scored < funnel.asked


def test_p20_causes_and_correlations_are_not_averaged(trial: Trial) -> None:
    """P20: every measure of a simulation is of its input side; none mixes in the logits that the explainer saw."""
    scorer = PROTOCOL.scorer()
    truth = [Prediction(tuple(row)) for row in trial.truth.tolist()]
    assert not any("logit" in name for name in scorer.score(trial, truth).measures)


def test_p21_the_same_seed_gives_the_same_numbers(harvest: Path) -> None:
    """P21: seeds fix every resample, and the manifest names versions, prompts and contents."""
    outcomes, arms = realistic(30, 30)
    assert compare(outcomes, arms, "features", 1) == compare(outcomes, arms, "features", 1)
    assert compare(outcomes, arms, "features", 1) != compare(outcomes, arms, "features", 2)
    manifest = json.loads((harvest / "manifest.json").read_text())
    assert {"packages", "commit", "content", "command"} <= set(manifest)
    assert manifest["content"]["prompts"]


def test_p02_density_alone_makes_no_difference_at_equal_density() -> None:
    """P2, in part: arms whose scores follow their densities differ, and do not within strata of density."""
    rng = np.random.default_rng(5)
    outcomes, order = [], 0
    for arm, centre in (("features", -3.0), ("neurons", -2.5)):
        for i, exponent in enumerate(rng.normal(centre, 0.4, size=150)):
            score = float(0.9 + 0.2 * exponent + 0.03 * rng.normal())
            outcomes.append(outcome(order, arm, i, float(np.clip(score, -1, 1)), density=float(10**exponent)))
            order += 1
    arms = [arm_info("features", 150), arm_info("neurons", 150, "neurons")]
    contrast = compare(outcomes, arms, "features", 0).contrasts[0]
    assert not isinstance(contrast.density, Undefined)
    assert isinstance(contrast.density.mean, Estimate)
    assert isinstance(contrast.p, float)
    assert contrast.p < 0.01
    assert contrast.density.mean.low <= 0 <= contrast.density.mean.high


ELSEWHERE = {
    "P15": "how autoencoders are trained is tested step by step in `tests/sae` (`test_step`, `test_resample`)",
    "P16": "recovered loss against zero and mean ablation is tested in `tests/sae/test_metrics.py`",
    "P18": "explainer and simulator are configured apart; nothing here can tell that two models share their errors",
    "P19": "there is no task that sets a feature against its nearest neighbours",
    "P22": "a second corpus is a second run (`--corpus`)",
}
"""Pitfalls without a test of that name, and why."""


def test_every_pitfall_has_a_test_or_a_reason() -> None:
    """Of P1 to P23, each is either guarded by a test named by its number or listed with its reason, never both."""
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py")]
    guarded = {
        f"P{int(number)}" for text in sources for number in re.findall(r"^def test_p(\d\d)_", text, re.MULTILINE)
    }
    assert guarded | set(ELSEWHERE) == {f"P{number}" for number in range(1, 24)}
    assert not guarded & set(ELSEWHERE)
