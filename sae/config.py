"""How an autoencoder is trained: recipes and their units. The presets are in `sae.recipes`."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sae.errors import UserError

ULTRA_LOW = 1e-6
"""Density below which a living unit counts as ultra-low (Towards Monosemanticity)."""
ULTRA_LOW_TOKENS = 10_000_000
"""Tokens without which a density below `ULTRA_LOW` cannot be told from none: ten expected firings."""
Precision = Literal["fp32", "medium", "bf16"]
"""Of a training step. ``fp32``: all of it. ``medium``: weights and activations are kept in float32 and multiplied in
bfloat16 (AMX) or TF32 (tensor cores) where the processor can; a processor without AMX gives the numbers of fp32, bit
for bit. ``bf16``: the (token, unit) tensors are kept in bfloat16 too, and a dense step's gradients are rounded to it;
weights, what is summed over steps and Adam stay float32."""
Scaling = Literal["none", "mean-norm", "mean-square"]
"""The one number that inputs are multiplied by: 1; what makes their mean norm the square root of their width
(SAELens's ``expected_average_only_in``); what makes the mean of their squared norm 1 (Rajamanoharan et al. 2024)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class L1:
    """ReLU units and a penalty on their sum."""

    l1: float
    """Weight of the summed activations against the squared error, after the warm-up."""
    norm_weighted: bool
    """Whether each activation is weighted by its decoder norm in the penalty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopK:
    """The `k` largest pre-activations of each input; dead units learn from what the others leave (Gao et al. 2024)."""

    k: int
    """Units per input."""
    aux_k: int | None = None
    """Dead units, at most, that reconstruct the error of an input; None is half the site's width."""
    aux_weight: float = 1 / 32
    """Weight of that reconstruction's error, relative to the main one's (both as fractions of their variance)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTopK:
    """The `k` largest positive pre-activations per input on average over a batch (Bussmann et al. 2024).

    Saved as JumpReLU with one threshold, the running mean of the smallest activation of a batch.
    """

    k: int
    """Units per input, on average."""
    aux_k: int | None = None
    """As for TopK."""
    aux_weight: float = 1 / 32
    """As for TopK."""
    threshold_rate: float = 0.05
    """How far a batch moves the running threshold towards its own, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JumpRelu:
    """Units with a trained threshold each, and a penalty on the number that fire (Rajamanoharan et al. 2024)."""

    l0: float
    """Weight of the number of units that fire against the squared error, after the warm-up."""
    bandwidth: float
    """Width of the window around a threshold in which pre-activations move it, in the units of scaled inputs."""
    threshold: float
    """Every threshold at the start, above 0."""
    pre_act_weight: float = 0.0
    """Weight of how far below their thresholds the pre-activations of dead units lie, which brings them back."""


Sparsity: TypeAlias = L1 | TopK | BatchTopK | JumpRelu
"""How few units fire: the only thing in which architectures differ. Gated and Matryoshka would be two more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRecipe:
    """Everything that decides a training run, besides the activations. Schedules are fractions of the run."""

    name: str
    """The preset it came from, such as ``bricken-2023``."""
    sparsity: Sparsity
    """Architecture, with its own settings."""
    pre_encoder_bias: bool
    """Whether the decoder bias is subtracted from the input (tied)."""
    mean_over_elements: bool
    """Whether the squared error is a mean over the elements of a vector, else their sum."""
    unit_norm: bool
    """Whether decoder rows are kept at norm 1, the parallel gradient removed before Adam."""
    scaling: Scaling
    """What inputs are multiplied by."""
    centre: bool = False
    """Whether the mean of the inputs is subtracted from them first: units then start less often dead
    (arXiv:2605.31518)."""
    d_sae: int = 4096
    """Units."""
    tokens: int = 2_000_000
    """Activation vectors to train on, by all processes together."""
    batch: int = 4096
    """Activation vectors per step, of all processes together."""
    learning_rate: float = 1e-3
    """Adam's, at its peak."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    learning_rate_warmup: float = 0.0
    """Fraction of the run over which the learning rate rises from 0."""
    learning_rate_decay: float = 0.0
    """Fraction of the run, at its end, over which the learning rate falls to 0."""
    sparsity_warmup: float = 0.0
    """Fraction of the run over which the sparsity penalty's weight rises from 0."""
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
    precision: Precision = "medium"
    """Of the training step. In no architecture did a measure of quality tell ``medium`` or ``bf16`` from ``fp32`` by
    more than seeds differ (``results/benchmarks/sae_precision.md``, with AMX). The command takes
    `sae.step.fastest_precision`."""
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
        fractions = (
            "learning_rate_warmup",
            "learning_rate_decay",
            "sparsity_warmup",
            "resample_warmup",
            "dead_window",
        )
        for field in fractions:
            if not 0 <= getattr(self, field) <= 1:
                raise UserError(f"{field} is {getattr(self, field)}.", do="It is a fraction of the run, 0 to 1.")
        if not all(0 < at < 1 for at in self.resample_at):
            raise UserError(f"resample_at is {self.resample_at}.", do="Give fractions of the run between 0 and 1.")
        if not self.learning_rate > 0:
            raise UserError(f"learning_rate is {self.learning_rate}.", do="It must be above 0.")
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"clip is {self.clip}.", do="It must be above 0.")
        _check_sparsity(self)

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

    @property
    def weight(self) -> float:
        """Weight of the sparsity penalty after its warm-up; 0 where there is none."""
        match self.sparsity:
            case L1(l1=weight) | JumpRelu(l0=weight):
                return weight
            case TopK() | BatchTopK():
                return 0.0

    def elements(self, d_in: int) -> int:
        """What a vector's summed squared error is divided by."""
        return d_in if self.mean_over_elements else 1


def _check_sparsity(recipe: TrainingRecipe) -> None:
    match recipe.sparsity:
        case L1(l1=weight):
            if not weight >= 0:
                raise UserError(f"l1 is {weight}.", do="It must be at least 0.")
        case JumpRelu(l0=weight, bandwidth=bandwidth, threshold=threshold):
            if not (weight >= 0 and bandwidth > 0 and threshold > 0):
                raise UserError(
                    f"l0 is {weight}, bandwidth {bandwidth} and threshold {threshold}.",
                    do="The first must be at least 0, the others above 0.",
                )
        case TopK(k=k) | BatchTopK(k=k):
            if not 1 <= k <= recipe.d_sae:
                raise UserError(f"k is {k}.", do=f"It must be 1 to d_sae, which is {recipe.d_sae}.")
            if not recipe.unit_norm:
                raise UserError(
                    "Units that compete need decoder rows of norm 1.",
                    "Otherwise a unit wins by a short decoder row and a long encoder row.",
                    "Set unit_norm.",
                )
