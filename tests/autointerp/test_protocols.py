"""Several protocols over one unit: names, shared explanations, and the choice of the best."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from autointerp.activations.plan import HarvestSizes
from autointerp.pipeline import Evaluation, Judges
from autointerp.protocols.catalog import PRESETS, make_presets
from autointerp.protocols.population import Population
from autointerp.protocols.preset import Preset
from autointerp.records.explanation import Evidence, Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.records.unit import UnitRecord
from autointerp.scorers.simulation import SimulationScorer
from sae.errors import UserError
from tests.autointerp import synthetic


@dataclass
class Explaining:
    """Says which draw it is, and counts."""

    asked: list[int] = field(default_factory=list[int])

    async def explain(self, evidence: Evidence, draw: int = 0) -> Explanation | Failure:
        self.asked.append(draw)
        return Explanation(f"draw {draw}", "x")


@dataclass
class Simulating:
    """Predicts well from draw 1 on select documents, and from draw 0 on score documents."""

    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    async def simulate(self, explanation: Explanation, items: Sequence[Item]) -> Sequence[Prediction | Failure]:
        split = items[0].tokens[0].rstrip("0123456789")
        self.asked.append((explanation.text, split))
        good = explanation.text == ("draw 1" if split == "select" else "draw 0")
        ids = [[int(token.removeprefix(split)) for token in item.tokens] for item in items]
        return [Prediction(tuple(float(i < 30) if good else float(i % 7) for i in row)) for row in ids]


def record() -> UnitRecord:
    """A unit with excerpts of the select split too."""
    unit = synthetic.record()
    select = synthetic.excerpts("select", np.random.default_rng(9))
    statistics = {**unit.statistics, "select": unit.statistics["score"]}
    return replace(unit, excerpts={**unit.excerpts, "select": select}, statistics=statistics)


def evaluate(names: Sequence[str], explanations: int = 1) -> tuple[Explaining, Simulating, dict[str, object]]:
    """One unit brought to its end."""
    explaining, simulating = Explaining(), Simulating()
    judges = Judges(explaining, {"levels": simulating})
    source = synthetic.OneUnit(record())
    evaluation = Evaluation(source, make_presets(names, 0), {"secret-arm": judges}, explanations=explanations)
    outcomes = asyncio.run(evaluation.whole(0, source.held.unit))
    return explaining, simulating, {each.protocol: each.explanation for each in outcomes}


@pytest.mark.parametrize("name", PRESETS)
def test_every_protocol_is_a_preset_of_its_name(name: str) -> None:
    """Each has what the main path needs, and keeps scoring apart from choosing."""
    (preset,) = make_presets([name, name], 3)
    assert isinstance(preset, Preset)
    assert preset.name == name
    assert preset.scorer("select") != preset.scorer()


def test_population_chooses_explanations_by_pearson() -> None:
    """By its own measure: the rank correlation of the excerpts is one that misses false predictions."""
    chooses = Population().scorer("select")
    assert isinstance(chooses, SimulationScorer)
    assert chooses.headline == "pearson"


def test_an_unknown_protocol_is_named_with_the_nearest() -> None:
    """A typo is a user's mistake."""
    with pytest.raises(UserError, match="Did you mean bills-2023"):
        make_presets(["bils-2023"], 0)


def test_one_harvest_has_what_all_need() -> None:
    """The union is the same in any order, holds each, and is each where there is one."""
    needs = [preset.harvest for preset in make_presets(list(PRESETS), 0)]
    union = HarvestSizes.union(needs)
    assert union == HarvestSizes.union(needs[::-1])
    assert [width.excerpt_tokens for width in union.widths] == [9, 32, 64]
    assert all(HarvestSizes.union([each]) == each for each in needs)
    assert all(HarvestSizes.union([union, each]) == union for each in needs)
    assert all(width.select is None for width in union.without("select").widths)


def test_the_same_evidence_is_explained_once_for_all_protocols() -> None:
    """Protocols that show the same share the explanation; those without a trial say so, each for itself."""
    explaining, _, said = evaluate(["monosemanticity-2023", "detection", "fuzzing"])
    assert explaining.asked == [0]
    assert set(said.values()) == {Explanation("draw 0", "x")}
    assert list(said) == ["monosemanticity-2023", "detection", "fuzzing"]


def test_p14_the_best_explanation_is_chosen_on_the_select_split() -> None:
    """The choice looks at select documents only, and scoring sees no other explanation, though another would win."""
    explaining, simulating, said = evaluate(["monosemanticity-2023"], explanations=3)
    assert sorted(explaining.asked) == [0, 1, 2]
    assert said == {"monosemanticity-2023": Explanation("draw 1", "x")}
    assert [asked for asked in simulating.asked if asked[1] == "score"] == [("draw 1", "score")]
    assert len(simulating.asked) == 4


def test_with_nothing_to_choose_by_the_first_explanation_stands() -> None:
    """A protocol that has no trial on the select split keeps the first draw."""
    _, _, said = evaluate(["logits-2023"], explanations=2)
    assert said == {"logits-2023": Explanation("draw 0", "x")}
