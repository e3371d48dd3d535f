"""The trainer and the harvest on a CUDA device give what they give on a processor. Run with ``pytest -m gpu -n 0``."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sae.architectures.initial import initial_weights
from sae.config import TrainingRecipe
from sae.dictionary import on_device
from sae.features import stream_units
from sae.metrics import evaluate_dictionary
from sae.recipes import april_2024, batchtopk, bricken_2023, jumprelu, topk
from sae.rows import train
from sae.step import Step
from sae.subject import load_subject
from sae.trainee import TrainLog
from sae.trainer import sweep_on
from tests.sae.resumable import RECIPES, STEPS, rows
from tests.sae.tiny import gpt2_folder, random_windows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
DEVICE = torch.device("cuda")
BATCH, D_IN = 256, 48
SIZES = {"batch": BATCH, "d_sae": 160, "precision": "fp32"}
EVERY = [
    bricken_2023(**SIZES),
    april_2024(**SIZES),
    topk(**SIZES, k=5),
    batchtopk(**SIZES, k=5),
    jumprelu(**SIZES, bandwidth=0.5, threshold=0.3, pre_act_weight=0.2),
]


def _losses(recipe: TrainingRecipe, device: torch.device, steps: int) -> list[float]:
    """Of `steps` steps; every second one has dead units."""
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(BATCH, D_IN, generator=generator).to(device) for _ in range(steps)]
    step = Step(initial_weights(recipe, batches[0]), recipe)
    dead = torch.arange(0, recipe.d_sae, 7, device=device)
    return [
        step(x, weight=0.3, learning_rate=1e-3, dead=dead if i % 2 else None, count=True).loss.item()
        for i, x in enumerate(batches)
    ]


@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: recipe.name)
def test_steps_are_those_of_the_processor(recipe: TrainingRecipe) -> None:
    """The losses of thirty steps agree to a part in a thousand."""
    ours = _losses(recipe, DEVICE, 30)
    assert ours == pytest.approx(_losses(recipe, torch.device("cpu"), 30), rel=1e-3)


@pytest.mark.parametrize("precision", ["medium", "bf16"])
@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: recipe.name)
def test_fewer_bits_give_nearly_the_same_losses(recipe: TrainingRecipe, precision: str) -> None:
    """Three steps agree with full precision to a few parts in a hundred."""
    fewer = _losses(dataclasses.replace(recipe, precision=precision), DEVICE, 3)
    assert fewer == pytest.approx(_losses(recipe, DEVICE, 3), rel=0.03)


@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: recipe.name)
def test_a_loss_that_is_not_finite_changes_no_weight(recipe: TrainingRecipe) -> None:
    """Not in its step nor in the good ones that follow, which are under way before anyone reads it."""
    x = torch.randn(BATCH, D_IN, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    step = Step(initial_weights(recipe, x), recipe)
    before = [tensor.clone() for tensor in step.trained]
    for batch in (x * torch.nan, x):
        step(batch, weight=0.3, learning_rate=1e-3)
    assert all(torch.equal(old, new) for old, new in zip(before, step.trained, strict=True))


def test_an_interrupted_sweep_goes_on(tmp_path: Path) -> None:
    """All architectures, with resampling and dead units: after a checkpoint the run ends as on a processor."""

    def there(start: int) -> Iterator[torch.Tensor]:
        return (piece.to(DEVICE) for piece in rows(start))

    def interrupt(log: TrainLog) -> None:
        if log.tokens >= 50 * 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep_on(there, RECIPES, tmp_path / "gpu", on_log=interrupt)
    ends = dict[str, TrainLog]()
    found = sweep_on(there, RECIPES, tmp_path / "gpu", on_log=lambda log: ends.update({log.name: log}), resume=True)
    assert all(dictionary.W_dec.device.type == DEVICE.type for dictionary in found.values())
    on_processor = dict[str, TrainLog]()
    sweep_on(rows, RECIPES, tmp_path / "cpu", on_log=lambda log: on_processor.update({log.name: log}))
    assert ends.keys() == RECIPES.keys()
    for name, log in ends.items():
        assert log.tokens == STEPS * 64
        assert log.fvu == pytest.approx(on_processor[name].fvu, rel=0.1)


def test_a_dictionary_of_a_subject_is_trained_measured_and_harvested(tmp_path: Path) -> None:
    """Losses and firings are those that the same dictionary has on a processor."""
    folder = gpt2_folder(tmp_path / "subject")
    here, there = (load_subject(str(folder), device=device) for device in ("cpu", DEVICE.type))
    windows, name = random_windows(here, 40), "blocks.0.mlp.hook_post"
    recipe = topk(d_sae=32, tokens=64 * 40, batch=64, pool_batches=4, k=4)
    dictionary = train(there, there.site(name), windows, recipe, tmp_path / "sae")
    moved = on_device(dictionary, "cpu")
    found, wanted = (
        evaluate_dictionary(subject, subject.site(name), own, windows)
        for subject, own in ((there, dictionary), (here, moved))
    )
    assert found.fvu == pytest.approx(wanted.fvu, rel=1e-3)
    assert found.loss_reconstructed == pytest.approx(wanted.loss_reconstructed, rel=1e-4)
    firings = [
        np.concatenate([block["sae"].value for _, block in stream_units(subject, places, windows)])
        for subject, places in (
            (there, {"sae": (there.site(name), dictionary)}),
            (here, {"sae": (here.site(name), moved)}),
        )
    ]
    assert np.sort(firings[0]) == pytest.approx(np.sort(firings[1]), rel=1e-3, abs=1e-5)
