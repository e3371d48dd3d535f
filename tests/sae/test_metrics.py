"""Identities that the measures of a dictionary must keep."""

import numpy as np
import pytest
import torch

from sae import metrics
from sae.baselines import Neurons, RandomDirections, Thresholded
from sae.corpus.windows import Windows
from sae.errors import UserError
from sae.metrics import evaluate_dictionary, reconstruct, recovered
from sae.sites import Site
from sae.subject import Subject
from tests.sae.tiny import NEURONS, gpt2, own_windows, random_windows


@pytest.fixture(scope="module")
def windows(small: Subject) -> Windows:
    """Windows with BOS and padding that the model predicts well."""
    return own_windows(small, 20)


@pytest.fixture(scope="module")
def neurons(small: Subject) -> Site:
    """The last block's neurons."""
    return small.site("blocks.1.mlp.hook_post")


class Constant(Neurons):
    """Reconstructs everything as one vector."""

    def __init__(self, vector: torch.Tensor) -> None:
        super().__init__(len(vector), signed=False)
        object.__setattr__(self, "_vector", vector)

    def decode(self, activations: torch.Tensor) -> torch.Tensor:
        """The vector, for every token."""
        return self._vector.expand(len(activations), -1)


def test_a_perfect_dictionary(small: Subject, neurons: Site, windows: Windows) -> None:
    """The neurons themselves leave nothing unexplained, recover all the loss and add none."""
    found = evaluate_dictionary(small, neurons, Neurons(NEURONS, signed=False), windows, batch=7)
    assert found.fvu == 0
    assert found.recovered_zero == pytest.approx(1, abs=1e-6)
    assert found.recovered_mean == pytest.approx(1, abs=1e-6)
    assert found.loss_increase == pytest.approx(0, abs=1e-6)
    assert found.loss == pytest.approx(small.loss(windows), abs=1e-6)


def test_a_silent_dictionary(small: Subject, neurons: Site, windows: Windows) -> None:
    """Reconstructing 0 is ablation to 0: it recovers nothing, and every unit is dead."""
    silent = Thresholded(Neurons(NEURONS, signed=False), torch.full((NEURONS,), 1e9))
    found = evaluate_dictionary(small, neurons, silent, windows)
    assert found.recovered_zero == pytest.approx(0, abs=1e-6)
    assert found.loss_reconstructed == pytest.approx(found.loss_zero_ablated)
    assert (found.dead, found.l0, found.density_counts.sum()) == (NEURONS, 0, 0)
    assert found.fvu is not None
    assert found.fvu > 1


def test_the_mean_predictor(small: Subject, neurons: Site, windows: Windows) -> None:
    """Reconstructing the mean leaves exactly the variance and is ablation to the mean."""
    mean = small.rows(neurons, windows).double().mean(0).float()
    found = evaluate_dictionary(small, neurons, Constant(mean), windows, batch=3)
    assert found.fvu == pytest.approx(1, abs=1e-6)
    assert found.recovered_mean == pytest.approx(0, abs=1e-5)
    assert found.loss_reconstructed == pytest.approx(found.loss_mean_ablated, abs=1e-6)


def test_adding_the_error_back_changes_nothing(small: Subject, neurons: Site, windows: Windows) -> None:
    """Splicing the reconstruction plus its error leaves the loss where it was; the reconstruction alone does not."""
    dictionary = RandomDirections(NEURONS, 30, 0)

    def spliced(x: torch.Tensor) -> torch.Tensor:
        made = reconstruct(dictionary, x)
        return made + (x - made)

    untouched = small.loss(windows)
    assert small.loss(windows, neurons, spliced) == pytest.approx(untouched, abs=1e-5)
    assert abs(small.loss(windows, neurons, lambda x: reconstruct(dictionary, x)) - untouched) > 1e-2


