"""A run on disk: everything it needs to go on as if it had never stopped.

``checkpoint-TOKENS/`` holds every rank's pool, and for every dictionary of the run its weights, Adam's moments,
schedules, statistics and generators, in safetensors and JSON; beside them the same dictionaries in SAELens format,
usable as they are. A checkpoint is written under another name and renamed, so that one with this name is whole.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae.architectures.weights import Trained
from sae.config import TrainingRecipe
from sae.dictionary import on_device
from sae.errors import UserError, differences
from sae.formats import load_dictionary
from sae.formats.saelens import SaeMetadata
from sae.pool import Pool, PoolState, Rows
from sae.ranks import Ranks
from sae.trainee import Trainee

_PREFIX, _PARTIAL = "checkpoint-", ".partial"
_STATE, _POOL, _ENDED = "state.json", "pool-{}", "run.json"


def write_checkpoint(
    out: Path,
    trainees: Sequence[Trainee],
    lost: Mapping[str, str],
    pool: Pool,
    identity: Mapping[str, Any],
    metadata: SaeMetadata,
    ranks: Ranks,
) -> None:
    """Save everything in ``out/checkpoint-TOKENS``, then remove the checkpoints before it.

    `lost` are the dictionaries that are trained no further, by name, and why. Every rank writes its own pool there, so
    that `out` must be the same directory for all.
    """
    place = out / f"{_PREFIX}{trainees[0].tokens}"
    partial = place.with_name(place.name + _PARTIAL)
    if ranks.first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    ranks.wait()
    _save_pool(partial, pool.state(), ranks)
    ranks.wait()
    if not ranks.first:
        return
    for trainee in trainees:
        trainee.save(partial / trainee.name, metadata)
        _save(partial / trainee.name / "state.safetensors", trainee.tensors())
    trained = {trainee.name: trainee.numbers() for trainee in trainees}
    _save_values(partial / _STATE, {"identity": identity, "ranks": ranks.count, "trainees": trained, "lost": lost})
    if place.exists():
        shutil.rmtree(place)
    partial.replace(place)
    remove_checkpoints(out, keep=place)


def find_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint in `out`."""
    found = [path for path in out.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return max(found, key=lambda path: int(path.name.removeprefix(_PREFIX)), default=None)


def checkpoint_tokens(out: Path) -> int:
    """Tokens trained on until the newest whole checkpoint in `out`; 0 where there is none."""
    place = find_checkpoint(out)
    return 0 if place is None else int(place.name.removeprefix(_PREFIX))


def read_checkpoint(
    place: Path,
    recipes: Mapping[str, TrainingRecipe],
    rows: Rows,
    identity: Mapping[str, Any],
    device: torch.device,
    ranks: Ranks,
) -> tuple[Pool, list[Trainee], dict[str, str]]:
    """This rank's pool and the dictionaries as they were; those that were lost by then, and why.

    Raises `UserError` where `identity` or the number of ranks is not the checkpoint's.
    """
    values = json.loads((place / _STATE).read_text("utf-8"))
    if (count := values["ranks"]) != ranks.count:
        raise UserError(
            f"{place} was written by {count} process{'es' * (count > 1)}, and this is a run of {ranks.count}.",
            "Each has its own documents, pool and place in them.",
            f"Start it with torchrun --nproc-per-node {count}." if count > 1 else "Start it without torchrun.",
        )
    _check_identity(place, values["identity"], identity)
    name = _POOL.format(ranks.rank)
    tensors, numbers = _load(place / f"{name}.safetensors", device), json.loads((place / f"{name}.json").read_text())
    state = PoolState(tensors["rows"], tensors["rest"], tensors["order"], **numbers)
    first = ranks.share(next(iter(recipes.values())))
    pool = Pool(rows, size=len(state.rows), batch=first.batch, seed=first.seed, state=state)
    trained = values["trainees"]
    trainees = [
        Trainee.restored(name, recipe, _load(place / name / "state.safetensors", device), trained[name], ranks)
        for name, recipe in recipes.items()
        if name in trained
    ]
    return pool, trainees, values["lost"]


def has_ended(out: Path) -> bool:
    """Whether a whole run lies in `out`."""
    return (out / _ENDED).exists()


def write_finished(out: Path, identity: Mapping[str, Any], lost: Mapping[str, str]) -> None:
    """Say in `out` which run has ended there, and which of its dictionaries were lost."""
    partial = out / f"{_ENDED}{_PARTIAL}"
    _save_values(partial, {"identity": identity, "lost": lost})
    partial.replace(out / _ENDED)


def read_finished(
    out: Path, recipes: Mapping[str, TrainingRecipe], identity: Mapping[str, Any], device: torch.device
) -> tuple[dict[str, Trained], dict[str, str]]:
    """The autoencoders of the run that has ended in `out`; those that were lost, and why.

    Raises `UserError` where `identity` is not that run's, or nothing says which run it was.
    """
    if not has_ended(out):
        raise UserError(f"{out} already holds an autoencoder, of no run that is known.", do="Choose another directory.")
    values = json.loads((out / _ENDED).read_text("utf-8"))
    _check_identity(out, values["identity"], identity)
    lost = values["lost"]
    kept = [name for name in recipes if name not in lost]
    return {name: on_device(cast(Trained, load_dictionary(out / name)[0]), device) for name in kept}, lost


def _check_identity(place: Path, then: Any, now: Mapping[str, Any]) -> None:
    if different := differences(then, json.loads(json.dumps(now))):
        raise UserError(
            f"{place} belongs to another run: {'; '.join(different)}.",
            do="Repeat the command that began it, with --resume, or choose another directory.",
        )


def remove_checkpoints(out: Path, *, keep: Path | None = None) -> None:
    """Remove every checkpoint in `out`, begun or whole, except `keep`."""
    for path in out.glob(f"{_PREFIX}*"):
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)


def _save_pool(place: Path, state: PoolState, ranks: Ranks) -> None:
    name = _POOL.format(ranks.rank)
    _save(place / f"{name}.safetensors", {"rows": state.rows, "rest": state.rest, "order": state.order})
    _save_values(place / f"{name}.json", {"taken": state.taken, "rng": state.rng})


def _save_values(file: Path, values: Mapping[str, Any]) -> None:
    with file.open("w", encoding="utf-8") as opened:
        json.dump(values, opened)
        opened.flush()
        os.fsync(opened.fileno())


def _save(file: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)
    with file.open("rb") as written:
        os.fsync(written.fileno())


def _load(file: Path, device: torch.device) -> dict[str, Tensor]:
    """Copies in memory of torch's own: results can depend on how memory is aligned."""
    return {name: tensor.to(device, copy=True) for name, tensor in load_file(file).items()}
