"""Training an autoencoder on a subject's activations, or on any stream of vectors."""

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae.architectures.initial import initial_autoencoder
from sae.architectures.relu import ReluAutoencoder
from sae.config import TrainingRecipe
from sae.corpus.windows import Windows
from sae.errors import UserError
from sae.formats.saelens import SaeMetadata, save_saelens
from sae.pool import Pool
from sae.resample import choose_inputs, dead_units, reset_moments, revive, sample_losses
from sae.sites import Site
from sae.step import Step, StepResult, matmul_precision, ramp
from sae.subject import Subject

_WINDOWS_AT_ONCE = 64
_MEDIAN_ROWS = 16_384
"""Inputs that decide the geometric median and the input scale."""
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class TrainLog:
    """One line of the training log, from the batch before it."""

    tokens: int
    """Vectors trained on so far."""
    loss: float
    """Objective: squared error plus weighted L1."""
    mse: float
    """Its squared error, summed over elements or their mean as in the recipe, in scaled units."""
    l1: float
    """Its L1 term, with its weight."""
    l0: float
    """Mean number of units that fire on a token."""
    fvu: float
    """Fraction of variance unexplained, 0 for a perfect reconstruction."""
    dead: int
    """Units that have not fired within the recipe's dead window."""
    learning_rate: float
    """Of this step."""
    tokens_per_second: float
    """Since the line before."""


def train(
    subject: Subject,
    site: Site,
    windows: Windows,
    recipe: TrainingRecipe,
    out: Path,
    *,
    on_log: Callable[[TrainLog], None] = lambda _: None,
    metadata: SaeMetadata | None = None,
) -> ReluAutoencoder:
    """Train on the activations of `subject` at `site` over `windows`; see `train_on`.

    Windows come in a seeded order, and in a new one each time they have all been seen. BOS and padding are left out.
    """
    metadata = dataclasses.replace(
        metadata or SaeMetadata(),
        subject=subject.name,
        site=site.name,
        context=windows.context,
        prepend_bos=windows.first == 1,
    )
    rows = activation_rows(subject, site, windows, recipe.seed)
    return train_on(rows, recipe, out, on_log=on_log, metadata=metadata)


def activation_rows(subject: Subject, site: Site, windows: Windows, seed: int) -> Iterator[Float[Tensor, "token d_in"]]:
    """The site's activations at the positions that count, without end: every pass has its own seeded order."""
    if not windows.n_tokens:
        raise UserError("There are no tokens to train on.", do="Give a larger corpus or a shorter context.")
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(windows))
        for begin in range(0, len(order), _WINDOWS_AT_ONCE):
            yield subject.rows(site, windows.select(order[begin : begin + _WINDOWS_AT_ONCE]))


def train_on(
    rows: Iterator[Float[Tensor, "token d_in"]],
    recipe: TrainingRecipe,
    out: Path,
    *,
    on_log: Callable[[TrainLog], None] = lambda _: None,
    metadata: SaeMetadata | None = None,
) -> ReluAutoencoder:
    """Train on a stream of vectors in pieces of any length, which must not end before the run does.

    Writes into `out`: ``metrics.jsonl`` as it goes, ``checkpoint-TOKENS`` (the last one only) at intervals and when
    interrupted, and at the end the autoencoder in SAELens format. What is saved and returned has its input scale in
    its weights and decoder rows of norm 1, so that activations are in the site's units.

    Raises `UserError` where `out` already holds an autoencoder, the stream ends, or the loss stops being finite.
    """
    if (out / "cfg.json").exists():
        raise UserError(f"{out} already holds an autoencoder.", do="Choose another directory, or remove it.")
    out.mkdir(parents=True, exist_ok=True)
    metadata = dataclasses.replace(metadata or SaeMetadata(), training=dataclasses.asdict(recipe))
    size = recipe.batch * min(recipe.pool_batches, recipe.steps)
    pool = Pool(rows, size=size, batch=recipe.batch, seed=recipe.seed)
    run = _Run(recipe, pool, out, metadata)
    try:
        with (out / "metrics.jsonl").open("w", encoding="utf-8") as metrics:
            for _ in range(recipe.steps):
                log = run.advance()
                if log is not None:
                    metrics.write(json.dumps(_saelens_metrics(log)) + "\n")
                    metrics.flush()
                    on_log(log)
    except KeyboardInterrupt:
        run.checkpoint()
        raise
    return run.finish()


