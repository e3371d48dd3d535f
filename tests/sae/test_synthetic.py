"""Planted vectors, and what is measured of a dictionary against them."""

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch

from sae.architectures.relu import ReluAutoencoder
from sae.errors import UserError
from sae.synthetic import Kind, Planting, firing, parse, plant, rates
from sae.truth import TruthMetrics, evaluate_truth

KINDS: tuple[Kind, ...] = ("independent", "zipf", "correlated", "hierarchical")


def _fires(kind: Kind, n: int = 40_000) -> np.ndarray:
    return firing(Planting(kind, features=40, active=4.0), n, np.random.default_rng(0))


@pytest.mark.parametrize("kind", KINDS)
def test_features_fire_as_often_as_they_should(kind: Kind) -> None:
    """Each at its rate, within five standard errors; together `active` on average."""
    rate, fires = rates(Planting(kind, features=40, active=4.0)), _fires(kind)
    assert rate.sum() == pytest.approx(4.0)
    assert np.all(np.abs(fires.mean(0) - rate) < 5 * np.sqrt(rate / len(fires)))


def test_firing_is_independent_skewed_correlated_or_nested() -> None:
    """What each kind is named after."""
    assert np.abs(np.corrcoef(_fires("independent").T) - np.eye(40)).max() < 0.03
    zipf = _fires("zipf").mean(0)
    assert zipf[0] == pytest.approx(0.5, abs=0.02)  # cut off there
    assert zipf[3] / zipf[19] == pytest.approx(5, rel=0.15)
    correlated = np.corrcoef(_fires("correlated").T) - np.eye(40)
    assert correlated[:8, :8].sum() / 56 > 0.3
    assert np.abs(correlated[:8, 8:]).max() < 0.03
    nested = _fires("hierarchical")
    parents, children = nested[:, :8], nested[:, 8:].reshape(-1, 8, 4)
    assert not (children.any(2) & ~parents).any()
    assert children.sum(2).max() == 1
    assert children[parents].any(1).mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_the_stream_is_seeded_and_goes_on_anywhere(kind: Kind) -> None:
    """The same seed gives the same pieces from any number on; held-out vectors are others, and sums of directions."""
    planted = plant(Planting(kind, d=8, features=12, active=2.0), seed=3)
    pieces = list(islice(planted.rows()(0), 3))
    assert torch.equal(next(planted.rows()(2)), pieces[2])
    assert not torch.equal(pieces[0], pieces[1])
    assert torch.equal(next(plant(planted.planting, seed=3).rows()(0)), pieces[0])
    assert not torch.equal(next(plant(planted.planting, seed=4).rows()(0)), pieces[0])
    held_out = list(planted.held_out(5000))
    assert [len(x) for x, _ in held_out] == [4096, 904]
    x, truth = held_out[0]
    assert not torch.equal(x, pieces[0])
    assert (x - truth @ planted.directions).std() == pytest.approx(0.01, rel=0.05)
    assert truth[truth > 0].min() >= 0.5
    assert truth.max() <= 1.5


def test_specs_are_parsed() -> None:
    """Numbers may be left out."""
    assert parse("synthetic:zipf") == Planting("zipf")
    assert parse("synthetic:correlated:features=32,d=16,active=2.5") == Planting("correlated", 16, 32, 2.5)


@pytest.mark.parametrize(
    "spec", ["synthetic:", "synthetic:zip", "synthetic:zipf:width=3", "synthetic:zipf:d=x", "synthetic:zipf:active=200"]
)
def test_malformed_specs_are_refused(spec: str) -> None:
    """With what would do."""
    with pytest.raises(UserError, match=r"Did you mean zipf|KIND|at most 0.5"):
        parse(spec)


D = 16