def test_statistics_are_those_of_the_dense_activations(
    small: Subject, neurons: Site, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L0, densities and FVU, streamed in small chunks, against the textbook formulas on all rows at once."""
    monkeypatch.setattr("sae.dictionary.CHUNK", 4)
    dictionary = Thresholded(RandomDirections(NEURONS, 25, 0), torch.linspace(0, 20, 25))
    found = evaluate_dictionary(small, neurons, dictionary, windows, batch=3)
    x = small.rows(neurons, windows)
    activations = dictionary.encode(x)
    missed, varied = (dictionary.decode(activations) - x).double(), (x.double() - x.double().mean(0))
    fired = (activations > 0).double()
    assert found.n_tokens == len(x) == windows.n_tokens
    assert found.l0 == pytest.approx(float(fired.sum(1).mean()))
    np.testing.assert_allclose(found.density, fired.mean(0).numpy())
    assert found.fvu == pytest.approx(float(missed.square().sum() / varied.square().sum()), rel=1e-5)
    assert found.dead == int((fired.sum(0) == 0).sum()) > 0
    assert found.density_counts.sum() == 25 - found.dead


def test_bos_and_padding_do_not_matter(small: Subject, neurons: Site, windows: Windows) -> None:
    """Other tokens in the padding change no number."""
    tokens = windows.tokens.copy()
    tokens[np.arange(windows.context)[None, :] >= windows.length[:, None]] = 77
    other = Windows(tokens, windows.length, windows.document, windows.offset, windows.first)
    dictionary = RandomDirections(NEURONS, 10, 0)
    one, two = (evaluate_dictionary(small, neurons, dictionary, w) for w in (windows, other))
    assert one.fvu == pytest.approx(two.fvu)
    assert one.loss_zero_ablated == pytest.approx(two.loss_zero_ablated)
    np.testing.assert_array_equal(one.density, two.density)
    assert "BOS" in one.positions


def test_ultra_low_needs_enough_tokens(
    small: Subject, neurons: Site, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few tokens give no count; with enough, rare living units are counted and dead ones are not."""
    x = small.rows(neurons, windows)
    top = x.max(0).values
    thresholds = top.clone()
    thresholds[:5] = x[:, :5].topk(2, dim=0).values[1]
    rare = Thresholded(Neurons(NEURONS, signed=False), thresholds)
    assert evaluate_dictionary(small, neurons, rare, windows).ultra_low is None
    monkeypatch.setattr(metrics, "ULTRA_LOW_TOKENS", 10)
    monkeypatch.setattr(metrics, "ULTRA_LOW", 1.5 / windows.n_tokens)
    living = int((thresholds[:5] < top[:5]).sum())
    found = evaluate_dictionary(small, neurons, rare, windows)
    assert found.ultra_low == living > 0
    assert found.dead == NEURONS - living


def test_undefined_measures_are_none() -> None:
    """Where ablation does no harm there is no share to recover."""
    assert recovered(loss=2.0, ablated=2.0, reconstructed=2.5) is None
    assert recovered(loss=2.0, ablated=1.9, reconstructed=2.5) is None
    assert recovered(loss=2.0, ablated=4.0, reconstructed=2.5) == 0.75


def test_a_site_that_does_not_vary_has_no_fvu(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Dead neurons give None, not a division by zero."""
    subject = gpt2(tmp_path_factory.mktemp("dead"))
    with torch.no_grad():
        subject.model.transformer.h[1].mlp.c_fc.bias[:] = -1e6
    site = subject.site("blocks.1.mlp.hook_post")
    found = evaluate_dictionary(subject, site, Neurons(NEURONS, signed=False), random_windows(subject, 3))
    assert (found.fvu, found.recovered_zero, found.recovered_mean) == (None, None, None)


def test_bad_input_is_said_in_words(small: Subject, neurons: Site, windows: Windows) -> None:
    """A wrong width and no tokens are user errors."""
    with pytest.raises(UserError, match="dictionary expects 7, the site"):
        evaluate_dictionary(small, neurons, Neurons(7, signed=False), windows)
    with pytest.raises(UserError, match="no tokens"):
        evaluate_dictionary(small, neurons, Neurons(NEURONS, signed=False), windows.select(np.arange(0)))
