"""The preset shows an explainer exactly what the paper does."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from autointerp import notation
from autointerp.protocols.monosemanticity_2023 import Monosemanticity2023
from autointerp.records.explanation import Evidence, Failure
from autointerp.records.unit import UnitRecord
from tests.autointerp import synthetic

PROTOCOL = Monosemanticity2023()


def _evidence(record: UnitRecord) -> Evidence:
    evidence = PROTOCOL.evidence(record)
    assert isinstance(evidence, Evidence)
    return evidence


def test_evidence_has_the_papers_forty_nine_excerpts() -> None:
    """10 top, 2 of each interval from the highest, 5 random, 10 out of context; nine tokens each, labelled."""
    excerpts = _evidence(synthetic.record()).excerpts
    intervals = [f"interval {i} of 12" for i in range(12, 0, -1) for _ in range(2)]
    assert [e.label for e in excerpts] == ["top"] * 10 + intervals + ["random"] * 5 + ["out of context"] * 10
    assert {(len(e.tokens), len(e.levels)) for e in excerpts} == {(9, 9)}


@pytest.mark.parametrize("seed", range(5))
def test_evidence_shows_the_quantised_activations_of_explain_excerpts_only(seed: int) -> None:
    """No excerpt of the score documents is shown, and levels are those of the explain maximum."""
    record = synthetic.record(seed)
    explain = {e.tokens: e.activations for e in record.excerpts["explain"]}
    for shown in _evidence(record).excerpts:
        levels = notation.quantise(np.array(explain[shown.tokens]), synthetic.MAXIMUM, 9)
        assert shown.levels == tuple(levels.tolist())


def test_evidence_shows_the_logits() -> None:
    """Promoted and suppressed tokens are passed on as they are."""
    record = synthetic.record()
    evidence = _evidence(record)
    assert (evidence.promoted, evidence.suppressed) == (record.promoted, record.suppressed)
    assert evidence.top_level == 9


def test_evidence_is_blind_to_the_arm() -> None:
    """Neither the arm's label nor the unit's index is anywhere in what the explainer gets."""
    evidence = _evidence(synthetic.record())
    assert "secret-arm" not in repr(evidence)
    assert "4321" not in repr(evidence)


def test_dead_units_are_dropped_with_the_reason() -> None:
    """A unit that never fires in the explain documents is dead."""
    failure = PROTOCOL.evidence(synthetic.with_statistics(synthetic.record(), "explain", synthetic.SILENT))
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.kind) == ("evidence", "dead")


@pytest.mark.parametrize("different", [19, 20])
def test_fewer_than_twenty_different_excerpts_are_too_few(different: int) -> None:
    """Copies do not count, and the message has the count."""
    record = synthetic.record()
    kept = tuple(dataclasses.replace(e, group="out_of_context") for e in record.excerpts["explain"][:10])
    tops = tuple(dataclasses.replace(e, group="top") for e in record.excerpts["explain"][10:different])
    result = PROTOCOL.evidence(synthetic.with_excerpts(record, "explain", (tops + kept) * 2))
    if different == 20:
        assert isinstance(result, Evidence)
        assert Counter(e.label for e in result.excerpts) == {"top": 10, "out of context": 10}
    else:
        assert isinstance(result, Failure)
        assert (result.stage, result.kind) == ("evidence", "too_few_excerpts")
        assert result.message.startswith("19 ")


def test_the_preset_has_the_papers_sizes() -> None:
    """49 and 60 excerpts of 9 tokens, levels 0 to 9, 12 intervals; the harvest keeps spares of every group."""
    assert PROTOCOL.name == "monosemanticity-2023"
    assert (PROTOCOL.top_level, PROTOCOL.fewest) == (9, 20)
    assert (PROTOCOL.harvest.excerpt_tokens, PROTOCOL.harvest.n_intervals) == (9, 12)
    assert (PROTOCOL.evidence_sizes.total, PROTOCOL.trial_sizes.total) == (49, 60)
    scorer = PROTOCOL.scorer()
    assert (scorer.sizes, scorer.top_level, scorer.fewest) == (PROTOCOL.trial_sizes, 9, 20)
    shown = (PROTOCOL.evidence_sizes, PROTOCOL.trial_sizes)
    for kept, sizes in zip((PROTOCOL.harvest.explain, PROTOCOL.harvest.score), shown, strict=True):
        assert kept.top > sizes.top
        assert kept.per_interval > sizes.per_interval
        assert kept.random > sizes.random
        assert kept.out_of_context > sizes.out_of_context