class _Run:
    """The state of one training run."""

    def __init__(self, recipe: TrainingRecipe, pool: Pool, out: Path, metadata: SaeMetadata) -> None:
        self.recipe, self.pool, self.out, self.metadata = recipe, pool, out, metadata
        self.autoencoder = initial_autoencoder(recipe, pool.rows[:_MEDIAN_ROWS])
        self.step = Step(self.autoencoder, recipe)
        self.done = 0
        self.last_fired: Int64[Tensor, " unit"] = torch.zeros(recipe.d_sae, dtype=torch.int64, device=pool.rows.device)
        self.rng = np.random.default_rng([recipe.seed, 1])
        self.last_checkpoint: Path | None = None
        self._resampled = -recipe.steps
        self._logged = (0, time.monotonic())

    @property
    def tokens(self) -> int:
        """Vectors trained on so far."""
        return self.done * self.recipe.batch

    def advance(self) -> TrainLog | None:
        """One step, with what is due after it; the log line where one is due."""
        recipe = self.recipe
        scaled = self.pool.draw() * self.autoencoder.input_scale
        l1 = recipe.l1 * ramp(self.done, recipe.steps, warmup=recipe.l1_warmup)
        learning_rate = recipe.learning_rate * min(
            ramp(self.done, recipe.steps, warmup=recipe.learning_rate_warmup, decay=recipe.learning_rate_decay),
            ramp(self.done - self._resampled, recipe.steps, warmup=recipe.resample_warmup),
        )
        result = self.step(scaled, l1=l1, learning_rate=learning_rate)
        if not math.isfinite(result.loss):
            kept = f"The last good checkpoint is {self.last_checkpoint}." if self.last_checkpoint else ""
            raise UserError(
                f"The loss is {result.loss} at step {self.done}, after {self.tokens} tokens.",
                kept or "There is no checkpoint yet.",
                "Lower the learning rate, or check the activations.",
            )
        self.done += 1
        self.last_fired[result.fired] = self.done
        log = self._log(scaled, result, learning_rate) if self._due(recipe.log_every) else None
        if self.done in recipe.resample_steps:
            self._resample(l1)
        if self._due(recipe.checkpoint_every):
            self.checkpoint()
        return log

    def checkpoint(self) -> None:
        """Save the autoencoder as it is now, then remove the checkpoint before it."""
        place = self.out / f"checkpoint-{self.tokens}"
        if self.last_checkpoint == place:
            return
        partial = self.out / f"{place.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)
        save_saelens(partial, self._finished(), self.metadata)
        partial.replace(place)
        if self.last_checkpoint is not None:
            shutil.rmtree(self.last_checkpoint, ignore_errors=True)
        self.last_checkpoint = place

    def finish(self) -> ReluAutoencoder:
        """Save the autoencoder with its firing rates on the vectors left in the pool, and return it."""
        finished = self._finished()
        with matmul_precision(self.recipe.matmul_precision):
            rate = firing_rate(finished, self.pool.rows)
        metadata = dataclasses.replace(self.metadata, l0=rate.sum().item(), dead=len(self._dead()))
        save_saelens(self.out, finished, metadata, firing_rate=rate)
        return finished

    def _finished(self) -> ReluAutoencoder:
        return self.autoencoder.folded().with_unit_directions()

    def _dead(self) -> Tensor:
        return dead_units(self.last_fired, self.done, self.recipe.dead_steps)

    def _resample(self, l1: float) -> None:
        units = self._dead()
        sample = self.rng.permutation(len(self.pool.rows))[: self.recipe.resample_inputs]
        inputs = self.pool.rows[torch.from_numpy(sample).to(units.device)] * self.autoencoder.input_scale
        with matmul_precision(self.recipe.matmul_precision):
            losses = sample_losses(self.autoencoder, inputs, self.step.objective, l1)
        losses[(inputs == 0).all(1).cpu().numpy()] = 0
        chosen = torch.from_numpy(choose_inputs(losses, len(units), self.rng)).to(units.device)
        units = units[: len(chosen)]
        revive(self.autoencoder, units, inputs[chosen])
        reset_moments(self.step.optimizer, self.autoencoder, units)
        self.last_fired[units] = self.done
        if len(units):
            self._resampled = self.done

    def _due(self, every: int) -> bool:
        return self.tokens // every > (self.tokens - self.recipe.batch) // every or self.done == self.recipe.steps

    def _log(self, scaled: Tensor, result: StepResult, learning_rate: float) -> TrainLog:
        elements = self.step.objective.elements(self.autoencoder.d_in)
        variance = (scaled - scaled.mean(0)).square().sum(1).mean().item() / elements
        tokens, then = self._logged
        now = time.monotonic()
        self._logged = (self.tokens, now)
        return TrainLog(
            tokens=self.tokens,
            loss=result.loss,
            mse=result.mse,
            l1=result.l1,
            l0=(self.step.activations > 0).sum().item() / len(scaled),
            fvu=result.mse / variance if variance else math.nan,
            dead=len(self._dead()),
            learning_rate=learning_rate,
            tokens_per_second=(self.tokens - tokens) / max(now - then, 1e-9),
        )


@torch.no_grad()
def firing_rate(autoencoder: ReluAutoencoder, rows: Float[Tensor, "token d_in"]) -> Float[Tensor, " unit"]:
    """Share of `rows` on which each unit fires."""
    counts = torch.zeros(autoencoder.n_units, device=rows.device)
    for part in rows.split(_ROWS_AT_ONCE):
        counts += (autoencoder.encode(part) > 0).sum(0)
    return counts / len(rows)


def _saelens_metrics(log: TrainLog) -> dict[str, Any]:
    return {
        "details/n_training_samples": log.tokens,
        "losses/overall_loss": log.loss,
        "losses/mse_loss": log.mse,
        "losses/l1_loss": log.l1,
        "metrics/l0": log.l0,
        "metrics/explained_variance": 1 - log.fvu,
        "sparsity/dead_features": log.dead,
        "details/current_learning_rate": log.learning_rate,
        "details/tokens_per_second": log.tokens_per_second,
    }
