"""The hand-written gradients against autograd, and what a step does to the weights."""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae import dense
from sae.architectures.initial import initial_weights
from sae.architectures.weights import Weights
from sae.config import L1, JumpRelu, TopK, TrainingRecipe
from sae.encode import rectify
from sae.losses import objective, pre_activations, sparsified
from sae.outcome import gradient
from sae.recipes import april_2024, batchtopk, bricken_2023, jumprelu, topk
from sae.sparse import largest
from sae.step import Step, matmul_precision, ramp, remove_parallel

D_IN, UNITS, BATCH = 6, 10, 32
SIZES = {"batch": BATCH, "d_sae": UNITS, "precision": "fp32"}
RECIPES = [
    bricken_2023(**SIZES),
    april_2024(**SIZES),
    bricken_2023(**SIZES, norm_weighted=True, unit_norm=False),
    april_2024(**SIZES, pre_encoder_bias=True),
    topk(**SIZES, k=3),
    topk(**SIZES, k=3, aux_k=2, pre_encoder_bias=False, mean_over_elements=True),
    batchtopk(**SIZES, k=3),
    jumprelu(**SIZES, bandwidth=0.5, threshold=0.3, pre_act_weight=0.2),
]
IDS = [f"{i}-{recipe.name}" for i, recipe in enumerate(RECIPES)]
DENSE = [recipe for recipe in RECIPES if isinstance(recipe.sparsity, L1 | JumpRelu)]
DEAD = torch.tensor([1, 4, 5, 7])


def _weights(recipe: TrainingRecipe, dtype: torch.dtype = torch.float64) -> Weights:
    weights = initial_weights(recipe, _batch(9, dtype))
    generator = torch.Generator().manual_seed(0)
    for tensor in (weights.W_enc, weights.b_enc, weights.b_dec):
        tensor.add_(torch.randn(tensor.shape, generator=generator, dtype=dtype), alpha=0.3)
    if isinstance(recipe.sparsity, JumpRelu):
        weights.threshold.mul_(torch.linspace(0.7, 1.3, UNITS, dtype=dtype))
    return weights


