"""Training autoencoders on a stream of vectors: many in one pass, stopped and gone on with as if nothing had been."""

import dataclasses
import errno
import json
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError

from sae.architectures.weights import Trained
from sae.checkpoint import (
    find_checkpoint,
    read_checkpoint,
    read_finished,
    remove_checkpoints,
    write_checkpoint,
    write_finished,
)
from sae.config import TrainingRecipe
from sae.errors import UserError
from sae.formats.saelens import SaeMetadata
from sae.pool import Pool, Rows
from sae.ranks import ALONE, Ranks
from sae.trainee import Diverged, Trainee, TrainLog

_METRICS = "metrics.jsonl"
_UNSAVED = 600.0
"""Seconds after which there is a checkpoint, whatever the tokens."""
_PENALTIES = {
    "L1": "l1_loss",
    "TopK": "auxiliary_reconstruction_loss",
    "BatchTopK": "auxiliary_reconstruction_loss",
    "JumpRelu": "l0_loss",
}
"""What SAELens calls an architecture's second loss."""
_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
"""How torch words it where its error has no type of its own."""
_NO_SPACE = f"os error {errno.ENOSPC}"
"""How safetensors words it."""

_Given = TypeVar("_Given")


def train_on(
    rows: Rows,
    recipe: TrainingRecipe,
    out: Path,
    *,
    on_log: Callable[[TrainLog], None] = lambda _: None,
    metadata: SaeMetadata | None = None,
    resume: bool = False,
) -> Trained:
    """Train one dictionary on a stream of vectors; see `sweep_on`. Its files lie in `out` itself."""
    return sweep_on(rows, {"": recipe}, out, on_log=on_log, metadata=metadata, resume=resume)[""]


def sweep_on(
    rows: Rows,
    recipes: Mapping[str, TrainingRecipe],
    out: Path,
    *,
    on_log: Callable[[TrainLog], None] = lambda _: None,
    on_lost: Callable[[str, str], None] = lambda _, __: None,
    metadata: SaeMetadata | None = None,
    source: Mapping[str, Any] | None = None,
    resume: bool = False,
    ranks: Ranks = ALONE,
) -> Mapping[str, Trained]:
    """Train a dictionary per recipe on the same batches of `rows`, which must not end before the run does.

    Recipes must agree in `tokens`, `batch` and `pool_batches`; the first one's seed orders the pool. Writes into
    ``out/NAME`` for every name of `recipes`: ``metrics.jsonl`` as it goes, and at the end the autoencoder in SAELens
    format. Into `out`: a checkpoint (see `sae.checkpoint`) at intervals of tokens and of ten minutes, and on SIGINT and
    SIGTERM, which then go on as `KeyboardInterrupt`; a second signal does not wait for it. What is saved and returned
    has its input scale and centre in its weights and decoder rows of norm 1: activations are in the site's units.

    With `resume`, the run goes on from the checkpoint in `out`, if there is one, and on a CPU gives the same weights,
    bit for bit, as if it had not stopped; of a run that has ended, it gives what was saved. `source` says what `rows`
    come from: a checkpoint from another source or with other recipes is refused.

    Several `ranks` share every batch evenly: `rows` are this rank's own, and all get the same dictionaries. `tokens`
    and `batch` of a recipe are totals, so that it means the same on any number of ranks; but BatchTopK's units compete
    within a rank's part of a batch, and AuxK's variances are those of that part. The first rank logs and writes, all
    others only their pool in a checkpoint, which another number of ranks refuses. A signal to any rank stops all after
    the same step; a second one is ignored, because torchrun repeats them.

    A dictionary that diverges is lost, and the others go on; `on_lost` is called with its name and the reason, also
    where the run is resumed. Raises `UserError` where `out` already holds an autoencoder that is not to be resumed, the
    stream ends, the last dictionary diverges, or memory or disk run out; it names the last checkpoint.
    """
    first = _agreed(recipes)
    metadata = metadata or SaeMetadata()
    identity = _identity(recipes, source or {})
    place, ended = _standing(out, recipes, resume=resume)
    if ended:
        finished, lost = read_finished(out, recipes, identity, next(rows(0)).device)
        _tell_lost(lost, on_lost)
        return finished
    with _explained(out), _stop_signal(patient=ranks.count > 1) as stopped:
        pool, trainees, lost = _begin(rows, recipes, identity, place, ranks)
        _tell_lost(lost, on_lost)
        files = {each.name: _MetricsFile(out / each.name, each) for each in trainees if ranks.first}

        def save() -> None:
            _each(trainees, lost, on_lost, Trainee.check)
            write_checkpoint(out, trainees, lost, pool, identity, metadata, ranks)

        saved = time.monotonic()
        while trainees[0].done < first.steps:
            advance = partial(Trainee.advance, batch=pool.draw(), pool=pool.rows)
            logs = _each(trainees, lost, on_lost, advance)
            _tell([log for log in logs if log is not None and ranks.first], files, on_log, stopped)
            if ranks.any(stopped.is_set()):
                save()
                raise KeyboardInterrupt
            due = trainees[0].due(first.checkpoint_every) or ranks.any(time.monotonic() - saved > _UNSAVED)
            if due and trainees[0].done < first.steps:
                save()
                saved = time.monotonic()
        finished = {each.name: each.save(out / each.name, metadata, pool.rows) for each in trainees}
        if ranks.first:
            write_finished(out, identity, lost)
            remove_checkpoints(out)
        if ranks.any(stopped.is_set()):
            raise KeyboardInterrupt
        return finished


def _identity(recipes: Mapping[str, TrainingRecipe], source: Mapping[str, Any]) -> dict[str, Any]:
    """What a run must agree in to go on with another."""
    return {"source": dict(source), "recipes": {name: dataclasses.asdict(each) for name, each in recipes.items()}}


