"""The training recipes that have a name."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

from sae.config import L1, BatchTopK, JumpRelu, TopK, TrainingRecipe
from sae.errors import UserError, nearest


def bricken_2023(**changes: Any) -> TrainingRecipe:
    """Towards Monosemanticity (Bricken et al. 2023), for runs of 2 to 50 million tokens.

    Unlike the paper's, inputs are scaled to a mean norm of the square root of their width, so that `l1` and
    `learning_rate` mean the same at every site; the resampling is spread over half of the run and a little more, and
    the learning rate warms up again after it: new units fire on many inputs at first, and at a rate that suits a short
    run the gradients of that spike silence units that were alive.
    """
    preset = TrainingRecipe(
        name="bricken-2023",
        sparsity=L1(l1=0.005, norm_weighted=False),
        pre_encoder_bias=True,
        mean_over_elements=True,
        unit_norm=True,
        scaling="mean-norm",
        resample_at=(0.1, 0.25, 0.4, 0.55),
        resample_warmup=0.05,
    )
    return changed(preset, changes)


def bricken_2023_paper(**changes: Any) -> TrainingRecipe:
    """The paper's own sizes: a million steps of 8,192, resampled after 25,000, 50,000, 75,000 and 100,000 of them.

    The learning rate is not in the paper's text; 0.004 is the L1 coefficient of its runs A/0 to A/5.
    """
    preset = bricken_2023(
        name="bricken-2023-paper",
        scaling="none",
        tokens=8192 * 1_000_000,
        batch=8192,
        l1=0.004,
        learning_rate=1e-4,
        resample_at=(0.025, 0.05, 0.075, 0.1),
        resample_warmup=0.0,
        dead_window=0.0125,
        pool_batches=100,
        checkpoint_every=100_000_000,
        log_every=1_000_000,
    )
    return changed(preset, changes)


def april_2024(**changes: Any) -> TrainingRecipe:
    """Anthropic's update of April 2024. Its learning rate is 5e-5 over 200,000 steps; the one here suits short runs."""
    preset = TrainingRecipe(
        name="april-2024",
        sparsity=L1(l1=5.0, norm_weighted=True),
        pre_encoder_bias=False,
        mean_over_elements=False,
        unit_norm=False,
        scaling="mean-norm",
        sparsity_warmup=0.05,
        learning_rate_decay=0.2,
        clip=1.0,
    )
    return changed(preset, changes)


def topk(**changes: Any) -> TrainingRecipe:
    """TopK with AuxK (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", sections 2.3 and 2.4).

    From there: encoder started as the decoder's transpose, unit-norm decoder rows with the parallel gradient removed,
    auxiliary weight 1/32 with half the site's width of dead units. Warm-up, decay over the last fifth and clipping at
    1 are dictionary_learning's. As there the learning rate falls with the square root of the width, but from a higher
    one (2e-4 at 2^14 units there), for runs of fewer steps; a unit is dead after 10 million tokens there, here after
    a share of the run.
    """
    preset = TrainingRecipe(name="topk", sparsity=TopK(k=32), **_COMPETING)
    return _paced(preset, changes)


def batchtopk(**changes: Any) -> TrainingRecipe:
    """BatchTopK (Bussmann et al. 2024, "BatchTopK sparse autoencoders"), else as `topk`.

    The running threshold follows faster than SAELens's (``topk_threshold_lr`` 0.01): over the few hundred steps of a
    short run that one lags behind the units and lets too few fire.
    """
    preset = TrainingRecipe(name="batchtopk", sparsity=BatchTopK(k=32), **_COMPETING)
    return _paced(preset, changes)


def jumprelu(**changes: Any) -> TrainingRecipe:
    """JumpReLU (Rajamanoharan et al. 2024, "Jumping ahead", section 5 and appendix).

    From there: inputs of mean squared norm 1, unit-norm decoder rows, a learning rate that warms up. Thresholds are
    trained as they are: under Adam a logarithm hardly moves (SAELens issue 718). The paper trains for 2 million steps
    with a learning rate of 7e-5, a bandwidth and threshold of 0.001 and no momentum; over a few hundred steps so few
    inputs fall into so narrow a window that thresholds stay where they are, and units that should be silent fire.
    Bandwidth, threshold, momentum and learning rate here suit short runs.
    """
    preset = TrainingRecipe(
        name="jumprelu",
        sparsity=JumpRelu(l0=0.002, bandwidth=0.03, threshold=0.03, pre_act_weight=1e-3),
        pre_encoder_bias=False,
        mean_over_elements=False,
        unit_norm=True,
        scaling="mean-square",
        centre=True,
        learning_rate_warmup=0.02,
        learning_rate_decay=0.2,
        sparsity_warmup=0.5,
    )
    return _paced(preset, changes)


_COMPETING: dict[str, Any] = {
    "pre_encoder_bias": True,
    "mean_over_elements": False,
    "unit_norm": True,
    "scaling": "mean-square",
    "centre": True,
    "learning_rate_warmup": 0.1,
    "learning_rate_decay": 0.2,
    "clip": 1.0,
}
"""What `topk` and `batchtopk` share."""


def _paced(preset: TrainingRecipe, changes: Mapping[str, Any]) -> TrainingRecipe:
    """`preset` with `changes`, and a learning rate by the square root of its width where they have none.

    1.5e-3 at 4,096 units; at most 0.01, which is that of about a hundred units.
    """
    recipe = changed(preset, changes)
    rate = min(0.01, 1.5e-3 * math.sqrt(4096 / recipe.d_sae))
    return recipe if "learning_rate" in changes else dataclasses.replace(recipe, learning_rate=rate)


RECIPES: Mapping[str, Callable[..., TrainingRecipe]] = {
    "bricken-2023": bricken_2023,
    "bricken-2023-paper": bricken_2023_paper,
    "april-2024": april_2024,
    "topk": topk,
    "batchtopk": batchtopk,
    "jumprelu": jumprelu,
}
"""Presets by name."""


def training_recipe(name: str, **changes: Any) -> TrainingRecipe:
    """The preset `name` with `changes` to its fields. Raises `UserError` for an unknown name or field."""
    if name not in RECIPES:
        raise UserError(f"There is no training recipe {name!r}.", do=nearest(name, RECIPES), usage=True)
    return RECIPES[name](**changes)


def changed(recipe: TrainingRecipe, changes: Mapping[str, Any]) -> TrainingRecipe:
    """`recipe` with `changes` to its fields or to those of its sparsity. Raises `UserError` for an unknown one."""
    own = {field.name for field in dataclasses.fields(recipe)}
    of_sparsity = {field.name for field in dataclasses.fields(recipe.sparsity)}
    for name in changes:
        if name not in own | of_sparsity:
            near = nearest(name, own | of_sparsity if difflib.get_close_matches(name, own) else of_sparsity)
            raise UserError(f"The recipe {recipe.name} has no field {name!r}.", do=near, usage=True)
    sparsity = dataclasses.replace(
        changes.get("sparsity", recipe.sparsity), **{name: changes[name] for name in changes if name in of_sparsity}
    )
    rest = {name: value for name, value in changes.items() if name in own}
    return dataclasses.replace(recipe, **{**rest, "sparsity": sparsity})
