"""The logit-weight test: its tokens, its two accuracies, and who has no view."""

from dataclasses import replace

import numpy as np
import pytest

from autointerp.activations.logit_test import SHOWN, distractors
from autointerp.protocols.logits_2023 import Logits2023
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Measure, Prediction, Trial, Undefined
from autointerp.records.unit import LogitKind, Split
from tests.autointerp import synthetic

SCORER = Logits2023().scorer()
EXPLANATION = Explanation("x", "y")


def posed() -> Trial:
    """50 tokens of each kind."""
    kinds: tuple[LogitKind, ...] = ("promoted", "random", "matched")
    asked = {kind: tuple((1000 * k + i, f" {kind}{i}") for i in range(50)) for k, kind in enumerate(kinds)}
    fires = dict.fromkeys(range(25), synthetic.record().maximum)  # on half of the promoted tokens
    unit = replace(synthetic.record(), logit_test=asked, token_means=fires)
    trial = SCORER.pose(unit, EXPLANATION, synthetic.OneUnit(unit))
    assert isinstance(trial, Trial)
    return trial


def test_p23_distractors_are_never_promoted_and_matched_ones_are_as_frequent() -> None:
    """P23: frequency tells promoted from random tokens, but not from matched ones."""
    rng = np.random.default_rng(0)
    counts = np.floor(1e5 / np.arange(1, 2001) ** 1.1).astype(np.int64)
    promoted = np.stack([rng.choice(120, size=SHOWN + 50, replace=False) for _ in range(20)]).astype(np.int32)
    random, matched = distractors(promoted, counts, np.random.default_rng(1))
    for own, *others in zip(promoted, random, matched, strict=True):
        for other in others:
            assert len(set(other.tolist())) == 50
            assert not set(other.tolist()) & set(own.tolist())
    asked, at_random, alike = (np.median(np.log1p(counts[ids])) for ids in (promoted[:, SHOWN:], random, matched))
    assert asked - at_random > 2
    assert abs(asked - alike) < 0.7


def test_accuracy_is_against_random_and_against_matched_tokens() -> None:
    """Whoever judges by frequency is right on random tokens and wrong on matched ones."""
    trial = posed()
    groups = np.array(trial.groups)
    perfect = SCORER.score(trial, [Prediction((float(each),)) for each in trial.truth[:, 0]]).measures
    own = {name: each.value for name, each in perfect.items() if isinstance(each, Measure)}
    ends = own.pop("constant_accuracy"), own.pop("unigram_accuracy"), own.pop("quantised_oracle_accuracy")
    assert ends == (0.5, 0.75, 1.0)
    assert set(own.values()) == {1.0}
    frequent = SCORER.score(trial, [Prediction((float(group != "random"),)) for group in groups]).measures
    assert isinstance(frequent["accuracy"], Measure)
    assert isinstance(frequent["accuracy_matched"], Measure)
    assert (frequent["accuracy"].value, frequent["accuracy_matched"].value) == (1.0, 0.5)


def test_the_order_of_the_tokens_tells_nothing() -> None:
    """Kinds are mixed, and constant answers are right half of the time."""
    trial = posed()
    assert len({trial.groups[i] for i in range(10)}) > 1
    score = SCORER.score(trial, [Prediction((1.0,))] * 150)
    assert score.constant
    assert isinstance(score.measures["accuracy"], Measure)
    assert score.measures["accuracy"].value == 0.5


def test_who_has_no_view_gets_no_number_but_the_reason() -> None:
    """A judge's own reason is passed on; other missing answers are counted."""
    trial = posed()
    silent = SCORER.score(trial, [Failure("simulate", "no_view", "no view on next tokens")] * 150)
    assert silent.measures["accuracy"] == Undefined("no view on next tokens")
    lost = SCORER.score(trial, [Failure("simulate", "invalid", "x")] * 150)
    assert lost.measures["accuracy"] == Undefined("incomplete: 0 of 150 items have an answer")


@pytest.mark.parametrize(("split", "kind"), [("score", "no_direct_path"), ("select", "nothing_held_out")])
def test_p14_no_explanation_is_chosen_by_the_tokens_that_score_it(split: Split, kind: str) -> None:
    """A site without a path to the logits, and the select split, have no trial."""
    unit = synthetic.record()
    failure = Logits2023().scorer(split).pose(unit, EXPLANATION, synthetic.OneUnit(unit))
    assert isinstance(failure, Failure)
    assert failure.kind == kind
