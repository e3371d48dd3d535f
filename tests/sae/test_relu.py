"""What the autoencoders compute, and the operations that must not change it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.architectures.initial import geometric_median, initial_weights, input_transform, unit_rows
from sae.architectures.jumprelu import JumpReluAutoencoder
from sae.architectures.relu import ReluAutoencoder
from sae.architectures.weights import Inputs, Weights
from sae.config import TrainingRecipe
from sae.errors import UserError
from sae.losses import pre_activations, sparsified
from sae.recipes import RECIPES, april_2024, batchtopk, bricken_2023, jumprelu, topk, training_recipe

D_IN, UNITS = 5, 7


def autoencoder(*, seed: int = 0, pre_encoder_bias: bool = True, input_scale: float = 1.0) -> ReluAutoencoder:
    """Random float64 weights."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return ReluAutoencoder(
        normal(UNITS, D_IN), normal(UNITS), normal(UNITS, D_IN), normal(D_IN), pre_encoder_bias, input_scale
    )


def inputs(n: int = 11, seed: int = 9) -> torch.Tensor:
    """Random float64 vectors."""
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("pre_encoder_bias", [True, False])
def test_encode_and_decode_are_the_written_formulas(pre_encoder_bias: bool) -> None:
    """Encoding and decoding equal the formulas, unit by unit."""
    sae, x = autoencoder(pre_encoder_bias=pre_encoder_bias), inputs()
    f = sae.encode(x)
    for token in range(len(x)):
        centred = x[token] - sae.b_dec if pre_encoder_bias else x[token]
        for unit in range(UNITS):
            expected = max(0.0, float(centred @ sae.W_enc[unit] + sae.b_enc[unit]))
            assert f[token, unit].item() == pytest.approx(expected, abs=1e-12)
    assert torch.allclose(sae.decode(f), sum(f[:, [j]] * sae.W_dec[j] for j in range(UNITS)) + sae.b_dec)
    assert sae.names() == tuple("0123456")
    assert (sae.d_in, sae.n_units) == (D_IN, UNITS)


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 1000), pre_encoder_bias=st.booleans())
@settings(max_examples=30, deadline=None)
def test_folding_the_input_scale_changes_no_output(scale: float, seed: int, pre_encoder_bias: bool) -> None:
    """Activations, reconstructions and directions are the same with the scale in the weights."""
    sae = autoencoder(seed=seed, pre_encoder_bias=pre_encoder_bias, input_scale=scale)
    folded, x = sae.folded(), inputs(seed=seed)
    assert folded.input_scale == 1.0
    f = sae.encode(x)
    assert torch.allclose(folded.encode(x), f, rtol=1e-9, atol=1e-9)
    assert torch.allclose(folded.decode(f), sae.decode(f), rtol=1e-9, atol=1e-9)
    assert torch.allclose(folded.directions(), sae.directions(), rtol=1e-9)


def test_unit_directions_keep_the_reconstruction() -> None:
    """Activations change by the decoder norms, reconstructions not at all; a zero row stays zero."""
    sae, x = autoencoder(), inputs()
    sae.W_dec[3] = 0
    unit = sae.with_unit_directions()
    expected = torch.ones(UNITS, dtype=torch.float64)
    expected[3] = 0
    assert torch.allclose(unit.directions().norm(dim=1), expected)
    assert torch.allclose(unit.decode(unit.encode(x)), sae.decode(sae.encode(x)))


def test_jumprelu_fires_only_above_its_threshold() -> None:
    """Activations equal the ReLU autoencoder's above the threshold and are 0 elsewhere."""
    sae, x = autoencoder(pre_encoder_bias=False), inputs()
    threshold = torch.linspace(-1, 2, UNITS, dtype=torch.float64)
    jump = JumpReluAutoencoder(*sae.parameters(), threshold, pre_encoder_bias=False)
    f, plain = jump.encode(x), sae.encode(x)
    assert torch.equal(f > 0, (plain > threshold) & (plain > 0))
    assert torch.equal(f[f > 0], plain[f > 0])
    assert torch.allclose(jump.decode(f), f @ sae.W_dec + sae.b_dec)


