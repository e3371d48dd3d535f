"""Two passes over the activations of a corpus: what is kept of every unit, in memory that tokens do not fill."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from autointerp.activations.layout import Writer, excerpts_of
from autointerp.activations.pairs import cells_of
from autointerp.activations.passes import ArmState, interval_of
from autointerp.activations.plan import GROUPS, INTERVAL, LOGIT_KINDS, SPLITS, TOP, ArmUnits, Block, HarvestSizes
from autointerp.activations.references import References
from autointerp.records.unit import REFERENCES, Split
from sae.corpus.windows import Windows

__all__ = ["ArmUnits", "Block", "HarvestSizes", "harvest"]

Passes: TypeAlias = Callable[[], Iterator[tuple[range, Mapping[str, Block]]]]
"""Starts the stream anew: batches of windows, each with the block of every arm."""


def harvest(
    arms: Mapping[str, ArmUnits],
    windows: Windows,
    split: np.ndarray,
    cluster: np.ndarray,
    vocabulary: Sequence[str],
    passes: Passes,
    out: Path,
    *,
    sizes: HarvestSizes,
    seed: int,
    key: str,
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
) -> None:
    """Write the store of `arms` into `out`: the same bytes whatever the stream's batches and their order.

    `split` holds each window's code (its place in `SPLITS`, -1 in none), `cluster` its document's cluster,
    `vocabulary` the displayed text of every token id; `key` names what was harvested, for `Store.is_complete`.
    The first pass finds maxima and top excerpts. The second, which knows the maximum, counts the activation
    intervals, samples each, sums per token, and looks up the excerpts that were planned in between. `progress` is
    given the stage, the windows done and all windows. Raises `ValueError` where the arguments do not fit together.
    """
    if not arms:
        raise ValueError("There is no arm to harvest.")
    if not len(windows) == len(split) == len(cluster):
        raise ValueError(f"{len(windows)} windows, {len(split)} splits, {len(cluster)} clusters")
    if windows.tokens.max(initial=-1) >= len(vocabulary):
        raise ValueError(f"Token {windows.tokens.max()} is not in the vocabulary of {len(vocabulary)}.")
    cells = cells_of(windows, split)
    states = {label: ArmState(label, units, windows, split, cells, sizes, seed) for label, units in arms.items()}
    _each_batch(passes, "statistics", len(windows), progress, lambda label, *batch: states[label].first(*batch))
    for state in states.values():
        state.plan()
    _each_batch(passes, "excerpts", len(windows), progress, lambda label, *batch: states[label].second(*batch))
    writer = Writer(out, sizes, windows.context)
    _write_corpus(writer, windows, split, cluster, vocabulary, next(iter(states.values())))
    totals: dict[Split, int] = {name: int(windows.counted()[split == code].sum()) for code, name in enumerate(SPLITS)}
    references = {label: References(state.pairs, state.steps) for label, state in states.items()}
    known = _population(states, references, totals["score"])
    writer.write("units", {**_units(states, sizes, totals), **known})
    for place, width in enumerate(sizes.widths):
        writer.write(excerpts_of(width.excerpt_tokens, sizes), _excerpts(states, references, place))
    writer.write("token_means", _token_means(states, references))
    if sizes.score.anchors:
        for name, columns in zip(
            ("anchors", "strata"), zip(*(s.anchors() for s in states.values()), strict=True), strict=True
        ):
            writer.write(name, _joined(list(states), columns))
    n_windows = {name: int((split == code).sum()) for code, name in enumerate(SPLITS)}
    facts = {"key": key, "seed": seed, "arms": list(arms), "first": windows.first}
    writer.finish({**facts, "windows": n_windows, "tokens": totals})


def _each_batch(
    passes: Passes,
    stage: str,
    total: int,
    progress: Callable[[str, int, int], None],
    take: Callable[[str, range, Block], None],
) -> None:
    done = 0
    for batch, blocks in passes():
        for label, block in blocks.items():
            take(label, batch, block)
        done += len(batch)
        progress(stage, done, total)


def _write_corpus(
    writer: Writer,
    windows: Windows,
    split: np.ndarray,
    cluster: np.ndarray,
    vocabulary: Sequence[str],
    state: ArmState,
) -> None:
    own = {name: getattr(windows, name) for name in ("tokens", "length", "document", "offset")}
    writer.write("windows", {**own, "cluster": cluster, "split": split})
    writer.write("vocabulary", {"token": list(vocabulary)})
    excerpts = state.excerpts[0]
    anchors, pools = excerpts.anchors, {name: excerpts.pool(name) for name in excerpts.splits}
    code = np.repeat([SPLITS.index(name) for name in pools], [len(pool[0]) for pool in pools.values()])
    window, position = (np.concatenate([pool[i] for pool in pools.values()]) for i in (0, 1))
    start = anchors.start(window, position)
    places = {"window": window, "start": start, "anchor": position - start, "cluster": cluster[window]}
    writer.write("pool", {"split": (code, SPLITS), **places, "ids": anchors.ids(window, start)})


def _units(states: Mapping[str, ArmState], sizes: HarvestSizes, totals: Mapping[Split, int]) -> dict[str, object]:
    arm = np.repeat(np.arange(len(states)), [len(state.units.units) for state in states.values()])
    columns: dict[str, object] = {
        "arm": (arm, list(states)),
        "index": np.concatenate([state.units.units for state in states.values()]),
        "name": [name for state in states.values() for name in state.units.names],
        "threshold": np.concatenate([state.units.thresholds for state in states.values()]),
    }
    for name in sizes.held:
        halves = [state.splits[name] for state in states.values()]
        counts = np.concatenate([half.counts for half in halves]).reshape(-1, sizes.n_intervals)
        steps = np.concatenate([state.steps for state in states.values()]).astype(np.float64)
        mean = np.concatenate([half.sums for half in halves]) / steps / max(totals[name], 1)
        maximum = np.concatenate([half.maximum for half in halves])
        statistics = {"fired": counts.sum(1), "maximum": maximum, "mean": mean, "interval_counts": counts}
        columns |= {f"{name}_{statistic}": values for statistic, values in statistics.items()}
    for kind in LOGIT_KINDS:
        tests = [(state.units.logit_test, len(state.units.units)) for state in states.values()]
        columns[f"asked_{kind}"] = [row for test, n in tests for row in (getattr(test, kind) if test else [[]] * n)]
    for end in ("promoted", "suppressed"):
        for field, attribute in (("tokens", end), ("weights", f"{end}_weights")):
            columns[f"{end}_{field}"] = [
                row
                for state in states.values()
                for row in (
                    getattr(state.units.logits, attribute) if state.units.logits else [[]] * len(state.units.units)
                )
            ]
    return columns


def _excerpts(states: Mapping[str, ArmState], references: Mapping[str, References], width: int) -> dict[str, object]:
    tables: list[dict[str, Any]] = [
        {**_kept(state, width, name, references[state.label]), "arm": arm, "split": SPLITS.index(name)}
        for arm, state in enumerate(states.values())
        for name in state.excerpts[width].splits
    ]
    lengths = [len(table["window"]) for table in tables]
    whole = {
        name: np.concatenate([np.broadcast_to(table[name], n) for table, n in zip(tables, lengths, strict=True)])
        for name in ("arm", "split", "index", "group", "interval", "rank", "window", "start", "anchor")
    }
    values, bigram = (np.concatenate([table[name] for table in tables]) for name in ("activations", "bigram"))
    stratum = np.where(whole["group"] == INTERVAL, whole["interval"], 0)
    order = np.lexsort((whole["rank"], stratum, whole["group"], whole["split"], whole["index"], whole["arm"]))
    columns = {name: column[order] for name, column in whole.items()}
    coded = {"arm": (columns["arm"], list(states)), "split": (columns["split"], SPLITS)}
    texts = {"group": (columns["group"], GROUPS)}
    anchors = next(iter(states.values())).excerpts[width].anchors
    ids = anchors.ids(columns["window"], columns["start"])
    return {**columns, **coded, **texts, "ids": ids, "activations": values[order], "bigram": bigram[order]}


def _kept(state: ArmState, width: int, split: Split, references: References) -> dict[str, Any]:
    """Columns of one arm's excerpts of one width in one split, unsorted."""
    kept, anchors = state.excerpts[width].splits[split], state.excerpts[width].anchors
    parts: list[tuple[np.ndarray, ...]] = []
    for group, table in ((TOP, kept.top), (INTERVAL, kept.intervals)):
        cell, rank = np.nonzero(table.window >= 0)
        row = cell if group == TOP else cell // state.n_intervals
        at = (table.window[cell, rank], table.position[cell, rank], table.values[cell, rank])
        parts.append((row, np.full(len(row), group), rank, *at))
    planned = kept.planned
    parts.append((planned.row, planned.group, planned.rank, planned.window, planned.position, planned.values))
    row, group, rank, window, position, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    start = anchors.start(window, position)
    anchor = position - start
    value = values[np.arange(len(row)), anchor]
    fires = value > state.units.thresholds[row]
    interval = np.zeros(len(row), dtype=np.int64)
    interval[fires] = interval_of(value[fires], state.splits["explain"].maximum[row[fires]], state.n_intervals)
    place = (window.astype(np.int64) * anchors.windows.context + start)[:, None] + np.arange(anchors.width)
    return {
        "index": state.units.units[row],
        "group": group,
        "interval": interval,
        "rank": rank,
        "window": window,
        "start": start,
        "anchor": anchor,
        "activations": values,
        "bigram": references.bigram(place, row) if split != "explain" else np.zeros_like(values),
    }


def _joined(arms: Sequence[str], tables: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Tables of several arms below each other, with the arm of each row."""
    arm = np.repeat(np.arange(len(arms)), [len(table["index"]) for table in tables])
    return {"arm": (arm, arms), **{name: np.concatenate([table[name] for table in tables]) for name in tables[0]}}


def _token_means(states: Mapping[str, ArmState], references: Mapping[str, References]) -> dict[str, object]:
    parts = [each.token_means() for each in references.values()]
    _, token, mean = (np.concatenate(column) for column in zip(*parts, strict=True))
    arm = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    index = [state.units.units[part[0]] for state, part in zip(states.values(), parts, strict=True)]
    return {"arm": (arm, list(states)), "index": np.concatenate(index), "token": token, "mean": mean}


def _population(states: Mapping[str, ArmState], references: Mapping[str, References], n: int) -> dict[str, np.ndarray]:
    known = [references[label].population(state.squared(), n) for label, state in states.items()]
    return {name: np.concatenate([each[name] for each in known]) for name in REFERENCES}
