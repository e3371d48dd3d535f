"""Unit activations as sparse arrays."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sae.baselines import Neurons, RandomDirections
from sae.corpus.windows import Windows
from sae.errors import UserError
from sae.features import UnitBlock, firing_densities, site_sample, stream_units, unit_activations, unit_sample
from sae.sites import Site
from sae.subject import Subject
from tests.sae.tiny import NEURONS, llama, random_windows


@pytest.fixture(scope="module")
def neurons(small: Subject) -> Site:
    """Its second block's neurons."""
    return small.site("blocks.1.mlp.hook_post")


def dense(block: UnitBlock, windows: Windows, n_units: int) -> np.ndarray:
    """The block written out as (window, position, unit)."""
    out = np.zeros((*windows.tokens.shape, n_units), dtype=np.float32)
    out[block.window, block.position, block.unit] = block.value
    return out


def to_nearest(some: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of `some`, the distance to the nearest of `rows`, and which it is."""
    distances = np.abs(some[:, None] - rows[None]).max(2)
    return distances.min(1), distances.argmin(1)


class Loudest:
    """Only the strongest unit of a token fires: what a slice would get wrong if it were encoded alone."""

    def __init__(self, inner: RandomDirections) -> None:
        self._inner = inner
        self.d_in, self.n_units = inner.d_in, inner.n_units
        self.decode, self.directions, self.names = inner.decode, inner.directions, inner.names

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The inner activations, all but the largest set to 0."""
        activations = self._inner.encode(x)
        return activations * (activations == activations.amax(1, keepdim=True))


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_blocks_hold_every_activation_of_counted_positions(
    small: Subject, neurons: Site, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the batch and chunk, the blocks written out are the dense encoding with BOS and padding at 0."""
    monkeypatch.setattr("sae.dictionary.CHUNK", 5)
    windows, dictionary = random_windows(small, 8), RandomDirections(NEURONS, 33, seed=1)
    expected = dictionary.encode(
        small.activations(neurons, torch.from_numpy(windows.tokens.astype(np.int64))).flatten(0, 1)
    ).numpy()
    expected = expected.reshape(*windows.tokens.shape, 33) * windows.counted()[..., None]
    found, rows = np.zeros_like(expected), []
    for at, blocks in stream_units(small, {"f": (neurons, dictionary)}, windows, batch=batch):
        found += dense(blocks["f"], windows, 33)
        rows += list(at)
    assert rows == list(range(8))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (expected > 0).mean() > 0.1


def test_blocks_are_sorted_and_typed(small: Subject, neurons: Site) -> None:
    """Firings come by window, position, unit; only positive values; the promised types."""
    windows, dictionary = random_windows(small, 6), RandomDirections(NEURONS, 9, seed=2)
    for rows, blocks in stream_units(small, {"f": (neurons, dictionary)}, windows, batch=4):
        block = blocks["f"]
        key = (block.window.astype(np.int64) * 1000 + block.position) * 1000 + block.unit
        assert np.all(np.diff(key) > 0)
        assert np.all(block.value > 0)
        assert set(block.window) <= set(rows)
        assert [a.dtype.name for a in (block.window, block.position, block.unit, block.value)] == [
            "int32", "int32", "int32", "float32",
        ]  # fmt: skip


def test_places_at_one_site_share_a_forward_pass(small: Subject, neurons: Site) -> None:
    """Two dictionaries on one site and one on another cost two passes per batch."""
    calls: list[int] = []
    handle = small.model.transformer.wte.register_forward_hook(lambda *_: calls.append(1))
    other = small.site("blocks.0.mlp.hook_post")
    places = {
        "a": (neurons, Neurons(NEURONS, signed=False)),
        "b": (neurons, RandomDirections(NEURONS, 5, 0)),
        "c": (other, Neurons(NEURONS, signed=False)),
    }
    try:
        blocks = [blocks for _, blocks in stream_units(small, places, random_windows(small, 6), batch=3)]
    finally:
        handle.remove()
    assert len(calls) == 4
    assert [set(b) for b in blocks] == [{"a", "b", "c"}] * 2


def test_the_whole_dictionary_is_encoded_before_a_slice(small: Subject, neurons: Site) -> None:
    """Units that compete keep the value that they have among all units; indices stay those of the dictionary."""
    windows = random_windows(small, 10)
    dictionary = Loudest(RandomDirections(NEURONS, 12, seed=3))
    place = {"f": (neurons, dictionary)}
    ((_, whole),) = stream_units(small, place, windows)
    chosen = np.unique(whole["f"].unit)[1::2]
    ((_, some),) = stream_units(small, place, windows, units={"f": chosen})
    expected = dense(whole["f"], windows, 12)
    expected[..., np.setdiff1d(np.arange(12), chosen)] = 0
    assert 0 < len(some["f"].value) < len(whole["f"].value)
    np.testing.assert_array_equal(dense(some["f"], windows, 12), expected)


def test_one_unit_recomputed_is_its_column(small: Subject, neurons: Site) -> None:
    """Recomputation gives what the stream gave, with zeros at BOS and padding."""
    windows = random_windows(small, 7)
    dictionary = Loudest(RandomDirections(NEURONS, 12, seed=3))
    ((_, blocks),) = stream_units(small, {"f": (neurons, dictionary)}, windows)
    unit = int(blocks["f"].unit[0])
    np.testing.assert_array_equal(
        unit_activations(small, neurons, dictionary, unit, windows), dense(blocks["f"], windows, 12)[..., unit]
    )


def test_signed_neurons_stream_both_tails(tmp_path_factory: pytest.TempPathFactory) -> None:
    """On gated neurons every counted activation shows up once, in one of its two tails."""
    subject = llama(tmp_path_factory.mktemp("llama"))
    site, windows = subject.site("blocks.0.mlp.hook_post"), random_windows(subject, 4)
    ((_, blocks),) = stream_units(subject, {"n": (site, Neurons(NEURONS, signed=site.signed))}, windows)
    tails = dense(blocks["n"], windows, 2 * NEURONS)
    np.testing.assert_array_equal(
        (tails[..., 0::2] - tails[..., 1::2])[windows.counted()], subject.rows(site, windows).numpy()
    )


def test_a_dictionary_of_the_wrong_width_is_refused(small: Subject, neurons: Site) -> None:
    """The place that does not fit is named."""
    with pytest.raises(UserError, match=r"dictionary wide expects 64.*gives 20"):
        next(stream_units(small, {"wide": (neurons, Neurons(64, signed=False))}, random_windows(small, 1)))


def test_silent_windows_give_an_empty_block(small: Subject, neurons: Site) -> None:
    """Windows without a counted position give a block without firings."""
    windows = random_windows(small, 2)
    silent = replace(windows, length=np.ones(2, dtype=np.int32))
    ((_, blocks),) = stream_units(small, {"n": (neurons, Neurons(NEURONS, signed=False))}, silent)
    assert len(blocks["n"].value) == 0


@pytest.mark.parametrize("n", [1, 10, 60])
def test_a_site_sample_is_distinct_counted_rows(small: Subject, neurons: Site, n: int) -> None:
    """As many rows as asked for, each a counted position's and none twice; the seed alone decides which."""
    windows = random_windows(small, 9)
    all_rows = small.rows(neurons, windows).numpy()
    sample = site_sample(small, neurons, windows, n, seed=0, batch=4)
    distance, nearest = to_nearest(sample, all_rows)
    assert sample.shape == (n, NEURONS)
    assert distance.max() < 1e-4
    assert len(set(nearest)) == n
    np.testing.assert_array_equal(sample, site_sample(small, neurons, windows, n, seed=0, batch=4))
    assert not np.array_equal(sample, site_sample(small, neurons, windows, n, seed=1, batch=4))


def test_a_large_sample_is_every_row(small: Subject, neurons: Site) -> None:
    """Asking for more than there is gives all rows in order."""
    windows = random_windows(small, 9)
    np.testing.assert_allclose(
        site_sample(small, neurons, windows, 10_000, seed=0), small.rows(neurons, windows).numpy(), atol=1e-6
    )


def test_densities_and_samples_are_those_of_the_encoding(small: Subject, neurons: Site) -> None:
    """Densities count the firings of the stream; a unit sample is the encoding of its rows."""
    windows, dictionary = random_windows(small, 9), RandomDirections(NEURONS, 7, seed=0)
    activations = dictionary.encode(small.rows(neurons, windows)).numpy()
    np.testing.assert_allclose(
        firing_densities(small, neurons, dictionary, windows, batch=4), (activations > 0).mean(0), atol=1e-9
    )
    sample = unit_sample(dictionary, small.rows(neurons, windows).numpy())
    np.testing.assert_allclose(sample, activations, atol=1e-5)
    assert unit_sample(dictionary, np.empty((0, NEURONS), dtype=np.float32)).shape == (0, 7)
