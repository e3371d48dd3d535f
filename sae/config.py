"""How an autoencoder is trained: recipes, their presets and their units."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sae.errors import UserError, nearest

Precision = Literal["highest", "high", "medium"]
"""torch's float32 matmul precision; ``medium`` multiplies in bfloat16 where the processor can."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRecipe:
    """Everything that decides a training run, besides the activations. Schedules are fractions of the run."""

    name: str
    """The preset it came from, such as ``bricken-2023``."""
    pre_encoder_bias: bool
    """Whether the decoder bias is subtracted from the input (tied, started at the geometric median)."""
    mean_over_elements: bool
    """Whether the squared error is a mean over the elements of a vector, else their sum. Decides the scale of `l1`."""
    norm_weighted: bool
    """Whether each activation is weighted by its decoder norm in the L1 term."""
    unit_norm: bool
    """Whether decoder rows are kept at norm 1, the parallel gradient removed before Adam."""
    scale_inputs: bool
    """Whether inputs are multiplied by one number so that their mean norm is the square root of their width."""
    d_sae: int = 4096
    """Units."""
    tokens: int = 50_000_000
    """Activation vectors to train on."""
    batch: int = 4096
    """Activation vectors per step."""
    learning_rate: float = 1e-3
    """Adam's, at its peak."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    l1: float
    """Weight of the summed activations against the squared error, after its warm-up."""
    learning_rate_warmup: float = 0.0
    """Fraction of the run over which the learning rate rises from 0."""
    learning_rate_decay: float = 0.0
    """Fraction of the run, at its end, over which the learning rate falls to 0."""
    l1_warmup: float = 0.0
    """Fraction of the run over which `l1` rises from 0."""
    clip: float | None = None
    """Largest norm of the whole gradient; None does not clip."""
    resample_at: tuple[float, ...] = ()
    """When dead units are given new directions, as fractions of the run."""
    resample_inputs: int = 819_200
    """Inputs whose loss decides the new directions; at most as many as the pool holds."""
    resample_warmup: float = 0.0
    """Fraction of the run over which the learning rate rises from 0 again after units were resampled."""
    dead_window: float = 0.05
    """A unit is dead when it has not fired for this fraction of the run."""
    pool_batches: int = 64
    """Batches in the shuffle pool; a run of fewer steps has a smaller pool."""
    matmul_precision: Precision = "highest"
    """Of the training step; the former setting comes back after each step."""
    checkpoint_every: int = 5_000_000
    """Tokens between checkpoints."""
    log_every: int = 100_000
    """Tokens between log lines."""
    seed: int = 0
    """Of the initial weights, the order of windows, the pool and the resampling."""

    def __post_init__(self) -> None:
        for field in ("d_sae", "tokens", "batch", "pool_batches", "checkpoint_every", "log_every", "resample_inputs"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}.", do="It must be at least 1.")
        for field in ("learning_rate_warmup", "learning_rate_decay", "l1_warmup", "resample_warmup", "dead_window"):
            if not 0 <= getattr(self, field) <= 1:
                raise UserError(f"{field} is {getattr(self, field)}.", do="It is a fraction of the run, 0 to 1.")
        if not all(0 < at < 1 for at in self.resample_at):
            raise UserError(f"resample_at is {self.resample_at}.", do="Give fractions of the run between 0 and 1.")
        if not (self.learning_rate > 0 and self.l1 >= 0):
            raise UserError(
                f"learning_rate is {self.learning_rate} and l1 is {self.l1}.",
                do="The first must be above 0, the second at least 0.",
            )

    @property
    def steps(self) -> int:
        """Steps of the run: the last batch is whole."""
        return -(-self.tokens // self.batch)

    @property
    def dead_steps(self) -> int:
        """Steps without firing after which a unit is dead."""
        return max(1, round(self.dead_window * self.steps))

    @property
    def resample_steps(self) -> frozenset[int]:
        """Steps after which dead units are resampled."""
        return frozenset(max(1, round(at * self.steps)) for at in self.resample_at)


def bricken_2023(**changes: Any) -> TrainingRecipe:
    """Towards Monosemanticity (Bricken et al. 2023), for runs of 2 to 50 million tokens.

    Unlike the paper's, inputs are scaled to a mean norm of the square root of their width, so that `l1` and
    `learning_rate` mean the same at every site; the resampling is spread over the first half of the run, and the
    learning rate warms up again after it: new units fire on many inputs at first, and at a rate that suits a short
    run the gradients of that spike silence units that were alive.
    """
    preset = TrainingRecipe(
        name="bricken-2023",
        pre_encoder_bias=True,
        mean_over_elements=True,
        norm_weighted=False,
        unit_norm=True,
        scale_inputs=True,
        l1=0.005,
        resample_at=(0.1, 0.25, 0.4, 0.55),
        resample_warmup=0.05,
    )
    return _changed(preset, changes)


def bricken_2023_paper(**changes: Any) -> TrainingRecipe:
    """The paper's own sizes: a million steps of 8,192, resampled after 25,000, 50,000, 75,000 and 100,000 of them.

    The learning rate is not in the paper's text; 0.004 is the L1 coefficient of its runs A/0 to A/5.
    """
    preset = bricken_2023(
        name="bricken-2023-paper",
        scale_inputs=False,
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
    return _changed(preset, changes)


def april_2024(**changes: Any) -> TrainingRecipe:
    """Anthropic's update of April 2024. Its learning rate is 5e-5 over 200,000 steps; the one here suits short runs."""
    preset = TrainingRecipe(
        name="april-2024",
        pre_encoder_bias=False,
        mean_over_elements=False,
        norm_weighted=True,
        unit_norm=False,
        scale_inputs=True,
        l1=5.0,
        l1_warmup=0.05,
        learning_rate_decay=0.2,
        clip=1.0,
    )
    return _changed(preset, changes)


RECIPES: Mapping[str, Callable[..., TrainingRecipe]] = {
    "bricken-2023": bricken_2023,
    "bricken-2023-paper": bricken_2023_paper,
    "april-2024": april_2024,
}
"""Presets by name."""


def training_recipe(name: str, **changes: Any) -> TrainingRecipe:
    """The preset `name` with `changes` to its fields. Raises `UserError` for an unknown name or field."""
    if name not in RECIPES:
        raise UserError(f"There is no training recipe {name!r}.", do=nearest(name, RECIPES))
    return RECIPES[name](**changes)


def _changed(preset: TrainingRecipe, changes: Mapping[str, Any]) -> TrainingRecipe:
    fields = [field.name for field in dataclasses.fields(preset)]
    for name in changes:
        if name not in fields:
            raise UserError(f"A training recipe has no field {name!r}.", do=nearest(name, fields))
    return dataclasses.replace(preset, **changes)
