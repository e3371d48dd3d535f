"""Explanations that are not the unit's own."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autointerp.config import RunConfig
from autointerp.controls import ControlledSource, Explained, base, deranged, kinds
from autointerp.explain.llm import LlmExplainer
from autointerp.explain.lookup import LookupExplainer
from autointerp.notation import read_table
from autointerp.pipeline import Evaluation, Judges, admission_order, admit
from autointerp.prompts import load_prompt
from autointerp.protocols.catalog import make_presets
from autointerp.records.anchors import Activations, Pool, Text
from autointerp.records.call import Request
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.outcome import Outcome
from autointerp.records.trial import Measure, Score
from autointerp.records.unit import Split, Unit, UnitRecord
from autointerp.simulate.lookup import LookupSimulator
from sae.errors import UserError
from tests.autointerp import synthetic
from tests.autointerp.llm_parts import MODEL, open_client

PRESETS = make_presets(["monosemanticity-2023"], 0)


@dataclass(frozen=True)
class Made:
    """Five features and a neuron, made up; the last feature has no evidence."""

    records: tuple[UnitRecord, ...]

    def units(self) -> Sequence[Unit]:
        return [record.unit for record in self.records]

    def record(self, unit: Unit) -> UnitRecord:
        return next(record for record in self.records if record.unit == unit)

    def activations(self, unit: Unit, windows: Sequence[int]) -> Activations:
        return np.full((len(windows), 1), float(unit.index)) if unit.arm == "features" else np.zeros((0, 1))

    def text(self, split: Split) -> Text:
        raise NotImplementedError

    def pool(self, split: Split) -> Pool:
        raise NotImplementedError


@pytest.fixture(scope="module")
def source() -> ControlledSource:
    records = [replace(synthetic.record(i), unit=Unit("features", i, str(i))) for i in range(5)]
    records[-1] = synthetic.with_excerpts(records[-1], "explain", ())
    neuron = replace(synthetic.record(9), unit=Unit("neurons", 0, "0"))
    return ControlledSource(Made((*records, neuron)), ("shuffled", "empty", "generic"))


def judged(source: ControlledSource, arm: str, index: int) -> Outcome:
    explained_as = Explained(source, PRESETS[0], by_lookup=True, seed=0)
    arms = {unit.arm for unit in source.units()}
    judges = {name: Judges(LookupExplainer(), {"levels": LookupSimulator()}) for name in arms}
    evaluation = Evaluation(source, PRESETS, judges, explained_as=explained_as)
    (outcome,) = asyncio.run(evaluation.whole(0, Unit(arm, index, str(index))))
    return outcome


@given(arrays(np.float64, st.integers(2, 60), elements=st.floats(1e-6, 1)), st.integers(0, 99))
def test_a_derangement_moves_all_and_keeps_to_bins(densities: np.ndarray, seed: int) -> None:
    """A permutation without a fixed point, whose partners are at most a bin of ranks apart; the seed decides it."""
    donors = deranged(densities, np.random.default_rng(seed))
    n = len(densities)
    assert sorted(donors.tolist()) == list(range(n))
    assert (donors != np.arange(n)).all()
    rank = np.argsort(np.argsort(densities, kind="stable"))
    assert (np.abs(rank[donors] - rank) < -(-n // max(1, min(10, n // 2)))).all()
    np.testing.assert_array_equal(donors, deranged(densities, np.random.default_rng(seed)))


def test_one_unit_has_nobody_to_change_with() -> None:
    """It is left to itself."""
    assert deranged(np.array([0.1]), np.random.default_rng(0)).tolist() == [0]


def test_controls_have_the_features_once_more(source: ControlledSource) -> None:
    """Each control has every feature under its own arm, with its record and activations; neurons have none."""
    arms = [unit.arm for unit in source.units()]
    assert {arm: arms.count(arm) for arm in arms} == {
        "features": 5, "neurons": 1, "features:shuffled": 5, "features:empty": 5, "features:generic": 5,
    }  # fmt: skip
    own, again = Unit("features", 3, "3"), Unit("features:empty", 3, "3")
    assert source.record(again) == replace(source.record(own), unit=again)
    assert source.activations(again, [7]).tolist() == [[3.0]]
    assert [base(arm) for arm in ("features:generic", "features", "sae:a:b")] == ["features", "features", "sae:a:b"]


def test_each_control_is_judged_by_the_explanation_it_says(source: ControlledSource) -> None:
    """Shuffled: those of the features, each another's. Generic: one readable table for all. Empty: nothing."""
    own = [judged(source, "features", i).explanation for i in range(4)]
    shuffled = [judged(source, "features:shuffled", i).explanation for i in range(4)]
    assert all(isinstance(each, Explanation) for each in own)
    assert sorted(map(str, own)) == sorted(map(str, shuffled))
    assert all(mine != other for mine, other in zip(own, shuffled, strict=True))
    generic = {judged(source, "features:generic", i).explanation for i in range(4)}
    (text,) = [each.text for each in generic if isinstance(each, Explanation)]
    assert read_table(text)
    assert judged(source, "features:empty", 0).explanation == Explanation("", "control:empty")


def test_without_a_token_table_to_read_the_generic_text_is_a_sentence(source: ControlledSource) -> None:
    """A language model gets words."""
    said = Explained(source, PRESETS[0], by_lookup=False, seed=0)(Unit("features:generic", 0, "0"))
    assert isinstance(said, Explanation)
    assert read_table(said.text) is None


def test_a_feature_without_evidence_has_no_control(source: ControlledSource) -> None:
    """It fails in every arm alike, so that all arms have the same units, and nobody gets its explanation."""
    for arm in ("features", "features:shuffled", "features:empty", "features:generic"):
        result = judged(source, arm, 4).result
        assert isinstance(result, Failure)
        assert result.kind == "too_few_excerpts"


def test_the_empty_explanation_scores_0_and_says_so(source: ControlledSource) -> None:
    """Lookup predicts 0 everywhere: a constant prediction, no failure."""
    result = judged(source, "features:empty", 0).result
    assert isinstance(result, Score)
    assert (result.measures["spearman"], result.constant, result.missing) == (Measure(0.0, 0.0, 0.0), True, 0)


def test_standard_is_all_three_and_a_misspelt_control_is_refused() -> None:
    """Each once, in a fixed order; `none` is none."""
    assert kinds(RunConfig(controls=("empty", "standard", "empty"))) == ("empty", "shuffled", "generic")
    assert kinds(RunConfig(controls=("none",))) == kinds(RunConfig()) == ()
    with pytest.raises(UserError, match="shuffled"):
        kinds(RunConfig(controls=("shufled",)))


def test_explanations_that_controls_share_are_paid_for_once(source: ControlledSource, tmp_path: Path) -> None:
    """Admitted beside their features, controls ask for the explanations of units that come later: once in all."""
    asked: list[str] = []

    async def explain(request: Request) -> str:
        asked.append(request.user)
        return '{"explanation": "fires on words"}'

    async def main() -> None:
        async with open_client(tmp_path, explain) as client:
            own = LlmExplainer(client, MODEL, load_prompt("explain", "v1"), 1, "features")
            judges = {arm: Judges(own, {"levels": LookupSimulator()}) for arm in {each.arm for each in source.units()}}
            explained_as = Explained(source, PRESETS[0], by_lookup=False, seed=0)
            evaluation = Evaluation(source, PRESETS, judges, explained_as=explained_as)
            done = await admit(admission_order(source.units(), 0, base), evaluation.explain, at_once=100)
            assert done.ended == done.asked == 21

    asyncio.run(main())
    assert len(asked) == len(set(asked)) == 5
