"""One dictionary in training: its weights, schedules, statistics, and all that a checkpoint of it holds."""

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae.architectures.initial import initial_weights, input_transform
from sae.architectures.weights import Inputs, Trained, Weights
from sae.config import L1, ULTRA_LOW, ULTRA_LOW_TOKENS, BatchTopK, TrainingRecipe
from sae.dictionary import Dictionary, encoded
from sae.errors import UserError
from sae.formats.saelens import SaeMetadata, save_saelens
from sae.outcome import StepResult
from sae.ranks import ALONE, Ranks
from sae.resample import choose_inputs, dead_units, reset_moments, revive, sample_losses
from sae.step import Step, matmul_precision, ramp

_SAMPLE = 16_384
"""Inputs that decide how inputs are centred and scaled, and the geometric median."""
_DIVERGED = 1000.0
"""Fraction of variance unexplained above which a run is given up: a thousand times worse than the mean."""


@dataclass(frozen=True, slots=True)
class TrainLog:
    """One line of the training log, from the batch before it."""

    name: str
    """Which dictionary of a sweep; empty where there is one."""
    architecture: str
    """Class of the recipe's sparsity, such as ``TopK``."""
    tokens: int
    """Vectors trained on so far."""
    loss: float
    """Objective: squared error plus penalty."""
    mse: float
    """Its squared error, summed over elements or their mean as in the recipe, in scaled units."""
    penalty: float
    """Its penalty with its weight: L1, L0, or the dead units' auxiliary loss."""
    l0: float
    """Mean number of units that fire on a token."""
    fvu: float
    """Fraction of variance unexplained, 0 for a perfect reconstruction."""
    dead: int
    """Units that have not fired within the recipe's dead window."""
    ultra_low: int | None
    """Living units with a density below 1e-6 in the last whole 10 million tokens; None before there were as many."""
    learning_rate: float
    """Of this step."""
    tokens_per_second: float
    """Since the line before, by all dictionaries of a sweep together as one."""


class Diverged(UserError):
    """A loss is not finite, or the error far above the variance."""


