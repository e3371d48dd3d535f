"""The vectors that a dictionary is trained on: a subject's activations at a site."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from sae.architectures.weights import Trained
from sae.cache import WINDOWS_AT_ONCE, ActivationCache, window_order
from sae.config import TrainingRecipe
from sae.corpus.windows import Windows
from sae.errors import UserError
from sae.formats.saelens import SaeMetadata
from sae.ranks import ALONE, Ranks
from sae.sites import Site
from sae.subject import Subject
from sae.trainee import TrainLog
from sae.trainer import sweep_on


def train(
    subject: Subject,
    site: Site,
    windows: Windows,
    recipe: TrainingRecipe,
    out: Path,
    *,
    on_log: Callable[[TrainLog], None] = lambda _: None,
    metadata: SaeMetadata | None = None,
    resume: bool = False,
) -> Trained:
    """Train on the activations of `subject` at `site` over `windows`; see `sae.trainer.train_on`."""
    return sweep(subject, site, windows, {"": recipe}, out, on_log=on_log, metadata=metadata, resume=resume)[""]


def sweep(
    subject: Subject,
    site: Site,
    windows: Windows,
    recipes: Mapping[str, TrainingRecipe],
    out: Path,
    *,
    on_log: Callable[[TrainLog], None] = lambda _: None,
    on_lost: Callable[[str, str], None] = lambda _, __: None,
    metadata: SaeMetadata | None = None,
    resume: bool = False,
    ranks: Ranks = ALONE,
    cache: Path | None = None,
) -> Mapping[str, Trained]:
    """Train several dictionaries in one pass over the activations; see `sae.trainer.sweep_on`.

    Windows come in a seeded order, and in a new one each time they have all been seen. BOS and padding are left out.
    Each of several ranks reads its own documents. With `cache`, activations are stored there as they are first
    computed, and read from there afterwards: of several ranks, each in a directory of its own in it.
    """
    metadata = dataclasses.replace(
        metadata or SaeMetadata(),
        subject=subject.name,
        site=site.name,
        context=windows.context,
        prepend_bos=windows.first == 1,
    )
    own = windows.select(shard(windows, ranks))
    seed = next(iter(recipes.values())).seed
    stored = None
    if cache is not None:
        place = cache if ranks.count == 1 else cache / f"rank-{ranks.rank}-of-{ranks.count}"
        stored = ActivationCache(place, subject, site, own, seed)
    rows = partial(activation_rows, subject, site, own, seed, cache=stored)
    source = {"subject": subject.digest, "dtype": str(subject.model.dtype), "site": site.name}
    source["windows"] = windows.digest
    run = partial(sweep_on, rows, recipes, out, resume=resume, ranks=ranks)
    return run(on_log=on_log, on_lost=on_lost, metadata=metadata, source=source)


def shard(windows: Windows, ranks: Ranks) -> Bool[np.ndarray, " window"]:
    """Which windows are this rank's: documents are dealt out to the ranks by length, longest first."""
    lengths = np.bincount(windows.document, windows.length)
    owner = np.empty(len(lengths), dtype=np.int64)
    owner[np.argsort(-lengths, kind="stable")] = np.arange(len(lengths)) % ranks.count
    return owner[windows.document] == ranks.rank


def activation_rows(
    subject: Subject,
    site: Site,
    windows: Windows,
    seed: int,
    start: int = 0,
    *,
    cache: ActivationCache | None = None,
) -> Iterator[Float[Tensor, "token d_in"]]:
    """The site's activations at the positions that count, without end, from piece `start` on.

    Every pass over the windows has its own order, drawn from `seed` and the number of the pass.
    """
    if not windows.n_tokens:
        raise UserError(
            "There are no tokens to train on.", do="Give a larger corpus, a shorter context or fewer processes."
        )
    pieces = -(-len(windows) // WINDOWS_AT_ONCE)
    number, first = divmod(start, pieces)
    while True:
        order = window_order(len(windows), seed, number)
        for piece in range(first, pieces):
            index = order[piece * WINDOWS_AT_ONCE : (piece + 1) * WINDOWS_AT_ONCE]
            yield subject.rows(site, windows.select(index)) if cache is None else cache.rows(index)
        number, first = number + 1, 0
