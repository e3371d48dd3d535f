"""The dictionaries of the demonstration subject at one L0: trained on rows computed once, measured together."""

import argparse
import itertools
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autointerp.arms import explain_windows
from autointerp.training import summary
from autointerp.wiring import score_windows, subject_path
from benchmarks.matching import Runs, Setting, matched, paced
from sae.architectures.topk import TopKAutoencoder
from sae.architectures.weights import Trained
from sae.config import ULTRA_LOW, ULTRA_LOW_TOKENS
from sae.corpus.corpus import load_corpus
from sae.corpus.windows import Windows
from sae.dictionary import CHUNK, encoded
from sae.errors import UserError
from sae.formats import load_dictionary
from sae.metrics import evaluate_dictionaries
from sae.rows import activation_rows
from sae.sites import Site
from sae.sparse import largest, ordered
from sae.step import matmul_precision
from sae.subject import Subject, load_subject
from sae.trainee import firing_rate
from sae.trainer import train_on

SITE = "blocks.0.mlp.hook_post"
_POOL = 64
"""Batches in the pool, beyond the tokens trained on."""
_PIECE = 8192
_ALIGNED = 0.9
"""Cosine with one neuron above which a unit's direction is that neuron."""
_STARTS = {
    "bricken-2023": {512: 0.0018, 2048: 0.0041, 4096: 0.0047, 16_384: 0.0049},
    "april-2024": {512: 1.0, 2048: 9.2, 4096: 38.0, 16_384: 57.0},
    "jumprelu": {512: 0.0011, 2048: 0.0014, 4096: 0.0024, 16_384: 0.0117},
}
"""Sparsity weights to try first, by width (the nearest one): near an L0 of 20 on the embedded subject."""
HEAD = ("width", "recipe", "weight", "L0", "FVU", "recovered, zero", "recovered, mean", "a neuron",
        "dead", "ultra-low")  # fmt: skip


def lines(given: argparse.Namespace) -> tuple[str, list[tuple[str, ...]]]:
    """What the page says above the table, and its rows; makes the runs and the measurements that are missing."""
    torch.set_num_threads(given.threads)
    runs = Runs(given.out / given.runs)
    model = load_subject(subject_path(given.subject))
    site = model.site(SITE)
    corpus = load_corpus(("local", "generated"), "text", max(2 * given.tokens, given.density), model.tokenizer, 128, 0)
    windows = explain_windows(corpus)
    count = min(given.tokens + _POOL * given.batch, windows.n_tokens)
    rows = Kept(model, site, windows, count, given.work / f"rows-{count}.npy")
    held_out = score_windows(corpus, given.evaluated, 0)
    held_out_rows = model.rows(site, held_out)
    work = given.work / str(given.tokens)
    chosen = dict[Setting, dict[str, Any]]()
    for width, name in itertools.product(given.widths, given.recipes):
        setting = Setting("subject", str(width), name, 0, given.tokens, given.l0)
        make = partial(_train, given, rows, held_out_rows, name, width)
        row = chosen[setting] = matched(setting, runs, make, given.tries, _start(name, width))
        place = _place(work, str(width), name, row["weight"])
        tables = ("losses", "counts") if given.density else ("losses",)
        if not (place / "cfg.json").exists() and not all(_found(table, setting, row, runs) for table in tables):
            lost = f"{place} is gone, and not all of it was measured."
            raise UserError(lost, do=f"Remove the lines of {width} {name} from {runs.file}: it is trained again then.")
    _evaluate(model, site, held_out, work, chosen, runs)
    held = corpus.windows.length - corpus.windows.first
    counted = corpus.windows.select(np.flatnonzero(np.cumsum(held) - held < given.density))
    for width in given.widths:
        of_width = {setting: row for setting, row in chosen.items() if setting.on == str(width)}
        _count(model, site, counted, work, of_width, runs)
    said = (
        f"{given.subject} at {SITE}, {site.width} neurons, of which {_fires(held_out_rows):.1f} fire on a token: the "
        f"neurons themselves are a dictionary with that L0 and no error. {given.tokens:,} tokens of the explain split, "
        f"batch {given.batch:,}, precision {given.precision}, one seed, all at the learning rate of topk; "
        f"{held_out.n_tokens:,} tokens of the score split for L0 (matched on them), FVU and the losses. *A neuron*: "
        f"share of living units whose direction has a cosine above {_ALIGNED} with one neuron. Dead: never fired; "
        f"ultra-low: fired, with a density below 1e-6; both in the number of tokens in brackets, of both splits, "
        f"encoded in bfloat16 products (TopK wholly in it)."
    )
    return said, [_line(setting, row, runs) for setting, row in chosen.items()]