def _standing(out: Path, recipes: Mapping[str, TrainingRecipe], *, resume: bool) -> tuple[Path | None, bool]:
    """The checkpoint to go on from, and whether all has ended.

    Raises `UserError` where something else would be overwritten.
    """
    place, ended = find_checkpoint(out), [name for name in recipes if (out / name / "cfg.json").exists()]
    if place is not None and not resume:
        raise UserError(f"{out} holds a run that was stopped: {place.name}.", do="Give --resume, or remove it.")
    whole = place is None and resume and bool(ended)
    if place is None and ended and not whole:
        what = f"{out / ended[0]} already holds an autoencoder."
        raise UserError(what, do="Choose another directory, remove it, or give --resume to measure it again.")
    return place, whole


def _begin(
    rows: Rows, recipes: Mapping[str, TrainingRecipe], identity: Mapping[str, Any], place: Path | None, ranks: Ranks
) -> tuple[Pool, list[Trainee], dict[str, str]]:
    """The pool, the dictionaries, and those already lost: from the checkpoint `place`, or new."""
    if place is not None:
        return read_checkpoint(place, recipes, rows, identity, next(rows(0)).device, ranks)
    first = next(iter(recipes.values()))
    batch = ranks.share(first).batch
    pool = Pool(rows, size=batch * min(first.pool_batches, first.steps), batch=batch, seed=first.seed)
    return pool, [Trainee.new(name, recipe, pool.rows, ranks) for name, recipe in recipes.items()], {}


def _each(
    trainees: list[Trainee], lost: dict[str, str], on_lost: Callable[[str, str], None], do: Callable[[Trainee], _Given]
) -> list[_Given]:
    """What `do` gives for every dictionary. Who diverges goes from `trainees` to `lost`, but for the last: an error."""
    given = list[_Given]()
    for trainee in tuple(trainees):
        try:
            given.append(do(trainee))
        except Diverged as error:
            if len(trainees) == 1:
                raise
            trainees.remove(trainee)
            lost[trainee.name] = " ".join(str(error).splitlines())
            on_lost(trainee.name, lost[trainee.name])
    return given


def _tell_lost(lost: Mapping[str, str], on_lost: Callable[[str, str], None]) -> None:
    for name, reason in lost.items():
        on_lost(name, reason)


def _tell(
    logs: Sequence[TrainLog],
    files: Mapping[str, "_MetricsFile"],
    on_log: Callable[[TrainLog], None],
    stopped: threading.Event,
) -> None:
    for log in logs:
        files[log.name].write(log)
    try:
        for log in logs:
            on_log(log)
    except KeyboardInterrupt:
        stopped.set()


def _agreed(recipes: Mapping[str, TrainingRecipe]) -> TrainingRecipe:
    first = next(iter(recipes.values()))
    for field in ("tokens", "batch", "pool_batches"):
        if len({getattr(recipe, field) for recipe in recipes.values()}) > 1:
            raise UserError(f"The dictionaries of a sweep differ in {field}.", do="Train them one after the other.")
    return first


class _MetricsFile:
    """``metrics.jsonl`` of one dictionary, without the lines that a stopped run wrote after its checkpoint."""

    def __init__(self, directory: Path, trainee: Trainee) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / _METRICS
        lines = self._file.read_text("utf-8").splitlines(keepends=True) if self._file.exists() else []
        kept = [line for line in lines if line.endswith("\n")] if trainee.done else []
        kept = [line for line in kept if json.loads(line)["details/n_training_samples"] <= trainee.tokens]
        self._file.write_text("".join(kept), encoding="utf-8")

    def write(self, log: TrainLog) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_saelens_metrics(log)) + "\n")


@contextmanager
def _stop_signal(*, patient: bool) -> Generator[threading.Event]:
    """Set by the first SIGINT or SIGTERM, so that a step is never cut in two.

    The second one interrupts at once, unless the run is `patient`.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        if stopped.is_set() and not patient:
            raise KeyboardInterrupt
        stopped.set()

    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def _explained(out: Path) -> Generator[None]:
    """What went wrong in the user's words, and the last good checkpoint."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error), _kept(out)) from error
    except (MemoryError, torch.OutOfMemoryError, RuntimeError, OSError, SafetensorError) as error:
        if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or _NO_SPACE in str(error):
            remove_checkpoints(out, keep=find_checkpoint(out))  # the one that did not fit
            raise UserError(f"The disk is full: {error}.", _kept(out), "Make room and repeat with --resume.") from error
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not _says(error, _NO_MEMORY):
            raise
        what = f"There is not enough memory: {str(error).splitlines()[0] if str(error) else 'allocation failed'}"
        raise UserError(what, _kept(out), "Take a smaller batch, pool or d_sae, or fewer at once.") from error


def _says(error: Exception, words: Sequence[str]) -> bool:
    return any(each in str(error).lower() for each in words)


def _kept(out: Path) -> str:
    place = find_checkpoint(out)
    if place is None:
        return "There is no checkpoint yet."
    return f"The last good checkpoint is {place}. Its autoencoders can be used as they are."


def _saelens_metrics(log: TrainLog) -> dict[str, Any]:
    return {
        "details/n_training_samples": log.tokens,
        "losses/overall_loss": log.loss,
        "losses/mse_loss": log.mse,
        f"losses/{_PENALTIES[log.architecture]}": log.penalty,
        "metrics/l0": log.l0,
        "metrics/explained_variance": 1 - log.fvu,
        "sparsity/dead_features": log.dead,
        "sparsity/below_1e-6": log.ultra_low,
        "details/current_learning_rate": log.learning_rate,
        "details/tokens_per_second": log.tokens_per_second,
    }