def test_geometric_median_is_not_moved_by_outliers() -> None:
    """It minimises the summed distance, and one far point hardly moves it."""
    points = torch.randn(301, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points[0] = 1e4
    median = geometric_median(points, tolerance=1e-10, iterations=1000)
    assert median.norm() < 0.3 < points.mean(0).norm()
    gradient = torch.nn.functional.normalize(median - points, dim=1).sum(0)
    assert gradient.norm() < 1e-3
    assert torch.equal(geometric_median(torch.ones(4, 2)), torch.ones(2))


SMALL = {"d_sae": UNITS, "batch": 11}
ALL = [bricken_2023(**SMALL), april_2024(**SMALL), topk(**SMALL, k=3), batchtopk(**SMALL, k=3), jumprelu(**SMALL)]


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
@given(scale=st.floats(0.01, 100), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_folded_equals_unfolded(recipe: TrainingRecipe, scale: float, seed: int) -> None:
    """What is saved does to raw activations what training does to centred and scaled ones, in the site's units."""
    sae = autoencoder(seed=seed)
    x = inputs(seed=seed)
    w_dec = unit_rows(sae.W_dec) if recipe.unit_norm else sae.W_dec
    threshold = torch.linspace(0.1, 1, UNITS, dtype=torch.float64) if recipe.name == "jumprelu" else torch.zeros(1)
    weights = Weights(sae.W_enc, sae.b_enc, w_dec, sae.b_dec, threshold.double(), recipe.pre_encoder_bias)
    transform = Inputs(inputs(1, seed + 1)[0], scale)
    z = pre_activations(weights, transform(x))
    f = sparsified(z, weights, recipe.sparsity)
    if recipe.name == "batchtopk":
        weights.threshold.fill_(
            torch.where(f > 0, f, torch.inf).min() - 1e-9
        )  # of this very batch, so that both choose the same
    finished = weights.dictionary(recipe.sparsity, transform)
    reconstruction = (f @ w_dec + sae.b_dec) / scale + transform.centre
    activations = finished.encode(x)
    norms = w_dec.norm(dim=1) / scale
    assert torch.allclose(activations, f * norms, rtol=1e-7, atol=1e-9 * float(norms.max()))
    assert torch.allclose(finished.decode(activations), reconstruction, rtol=1e-7, atol=1e-9 / scale)
    assert torch.allclose(finished.directions().norm(dim=1), torch.ones(UNITS, dtype=torch.float64))


def _start(recipe: TrainingRecipe, sample: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    transform = input_transform(recipe, sample)
    return initial_weights(recipe, transform(sample)), transform(sample)


def _sample() -> torch.Tensor:
    return torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0)) + 3


def test_bricken_starts_at_the_median_with_unit_rows() -> None:
    """The tied bias is the geometric median of the scaled sample, the encoder PyTorch's default."""
    start, sample = _start(bricken_2023(d_sae=64), _sample())
    assert torch.allclose(start.b_dec, geometric_median(sample))
    assert torch.allclose(start.W_dec.norm(dim=1), torch.ones(64))
    assert 0.9 < start.W_enc.abs().max() * D_IN**0.5 <= 1
    assert start.pre_encoder_bias


def test_april_starts_with_the_encoder_equal_to_the_decoder() -> None:
    """Rows of norm 0.1, no bias, and inputs whose mean norm becomes the square root of their width."""
    start, sample = _start(april_2024(d_sae=64), _sample())
    assert torch.equal(start.W_enc, start.W_dec)
    assert start.W_enc.data_ptr() != start.W_dec.data_ptr()
    assert torch.allclose(start.W_dec.norm(dim=1), torch.full((64,), 0.1))
    assert not start.b_enc.any()
    assert not start.b_dec.any()
    assert sample.norm(dim=1).mean().item() == pytest.approx(D_IN**0.5, rel=1e-5)
    assert not start.pre_encoder_bias


@pytest.mark.parametrize("recipe", [topk(d_sae=64), jumprelu(d_sae=64)], ids=lambda recipe: recipe.name)
def test_centred_recipes_start_at_the_mean(recipe: TrainingRecipe) -> None:
    """Inputs have mean 0 and a mean squared norm of 1, decoder rows norm 1, and the biases are 0."""
    start, sample = _start(recipe, _sample())
    assert sample.mean(0).abs().max() < 1e-5
    assert sample.square().sum(1).mean().item() == pytest.approx(1, rel=1e-5)
    assert torch.allclose(start.W_dec.norm(dim=1), torch.ones(64))
    assert torch.equal(start.W_enc, start.W_dec)
    assert not start.b_dec.any()
    assert start.threshold.numel() == (64 if recipe.name == "jumprelu" else 1)


def test_degenerate_inputs_have_a_scale_and_rows() -> None:
    """Zeros are neither scaled nor normalised into NaN."""
    for scaling in ("mean-norm", "mean-square"):
        assert input_transform(topk(scaling=scaling), torch.zeros(3, 4)).scale == 1.0
    assert torch.equal(unit_rows(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_recipes_are_found_by_name_and_refuse_what_they_do_not_know() -> None:
    """Unknown recipes and fields are refused with the nearest valid one, impossible values with their range."""
    for name in RECIPES:
        assert training_recipe(name, seed=3).name == name
    with pytest.raises(UserError, match="Did you mean april-2024"):
        training_recipe("april-2025")
    with pytest.raises(UserError, match="Did you mean learning_rate"):
        training_recipe("april-2024", learning_rat=1.0)
    with pytest.raises(UserError, match="topk has no field 'l1'"):
        training_recipe("topk", l1=1.0)
    for changes in ({"d_sae": 0}, {"dead_window": 2.0}, {"resample_at": (1.0,)}, {"learning_rate": 0.0}, {"l1": -1.0}):
        with pytest.raises(UserError):
            training_recipe("bricken-2023", **changes)
    for name, changes in (("topk", {"k": 0}), ("topk", {"unit_norm": False}), ("jumprelu", {"bandwidth": 0.0})):
        with pytest.raises(UserError):
            training_recipe(name, **changes)


def test_the_papers_schedule_is_the_papers() -> None:
    """A million steps, resampled after 25, 50, 75 and 100 thousand, dead after 12,500 silent steps."""
    recipe = training_recipe("bricken-2023-paper")
    assert recipe.steps == 1_000_000
    assert recipe.resample_steps == {25_000, 50_000, 75_000, 100_000}
    assert recipe.dead_steps == 12_500
    assert recipe.resample_warmup == 0
    assert recipe.pool_batches * recipe.batch == recipe.resample_inputs == 819_200


def test_wider_dictionaries_learn_more_slowly() -> None:
    """Without a learning rate of its own, a recipe's falls with the square root of the width; one given is kept."""
    assert topk(d_sae=4096).learning_rate == pytest.approx(2 * topk(d_sae=16_384).learning_rate)
    assert jumprelu(d_sae=16_384, learning_rate=0.5).learning_rate == 0.5
    assert batchtopk(d_sae=40).learning_rate == 0.01


def test_the_default_precision_is_what_the_comparison_allows() -> None:
    """Every preset multiplies in bfloat16 where that is faster; full precision is one flag away."""
    assert {make().precision for make in RECIPES.values()} == {"medium"}
    assert bricken_2023(precision="fp32").precision == "fp32"