def _start(name: str, width: int) -> float | None:
    """None: the recipe's own."""
    starts = _STARTS.get(name, {})
    return starts[min(starts, key=lambda known: abs(known - width))] if starts else None


def _line(setting: Setting, row: Mapping[str, Any], runs: Runs) -> tuple[str, ...]:
    found, counts = (_found(table, setting, row, runs) for table in ("losses", "counts"))
    dead = below = "not counted"
    if counts is not None:
        dead = f"{counts['never']:,} ({counts['counted']:,})"
        below = f"{counts['below']:,}" if counts["counted"] >= ULTRA_LOW_TOKENS else "too few tokens"
    elif found is not None:
        dead, below = f"{found['dead']:,} ({found['n_tokens']:,})", "not counted"
    assert found is not None
    return (
        f"{int(setting.on):,}", setting.recipe, f"{row['weight']:.3g}", f"{found['l0']:.1f}", f"{found['fvu']:.3f}",
        f"{found['recovered_zero']:.3f}", f"{found['recovered_mean']:.3f}", f"{row['aligned']:.0%}", dead, below,
    )  # fmt: skip


class Kept:
    """The first `count` rows of the subject, in float16 on disk, as a stream that repeats itself."""

    def __init__(self, model: Subject, site: Site, windows: Windows, count: int, file: Path) -> None:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            partial_file = file.with_suffix(".partial")
            kept = np.lib.format.open_memmap(partial_file, "w+", np.float16, (count, site.width))
            done = 0
            for x in activation_rows(model, site, windows, 0):
                part = x[: count - done].numpy()
                kept[done : done + len(part)] = part
                done += len(part)
                if done == count:
                    break
            kept.flush()
            partial_file.rename(file)
        self._kept = np.load(file, mmap_mode="r")

    def __call__(self, start: int) -> Iterator[Tensor]:
        """Pieces from number `start` on; see `sae.pool.Rows`."""
        pieces = -(-len(self._kept) // _PIECE)
        for number in itertools.count(start):
            begin = number % pieces * _PIECE
            yield torch.from_numpy(self._kept[begin : begin + _PIECE].astype(np.float32))


def _rows(model: Subject, site: Site, windows: Windows, at_once: int) -> Iterator[Tensor]:
    step = -(-at_once // 127)
    for begin in range(0, len(windows), step):
        yield model.rows(site, windows.select(np.arange(begin, min(begin + step, len(windows)))))


def _fires(rows: Tensor) -> float:
    return float((rows > 0).sum() / len(rows))


def _place(work: Path, width: str, name: str, weight: float) -> Path:
    return work / f"{name}-{width}-{weight!r}"


def _train(
    given: argparse.Namespace, rows: Kept, held_out: Tensor, name: str, width: int, field: str, weight: float
) -> dict[str, Any]:
    """A dictionary in its place on disk; its L0 on `held_out`."""
    changes: dict[str, Any] = {field: weight, "precision": given.precision, "checkpoint_every": 10**12}
    recipe = paced(name, d_sae=width, tokens=given.tokens, batch=given.batch, **changes)
    place = _place(given.work / str(given.tokens), str(width), name, weight)
    shutil.rmtree(place, ignore_errors=True)
    dictionary = train_on(rows, recipe, place)
    directions = torch.nn.functional.normalize(dictionary.directions(), dim=1)
    rate = firing_rate(dictionary, held_out)
    aligned = directions.abs().amax(1)[rate > 0] > _ALIGNED
    return {"l0": float(rate.sum()), "aligned": float(aligned.float().mean())}


def _found(table: str, setting: Setting, row: Mapping[str, Any], runs: Runs) -> dict[str, Any] | None:
    """What was measured of the run in `row`; of none of the same setting with another weight."""
    measured = runs.of(replace(setting, table=table))
    return next((each for each in measured if each.get("weight") == row["weight"]), None)


def _missing(table: str, work: Path, chosen: Mapping[Setting, Mapping[str, Any]], runs: Runs) -> dict[Setting, Trained]:
    missing = [setting for setting, row in chosen.items() if not _found(table, setting, row, runs)]
    places = {each: _place(work, each.on, each.recipe, chosen[each]["weight"]) for each in missing}
    return {each: load_dictionary(place)[0] for each, place in places.items()}  # type: ignore[misc]


def _evaluate(
    model: Subject, site: Site, windows: Windows, work: Path, chosen: Mapping[Setting, Mapping[str, Any]], runs: Runs
) -> None:
    missing = _missing("losses", work, chosen, runs)
    by_name = {f"{each.on}-{each.recipe}": dictionary for each, dictionary in missing.items()}
    if not missing:
        return
    found = evaluate_dictionaries(model, site, by_name, windows)
    for setting in missing:
        measured = summary(found[f"{setting.on}-{setting.recipe}"])
        runs.add({**replace(setting, table="losses").key(), "weight": chosen[setting]["weight"], **measured})


def _count(
    model: Subject, site: Site, windows: Windows, work: Path, chosen: Mapping[Setting, Mapping[str, Any]], runs: Runs
) -> None:
    """Dead and ultra-low units over `windows`. A unit is no longer encoded once it cannot be either."""
    missing = _missing("counts", work, chosen, runs)
    if not missing or windows.n_tokens == 0:
        return
    edge = ULTRA_LOW * windows.n_tokens
    counts = {each: torch.zeros(dictionary.n_units) for each, dictionary in missing.items()}
    open_units = {each: torch.arange(dictionary.n_units) for each, dictionary in missing.items()}
    for x in _rows(model, site, windows, _PIECE):  # few, so that a unit that is settled is soon left out
        for each, dictionary in missing.items():
            if isinstance(dictionary, TopKAutoencoder):
                counts[each] += _winners(dictionary, x)
                continue
            units = open_units[each]
            with matmul_precision("medium"):
                for _, activations in encoded(_only(dictionary, units), x):
                    fired = activations.amax(0).nonzero().squeeze(1)  # of the silent ones, nothing is counted
                    counts[each][units[fired]] += (activations.index_select(1, fired) > 0).sum(0)
            open_units[each] = units[counts[each][units] < edge]
    for each, count in counts.items():
        below = int(((count > 0) & (count < edge)).sum())
        runs.add(
            {
                **replace(each, table="counts").key(),
                "weight": chosen[each]["weight"],
                "never": int((count == 0).sum()),
                "below": below,
                "counted": windows.n_tokens,
            }
        )


@torch.no_grad()
def _winners(dictionary: TopKAutoencoder, rows: Tensor) -> Tensor:
    """How often each unit is among the largest, in bfloat16: units compete, so that none can be left out."""
    short, found = torch.bfloat16, torch.zeros(dictionary.n_units, dtype=torch.int64)
    four = {name: getattr(dictionary, name).to(short) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    shortened = replace(dictionary, **four)
    for part in rows.to(short).split(CHUNK):
        values, units = largest(ordered(shortened.pre_activations(part)), dictionary.k)
        found += torch.bincount(units[values > 0], minlength=dictionary.n_units)
    return found


def _only(dictionary: Trained, units: Tensor) -> Trained:
    own = {"threshold": dictionary.threshold[units]} if hasattr(dictionary, "threshold") else {}
    return replace(  # type: ignore[type-var]
        dictionary,
        W_enc=dictionary.W_enc[units],
        b_enc=dictionary.b_enc[units],
        W_dec=dictionary.W_dec[units],
        **own,
    )
