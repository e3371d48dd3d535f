"""Baselines that behave like dictionaries."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sae.baselines import (
    Neurons,
    RandomDirections,
    Thresholded,
    fire_thresholds,
    matched_thresholds,
    principal_components,
)
from sae.dictionary import Dictionary
from sae.errors import UserError

BASELINES: list[Dictionary] = [
    Neurons(6, signed=False),
    Neurons(6, signed=True),
    RandomDirections(6, 11, seed=0),
    Thresholded(Neurons(6, signed=True), torch.full((12,), 0.5)),
]


@pytest.mark.parametrize("dictionary", BASELINES, ids=lambda d: type(d).__name__)
def test_baselines_agree_with_themselves(dictionary: Dictionary) -> None:
    """Shapes agree, units are not negative, and decoding is the sum of directions."""
    x = torch.randn(50, dictionary.d_in, generator=torch.Generator().manual_seed(0)).abs()
    activations = dictionary.encode(x)
    assert activations.shape == (50, dictionary.n_units)
    assert (activations >= 0).all()
    assert (activations > 0).any()
    assert len(set(dictionary.names())) == dictionary.n_units
    assert torch.allclose(dictionary.decode(activations), activations @ dictionary.directions(), atol=1e-5)


@given(arrays(np.float32, (5, 4), elements=st.floats(-100, 100, width=32)))
def test_both_tails_decode_exactly(x: np.ndarray) -> None:
    """Signed neurons lose nothing, and at most one tail of a neuron is on."""
    neurons = Neurons(4, signed=True)
    activations = neurons.encode(torch.from_numpy(x))
    assert torch.equal(neurons.decode(activations), torch.from_numpy(x))
    assert (activations[:, 0::2] * activations[:, 1::2] == 0).all()


def test_principal_components_are_those_of_the_sample() -> None:
    """Orthonormal rows by falling variance, the variance of the projections; both tails decode exactly."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((500, 6)) * [5, 1, 3, 0.5, 2, 0.1] + 7).astype(np.float32)
    found = principal_components(rows)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(6), atol=1e-5)
    activations = found.encode(torch.from_numpy(rows))
    projected = (activations[:, 0::2] - activations[:, 1::2]).numpy()
    expected = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
    np.testing.assert_allclose(projected.var(0), expected, rtol=1e-3)
    np.testing.assert_allclose(found.decode(activations).numpy(), rows, atol=1e-4)
    assert (activations[:, 0::2] * activations[:, 1::2] == 0).all()
    assert found.names()[:3] == ("0+", "0-", "1+")
    directions = found.directions()
    assert directions.shape == (12, 6)
    assert torch.equal(directions[1::2], -directions[0::2])


def test_tails_are_named_and_placed() -> None:
    """Unit 2 n is the positive tail of neuron n, unit 2 n + 1 its negative one."""
    neurons = Neurons(3, signed=True)
    assert neurons.names() == ("0+", "0-", "1+", "1-", "2+", "2-")
    assert neurons.encode(torch.tensor([[2.0, -3.0, 0.0]])).tolist() == [[2, 0, 0, 3, 0, 0]]
    assert Neurons(3, signed=False).names() == ("0", "1", "2")


def test_encoding_leaves_its_input_alone() -> None:
    """Rectifying in place must not reach the site's activations."""
    for dictionary in BASELINES:
        x = torch.linspace(-1, 1, 6)[None, :].clone()
        before = x.clone()
        dictionary.encode(x)
        assert torch.equal(x, before)


def test_thresholds_silence_without_shifting() -> None:
    """Up to the threshold 0, above it the value itself."""
    dictionary = Thresholded(Neurons(3, signed=False), torch.tensor([0.0, 1.0, 2.0]))
    x = torch.tensor([[0.5, 0.5, 2.5], [0.0, 1.0, 2.0]])
    assert dictionary.encode(x).tolist() == [[0.5, 0, 2.5], [0, 0, 0]]


def test_random_directions_have_length_one_and_a_seed() -> None:
    """Rows are unit vectors; the seed alone decides them."""
    rows = RandomDirections(16, 40, seed=3).directions()
    assert torch.allclose(rows.norm(dim=1), torch.ones(40))
    assert torch.equal(rows, RandomDirections(16, 40, seed=3).directions())
    assert not torch.equal(rows, RandomDirections(16, 40, seed=4).directions())
    assert (rows @ rows.T - torch.eye(40)).abs().max() < 0.95


@given(st.integers(0, 20), st.integers(1, 30), st.integers(1, 30))
def test_matched_units_fire_at_the_densities_drawn(seed: int, n_units: int, n_targets: int) -> None:
    """On distinct positive values, densities come out as drawn, each target once where there are enough."""
    rng = np.random.default_rng(seed)
    activations = rng.random((200, n_units)).astype(np.float32) + 0.01
    targets = rng.choice(np.arange(1, 200), size=n_targets, replace=False) / 200
    fired = (activations > matched_thresholds(activations, targets, seed)).mean(0)
    known = {round(float(t), 6) for t in targets}
    found = [round(float(f), 6) for f in fired]
    assert set(found) <= known
    if n_units <= n_targets:
        assert len(set(found)) == n_units


def test_matching_cannot_make_a_unit_fire_more() -> None:
    """A unit that fires on a tenth of the tokens stays there when its target is a half; a target of 1 is no limit."""
    activations = np.zeros((100, 2), dtype=np.float32)
    activations[:10] = np.arange(1, 11)[:, None]
    assert matched_thresholds(activations, np.array([0.5]), 0).tolist() == [0, 0]
    assert matched_thresholds(activations + 1, np.array([1.0]), 0).tolist() == [0, 0]


def test_targets_below_the_sample_s_resolution_silence_the_unit() -> None:
    """A density that the sample cannot resolve rounds to no firing."""
    activations = np.arange(1, 101, dtype=np.float32)[:, None]
    threshold = matched_thresholds(activations, np.array([0.001]), 0)
    assert threshold.tolist() == [100]


def test_nothing_to_match_is_a_user_error() -> None:
    """No densities, or no sample, is said in words."""
    with pytest.raises(UserError, match="no density"):
        matched_thresholds(np.ones((5, 2), dtype=np.float32), np.empty(0), 0)
    with pytest.raises(UserError, match="no density"):
        matched_thresholds(np.ones((0, 2), dtype=np.float32), np.array([0.1]), 0)


def test_firing_begins_at_the_first_level_of_ten() -> None:
    """A tenth of the maximum where activations are signed, else 0."""
    activations = np.array([[1.0, 0.0], [5.0, 0.0]], dtype=np.float32)
    assert fire_thresholds(activations, signed=True).tolist() == [0.5, 0]
    assert fire_thresholds(activations, signed=False).tolist() == [0, 0]