def _batch(seed: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(BATCH, D_IN, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _leaves(weights: Weights, recipe: TrainingRecipe) -> Weights:
    """A copy whose trained tensors record a graph."""
    names = ["W_enc", "b_enc", "W_dec", "b_dec", *(["threshold"] if isinstance(recipe.sparsity, JumpRelu) else [])]
    leaves = {name: getattr(weights, name).detach().clone().requires_grad_() for name in names}
    return dataclasses.replace(weights, **leaves)


def _gradients(recipe: TrainingRecipe, precision: str, batches: int) -> list[torch.Tensor]:
    """Of the last of so many batches, in float32 or fewer bits."""
    recipe = dataclasses.replace(recipe, precision=precision)
    weights = _weights(recipe, torch.float32)
    step = Step(weights, recipe)
    for seed in range(1, batches + 1):
        step.backward(_batch(seed, torch.float32), 0.3, DEAD)
    return [gradient(tensor) for tensor in weights.trained(recipe.sparsity)]


@pytest.mark.parametrize("dead", [None, DEAD], ids=["alive", "dead"])
@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
def test_gradients_equal_autograd(recipe: TrainingRecipe, dead: torch.Tensor | None) -> None:
    """Every gradient agrees with autograd on the written objective to 1e-10, tied bias and thresholds included."""
    weights, x = _weights(recipe), _batch()
    result = Step(weights, recipe).backward(x, 0.3, dead, count=True)
    reference = _leaves(weights, recipe)
    loss = objective(reference, recipe, x, 0.3, dead)
    loss.backward()
    for ours, theirs in zip(weights.trained(recipe.sparsity), reference.trained(recipe.sparsity), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert (ours.grad - theirs.grad).abs().max() < 1e-10
        assert theirs.grad.abs().max() > 1e-3
    assert result.loss.item() == pytest.approx(loss.item(), abs=1e-10)
    active = sparsified(pre_activations(weights, x), weights, recipe.sparsity) > 0
    assert torch.equal(result.fired, active.any(0))
    assert result.firings == active.sum()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("bf16", 0.02)])
@pytest.mark.parametrize("recipe", DENSE, ids=lambda recipe: recipe.name)
def test_gradients_do_not_depend_on_blocks(
    recipe: TrainingRecipe, precision: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of few units and rows, the last of them not whole, give the gradients of one block."""
    one = _gradients(recipe, precision, batches=1)
    for name, size in {"_UNITS_NEAR": 3, "_UNITS_OF_GRADIENT": 4, "_BLOCK": 5}.items():
        monkeypatch.setattr(dense, name, size)
    for whole, parts in zip(one, _gradients(recipe, precision, batches=1), strict=True):
        assert (whole - parts).norm() <= tolerance * whole.norm()


@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
def test_gradients_in_bfloat16_are_those_in_full_precision_but_for_rounding(recipe: TrainingRecipe) -> None:
    """Every one is within a tenth of its norm, also of a second batch, in buffers that are no longer new."""
    full, short = (_gradients(recipe, precision, batches=2) for precision in ("fp32", "bf16"))
    for wanted, found in zip(full, short, strict=True):
        assert (wanted - found).norm() < 0.1 * wanted.norm()


@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
def test_a_hundred_steps_equal_autograd_in_float32(recipe: TrainingRecipe) -> None:
    """Weights stay within 1e-4 of a plain loop's: autograd, projection, clipping, torch's Adam, renormalising."""
    weights = _weights(recipe, torch.float32)
    reference = _leaves(weights, recipe)
    step, trained = Step(weights, recipe), reference.trained(recipe.sparsity)
    adam = torch.optim.Adam(trained, betas=recipe.betas)
    for i in range(100):
        # A draw at the edge of two choices could part the two for good; these seeds have none.
        x, dead = _batch(100 + i, torch.float32), DEAD if i % 2 else None
        result = step(x, weight=0.3, learning_rate=1e-3, dead=dead)
        adam.zero_grad()
        loss = objective(reference, recipe, x, 0.3, dead)
        loss.backward()
        with torch.no_grad():
            if recipe.unit_norm:
                assert reference.W_dec.grad is not None
                remove_parallel(reference.W_dec.grad, reference.W_dec)
            if recipe.clip is not None:
                torch.nn.utils.clip_grad_norm_(trained, recipe.clip)
            adam.step()
            if recipe.unit_norm:
                reference.W_dec.div_(reference.W_dec.norm(dim=1, keepdim=True))
            if isinstance(recipe.sparsity, JumpRelu):
                reference.threshold.clamp_(min=0)
        assert result.loss.item() == pytest.approx(loss.item(), rel=1e-3)
    start = _weights(recipe, torch.float32)
    names = ("W_enc", "b_enc", "W_dec", "b_dec", *(["threshold"] if isinstance(recipe.sparsity, JumpRelu) else []))
    for name in names:
        ours, theirs = getattr(weights, name), getattr(reference, name)
        assert (ours - theirs).abs().max() < 1e-4
        assert (ours - getattr(start, name)).abs().max() > 1e-2


@pytest.mark.parametrize("precision", ["medium", "bf16"])
@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
def test_fewer_bits_give_nearly_the_same_loss(recipe: TrainingRecipe, precision: str) -> None:
    """The loss of a step agrees with full precision to a few parts in a hundred, and weights stay float32."""
    losses = []
    for each in (recipe, dataclasses.replace(recipe, precision=precision)):
        weights = _weights(each, torch.float32)
        losses.append(Step(weights, each)(_batch(1, torch.float32), weight=0.3, learning_rate=1e-3).loss.item())
        assert all(tensor.dtype == torch.float32 for tensor in weights.trained(each.sparsity))
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@pytest.mark.slow  # a process of its own: oneDNN reads its limit once
def test_without_amx_medium_is_full_precision() -> None:
    """A processor that cannot multiply in bfloat16 faster gives the same bits in both."""
    code = (
        "import torch; from sae.step import matmul_precision; a = torch.randn(64, 64, generator=torch.manual_seed(0))\n"
        "def product(precision):\n    with matmul_precision(precision): return a @ a\n"
        "assert torch.equal(product('fp32'), product('medium'))"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}, check=True)


def test_the_threshold_of_a_batch_topk_follows_its_batches() -> None:
    """The first batch sets it to its smallest activation, the next ones move it by the rate."""
    recipe = batchtopk(**SIZES, k=3, threshold_rate=0.25)
    weights = _weights(recipe)
    step, smallest = Step(weights, recipe), list[float]()
    for x in (_batch(1), _batch(2)):
        step.backward(x, 0.0)
        activations = sparsified(pre_activations(weights, x), weights, recipe.sparsity)
        smallest.append(activations[activations > 0].min().item())
    assert weights.threshold.item() == pytest.approx(0.75 * smallest[0] + 0.25 * smallest[1])


def test_the_parallel_gradient_is_removed() -> None:
    """What is left of each gradient row is orthogonal to its unit-norm row, and the rest is untouched."""
    rows = torch.nn.functional.normalize(_batch(2), dim=1)
    gradient = _batch(3)
    before = gradient.clone()
    remove_parallel(gradient, rows)
    assert (gradient * rows).sum(1).abs().max() < 1e-12
    removed = before - gradient
    assert torch.allclose(removed, (removed * rows).sum(1, keepdim=True) * rows)


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe.unit_norm], ids=lambda recipe: recipe.name)
def test_decoder_rows_stay_at_norm_one(recipe: TrainingRecipe) -> None:
    """After steps, decoder rows have norm 1, and the error has fallen."""
    weights = _weights(recipe)
    step = Step(weights, recipe)
    errors = [step(_batch(), weight=0.01, learning_rate=1e-2).mse for _ in range(30)]
    assert torch.allclose(weights.W_dec.norm(dim=1), torch.ones(UNITS, dtype=torch.float64))
    assert errors[-1] < 0.8 * errors[0]


def test_the_gradient_is_clipped_to_its_norm() -> None:
    """Adam sees a gradient whose norm is at most the recipe's, and one below it as it is."""
    first = []
    for clip in (None, 0.01, 1e6):
        recipe = april_2024(**SIZES, clip=clip)
        weights = _weights(recipe)
        step = Step(weights, recipe)
        step(_batch(), weight=1.0, learning_rate=1e-3)
        first.append([step.optimizer.state[tensor]["exp_avg"] / (1 - recipe.betas[0]) for tensor in step.trained])
    norms = [torch.stack([tensor.square().sum() for tensor in seen]).sum().sqrt().item() for seen in first]
    assert norms[1] == pytest.approx(0.01, rel=1e-5)
    assert norms[0] == norms[2] > 1
    assert all(torch.allclose(a * (0.01 / norms[0]), b) for a, b in zip(first[0], first[1], strict=True))


@pytest.mark.parametrize("recipe", RECIPES, ids=IDS)
def test_a_loss_that_is_not_finite_changes_no_weight(recipe: TrainingRecipe) -> None:
    """The weights before a bad batch are the weights after it, and after good ones that follow."""
    weights = _weights(recipe)
    before = [tensor.clone() for tensor in weights.four()]
    x = _batch()
    x[0, 0] = torch.nan
    step = Step(weights, recipe)
    assert step(x, weight=1.0, learning_rate=1e-3).loss.isnan()
    step(_batch(), weight=1.0, learning_rate=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, weights.four(), strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recipe", [each for each in RECIPES if isinstance(each.sparsity, L1 | TopK)])
def test_a_step_waits_for_no_value(recipe: TrainingRecipe, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through where there are shapes but no values, as on a GPU, which would stand idle to give one.

    BatchTopK and JumpReLU do wait: for places, whose number they need.
    """
    adam = sys.modules[torch.optim.Adam.__module__]
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda *_, **__: None)
    recipe = dataclasses.replace(recipe, precision=precision)
    names = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
    weights = _weights(recipe, torch.float32)
    weights = dataclasses.replace(weights, **{name: getattr(weights, name).to("meta") for name in names})
    step, x = Step(weights, recipe), _batch(1, torch.float32).to("meta")
    for dead in (None, DEAD.to("meta")):
        assert step(x, weight=1.0, learning_rate=1e-3, dead=dead).fired.shape == (UNITS,)


def test_the_matmul_precision_comes_back() -> None:
    """The global setting is put back, after an error too."""
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ZeroDivisionError), matmul_precision("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == before


def test_ramp_rises_and_falls_linearly() -> None:
    """Full from the end of the warm-up to the start of the decay, above 0 at both ends."""
    values = [ramp(step, 100, warmup=0.1, decay=0.2) for step in range(100)]
    assert values[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert set(values[9:81]) == {1.0}
    assert values[-2:] == pytest.approx([0.1, 0.05])
    assert {ramp(step, 100, warmup=0.0) for step in range(100)} == {1.0}


def test_a_bfloat16_is_rectified_as_an_integer() -> None:
    """All numbers of bfloat16, infinities included, become what ReLU makes of them."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    numbers = every[~every.isnan()]
    rectified = numbers.clone()
    rectify(rectified)
    assert len(numbers) > 65_000
    assert torch.equal(rectified, numbers.relu())


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_the_largest_of_every_row_are_found_by_blocks(tokens: int, eighths: int, k: int, seed: int) -> None:
    """The same values as torch's own, from places that hold them and differ."""
    values = torch.randint(-50, 50, (tokens, 8 * eighths), generator=torch.Generator().manual_seed(seed))
    k = min(k, 8 * eighths)
    found, places = largest(values, k)
    assert torch.equal(found.sort(dim=1).values, values.topk(k).values.flip(1))
    assert torch.equal(values.gather(1, places), found)
    assert all(len(row.unique()) == k for row in places)


def test_a_unit_chosen_at_zero_has_not_fired() -> None:
    """Where fewer than k pre-activations are above 0, the rest of the chosen count as silent."""
    recipe = topk(**SIZES, k=3)
    weights = _weights(recipe, torch.float32)
    weights.b_enc.sub_(100)
    assert not Step(weights, recipe).backward(_batch(1, torch.float32), 0.0).fired.any()