class Trainee:
    """Learns from one batch at a time. `advance` and `tensors` are all that the trainer's loop and checkpoints need.

    All it holds is the same on every rank; only what it is given to learn from differs.
    """

    def __init__(
        self, name: str, recipe: TrainingRecipe, weights: Weights, inputs: Inputs, ranks: Ranks = ALONE
    ) -> None:
        self.name, self.recipe, self.weights, self.inputs, self.ranks = name, recipe, weights, inputs, ranks
        self.step = Step(weights, recipe, ranks)
        self.rng = np.random.default_rng(recipe.seed)
        self.done = 0
        """Steps taken."""
        self.last_fired = torch.zeros(weights.n_units, dtype=torch.int64, device=weights.W_enc.device)
        self.batches_fired = torch.zeros_like(self.last_fired)
        """In how many batches each unit fired since `_counted_from`."""
        self._counted_from = 0
        self._ultra_low: int | None = None
        self._resampled = -recipe.steps
        self._logged = (0, time.monotonic())
        self._at_once = weights.W_enc.device.type == "cpu"
        """Whether a loss can be read without a wait."""

    @classmethod
    def new(
        cls, name: str, recipe: TrainingRecipe, rows: Float[Tensor, "token d_in"], ranks: Ranks = ALONE
    ) -> "Trainee":
        """Before its first step; `rows` are activations to start from, as many on every rank."""
        sample = ranks.gather(rows[: _SAMPLE // ranks.count])
        inputs = input_transform(recipe, sample)
        weights = initial_weights(recipe, inputs(sample))
        ranks.mean([*weights.four(), weights.threshold, inputs.centre])  # processors that differ round differently
        return cls(name, recipe, weights, inputs, ranks)

    @property
    def tokens(self) -> int:
        """Vectors trained on, by all ranks together."""
        return self.done * self.recipe.batch

    def advance(self, batch: Float[Tensor, "token d_in"], pool: Float[Tensor, "waiting d_in"]) -> TrainLog | None:
        """One step on `batch`, and new directions from `pool` where they are due; a log record where that is.

        Several ranks give their parts of the batch and their own pools.

        Raises `Diverged` where the loss is not finite or the error far above the variance, on all ranks alike. Once a
        loss is not finite no weight changes; a GPU would stand idle while each loss is read, so that there it is found
        by `check`, at the next log record or before directions are given.
        """
        recipe = self.recipe
        inputs = self.inputs(batch)
        weight = recipe.weight * ramp(self.done, recipe.steps, warmup=recipe.sparsity_warmup)
        learning_rate = recipe.learning_rate * min(
            ramp(self.done, recipe.steps, warmup=recipe.learning_rate_warmup, decay=recipe.learning_rate_decay),
            ramp(self.done - self._resampled, recipe.steps, warmup=recipe.resample_warmup),
        )
        dead = self.dead() if not isinstance(recipe.sparsity, L1) else None
        logged = self._due(self.done + 1, recipe.log_every)
        result = self.step(inputs, weight=weight, learning_rate=learning_rate, dead=dead, count=logged)
        if logged or self._at_once or self.done + 1 in recipe.resample_steps:
            self.check()
        self.done += 1
        self._count(result)
        log = self._log(inputs, result, learning_rate) if logged else None
        if self.done in recipe.resample_steps:
            self._resample(pool, weight)
        return log

    def check(self) -> None:
        """Raises `Diverged` where a loss was not finite."""
        if self.step.failed:
            raise Diverged(
                f"The loss is no longer finite at step {self.done}, after {self.tokens} tokens{self._called()}.",
                do="Lower the learning rate, or check the activations.",
            )

    def due(self, every: int) -> bool:
        """Whether the last step crossed a multiple of `every` tokens, or was the last of the run."""
        return self._due(self.done, every)

    def dead(self) -> Int64[Tensor, " dead"]:
        """Units that have not fired within the recipe's dead window."""
        return dead_units(self.last_fired, self.done, self.recipe.dead_steps)

    def dictionary(self) -> Trained:
        """The autoencoder as it is now, in the site's units."""
        return self.weights.dictionary(self.recipe.sparsity, self.inputs)

    def save(
        self, directory: Path, metadata: SaeMetadata, pool: Float[Tensor, "waiting d_in"] | None = None
    ) -> Trained:
        """Write the autoencoder in SAELens format, with its firing rates on `pool` (every rank's), and return it.

        Raises `Diverged` where a loss was not finite, `UserError` where a weight is not.
        """
        self.check()
        finished = self.dictionary()
        if not all(tensor.isfinite().all() for tensor in (*self.weights.four(), self.weights.threshold)):
            raise UserError(
                f"The weights are no longer finite after {self.tokens} tokens{self._called()}.",
                do="Lower the learning rate, or check the activations.",
            )
        trained_as = "batchtopk" if isinstance(self.recipe.sparsity, BatchTopK) else None
        metadata = dataclasses.replace(metadata, training=dataclasses.asdict(self.recipe), trained_as=trained_as)
        rate = None
        if pool is not None:
            with matmul_precision(self.recipe.precision):
                rate = firing_rate(finished, pool)
            self.ranks.mean([rate])
            metadata = dataclasses.replace(metadata, l0=rate.sum().item(), dead=len(self.dead()))
        if self.ranks.first:
            save_saelens(directory, finished, metadata, firing_rate=rate)
        return finished

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it besides `numbers`, by name."""
        own = {name: getattr(self.weights, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}
        own |= {"centre": self.inputs.centre, "last_fired": self.last_fired, "batches_fired": self.batches_fired}
        for i, tensor in enumerate(self.step.trained):
            own |= {f"adam.{i}.{key}": value for key, value in self.step.optimizer.state[tensor].items()}
        return own

    def numbers(self) -> dict[str, Any]:
        """The rest, as JSON can hold it without loss."""
        return {
            "done": self.done,
            "scale": self.inputs.scale,
            "rng": self.rng.bit_generator.state,
            "resampled": self._resampled,
            "counted_from": self._counted_from,
            "ultra_low": self._ultra_low,
        }

    @classmethod
    def restored(
        cls,
        name: str,
        recipe: TrainingRecipe,
        tensors: dict[str, Tensor],
        numbers: dict[str, Any],
        ranks: Ranks = ALONE,
    ) -> "Trainee":
        """What `tensors` and `numbers` were taken from."""
        four = (tensors[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"))
        weights = Weights(*four, pre_encoder_bias=recipe.pre_encoder_bias)
        trainee = cls(name, recipe, weights, Inputs(tensors["centre"], numbers["scale"]), ranks)
        for i, tensor in enumerate(trainee.step.trained):
            keys = ("step", "exp_avg", "exp_avg_sq")
            found = {key: tensors[f"adam.{i}.{key}"] for key in keys if f"adam.{i}.{key}" in tensors}
            trainee.step.optimizer.state[tensor].update(found)
        trainee.last_fired, trainee.batches_fired = tensors["last_fired"], tensors["batches_fired"]
        trainee.done, trainee._resampled = numbers["done"], numbers["resampled"]
        trainee._counted_from, trainee._ultra_low = numbers["counted_from"], numbers["ultra_low"]
        trainee.rng.bit_generator.state = numbers["rng"]
        trainee._logged = (trainee.tokens, time.monotonic())
        return trainee

    def _due(self, done: int, every: int) -> bool:
        batch = self.recipe.batch
        return done * batch // every > (done - 1) * batch // every or done == self.recipe.steps

    def _called(self) -> str:
        return f" ({self.name})" if self.name else ""

    def _count(self, result: StepResult) -> None:
        self.last_fired.masked_fill_(result.fired, self.done)
        # A unit this rare fires at most once in a batch, so that batches are as good as tokens, and free.
        self.batches_fired += result.fired
        counted = self.tokens - self._counted_from
        if counted >= ULTRA_LOW_TOKENS:
            rare = (self.batches_fired > 0) & (self.batches_fired < ULTRA_LOW * counted)
            self._ultra_low, self._counted_from = int(rare.sum()), self.tokens
            self.batches_fired.zero_()

    def _resample(self, pool: Tensor, weight: float) -> None:
        units = self.dead()
        sample = self.rng.permutation(len(pool))[: -(-self.recipe.resample_inputs // self.ranks.count)]
        inputs = self.inputs(pool[torch.from_numpy(sample).to(units.device)])
        with matmul_precision(self.recipe.precision):
            losses = sample_losses(self.weights, self.recipe, inputs, weight)
        losses[(inputs == 0).all(1)] = 0
        losses = self.ranks.gather(losses).cpu().double().numpy()
        chosen = torch.from_numpy(choose_inputs(losses, len(units), self.rng)).to(units.device)
        units = units[: len(chosen)]
        revive(self.weights, self.recipe.sparsity, units, self._chosen(inputs, chosen))
        reset_moments(self.step.optimizer, self.weights, self.recipe.sparsity, units)
        self.last_fired[units] = self.done
        if len(units):
            self._resampled = self.done

    def _chosen(
        self, inputs: Float[Tensor, "own d_in"], chosen: Int64[Tensor, " chosen"]
    ) -> Float[Tensor, "chosen d_in"]:
        """Those at `chosen` among the inputs of all ranks, each given by the rank that has it."""
        own = chosen // len(inputs) == self.ranks.rank
        rows = inputs.new_zeros(len(chosen), inputs.shape[1])
        rows[own] = inputs[chosen[own] % len(inputs)]
        self.ranks.sum([rows])
        return rows

    def _log(self, inputs: Tensor, result: StepResult, learning_rate: float) -> TrainLog:
        elements = self.recipe.elements(self.weights.d_in)
        mean = inputs.mean(0)
        self.ranks.mean([mean])
        variance = self.ranks.average((inputs - mean).square().sum(1).mean().item()) / elements
        mse, penalty = torch.stack([result.mse, result.penalty]).tolist()
        fvu = mse / variance if variance else math.nan
        if fvu > _DIVERGED:
            raise Diverged(
                f"The training diverges{self._called()}: the error is {fvu:.3g} variances at step {self.done}.",
                do="Lower the learning rate, or check the activations.",
            )
        tokens, then = self._logged
        now = time.monotonic()
        self._logged = (self.tokens, now)
        return TrainLog(
            name=self.name,
            architecture=type(self.recipe.sparsity).__name__,
            tokens=self.tokens,
            loss=mse + penalty,
            mse=mse,
            penalty=penalty,
            l0=self.ranks.average((result.firings or 0) / len(inputs)),
            fvu=fvu,
            dead=len(self.dead()),
            ultra_low=self._ultra_low,
            learning_rate=learning_rate,
            tokens_per_second=(self.tokens - tokens) / max(now - then, 1e-9),
        )


@torch.no_grad()
def firing_rate(dictionary: Dictionary, rows: Float[Tensor, "token d_in"]) -> Float[Tensor, " unit"]:
    """Share of `rows` on which each unit fires."""
    counts = torch.zeros(dictionary.n_units, device=rows.device)
    for _, activations in encoded(dictionary, rows):
        counts += (activations > 0).sum(0)
    return counts / len(rows)