def _metrics(change: Callable[[torch.Tensor], torch.Tensor], scale: float = 1.0) -> TruthMetrics:
    """Of a dictionary whose rows are orthogonal planted directions, changed."""
    planted = plant(Planting("independent", d=D, features=D, active=3.0), seed=0)
    directions = torch.linalg.qr(planted.directions).Q
    rows = change(directions)
    sae = ReluAutoencoder(rows, torch.full((len(rows),), -0.1), scale * rows, torch.zeros(D), pre_encoder_bias=False)
    pieces = ((truth @ directions, truth) for _, truth in planted.held_out(6000))
    return evaluate_truth(sae, directions, pieces)


def test_the_planted_dictionary_itself_is_perfect() -> None:
    """Every measure at its best; shrinkage is that of the bias alone."""
    perfect = _metrics(lambda rows: rows)
    assert perfect.mmcs_planted == pytest.approx(1, abs=1e-5)
    assert perfect.mmcs_units == pytest.approx(1, abs=1e-5)
    assert perfect.mcc == pytest.approx(1, abs=1e-5)
    assert perfect.matched_correlation == pytest.approx(1, abs=1e-3)  # the bias bends the line at 0
    assert (perfect.uniqueness, perfect.f1, perfect.dead, perfect.unseen) == (1, 1, 0, 0)
    assert perfect.l0_error == 0
    assert perfect.l0 == pytest.approx(3, rel=0.05)
    assert 0.85 < perfect.shrinkage < 0.95
    assert perfect.n_vectors == 6000
    assert _metrics(lambda rows: rows, 2.0).shrinkage == pytest.approx(2 * perfect.shrinkage, rel=1e-5)


def test_order_does_not_matter_and_scale_only_to_the_reconstruction() -> None:
    """Matching finds permuted rows."""
    perfect, turned = _metrics(lambda rows: rows), _metrics(lambda rows: rows.flip(0))
    assert turned.mcc == pytest.approx(perfect.mcc)
    assert turned.f1 == perfect.f1
    assert turned.fvu == pytest.approx(perfect.fvu, rel=1e-4)


def test_what_is_missing_and_what_is_doubled_cost_something() -> None:
    """Half of the rows: half the matches, MMCS one-sided. Rows doubled: uniqueness and L0."""
    half = _metrics(lambda rows: rows[: D // 2])
    assert half.mcc == pytest.approx(0.5, abs=1e-4)
    assert half.matched_correlation == pytest.approx(0.5, abs=0.01)
    assert half.f1 == pytest.approx(0.5)
    assert half.mmcs_units == pytest.approx(1, abs=1e-5)
    assert half.mmcs_planted < 0.6
    assert half.l0_error < -1
    twice = _metrics(lambda rows: torch.cat([rows, rows]))
    assert twice.uniqueness == 0.5
    assert twice.mcc == pytest.approx(1, abs=1e-5)
    assert twice.l0_error == pytest.approx(3, rel=0.05)


def test_merged_features_are_found_less_well() -> None:
    """A unit for the sum of two features detects either with F1 below 1."""

    def merge(rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([(rows[:1] + rows[1:2]) / 2**0.5, rows[2:]])

    merged = _metrics(merge)
    assert merged.f1_by_feature[2:].min() == 1
    assert min(merged.f1_by_feature[:2]) == 0
    assert 0.4 < max(merged.f1_by_feature[:2]) < 0.9
    assert merged.mcc == pytest.approx((14 + 0.5**0.5) / 16, abs=1e-3)


def test_a_dead_dictionary_scores_nothing() -> None:
    """No living unit: every match is 0, and nothing divides by 0."""
    planted = plant(Planting("zipf", d=4, features=6, active=1.0), seed=0)
    rows = planted.directions
    dead = ReluAutoencoder(rows, torch.full((6,), -99.0), rows, torch.zeros(4), pre_encoder_bias=False)
    metrics = evaluate_truth(dead, rows, planted.held_out(100))
    assert (metrics.mmcs_planted, metrics.mcc, metrics.matched_correlation, metrics.f1) == (0, 0, 0, 0)
    assert metrics.dead == 6
    with pytest.raises(UserError, match="no vectors"):
        evaluate_truth(dead, rows, [])
    with pytest.raises(UserError, match="expects 4"):
        evaluate_truth(dead, rows[:, :2], [])
