"""The files of a store: their columns, and how they come to lie on disk."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autointerp.activations.firing import strata_of
from autointerp.activations.plan import LOGIT_KINDS, HarvestSizes
from autointerp.records.unit import REFERENCES

VERSION = 2
"""Of the layout; a store of another version is made anew."""
MANIFEST = "manifest.json"


def schemas(sizes: HarvestSizes, context: int) -> dict[str, pa.Schema]:
    """Columns of every file, by its name without the suffix.

    `excerpts` and `token_means` are sorted by arm (in the order of `units`) and index; `mean` has absent tokens at 0.
    `bigram` is the predictor's value at each token, 0 in the explain split, where it would be no prediction.
    """
    tokens = pa.list_(pa.int32(), context)
    ids = pa.list_(pa.int32(), sizes.excerpt_tokens)
    counts = pa.list_(pa.int64(), sizes.n_intervals)
    statistics = {"fired": pa.int64(), "maximum": pa.float32(), "mean": pa.float64(), "interval_counts": counts}
    label = pa.dictionary(pa.int32(), pa.string())
    logits = {"tokens": pa.list_(pa.int32()), "weights": pa.list_(pa.float32())}
    whole = {
        "windows": {
            "tokens": tokens,
            **{name: pa.int32() for name in ("length", "document", "offset", "cluster")},
            "split": pa.int8(),
        },
        "units": {
            "arm": label,
            "index": pa.int32(),
            "name": pa.string(),
            "threshold": pa.float32(),
            **{f"{split}_{name}": kind for split in sizes.held for name, kind in statistics.items()},
            **dict.fromkeys(REFERENCES, pa.float64()),
            **{f"asked_{kind}": pa.list_(pa.int32()) for kind in LOGIT_KINDS},
            **{f"{end}_{name}": kind for end in ("promoted", "suppressed") for name, kind in logits.items()},
        },
        **{excerpts_of(each.excerpt_tokens, sizes): _excerpts(each.excerpt_tokens) for each in sizes.widths},
        "pool": {"split": label, **{name: pa.int32() for name in ("window", "start", "anchor", "cluster")}, "ids": ids},
        "vocabulary": {"token": pa.string()},
        "token_means": {"arm": label, "index": pa.int32(), "token": pa.int32(), "mean": pa.float32()},
        **(_firing(strata_of(sizes.n_intervals)) if sizes.score.anchors else {}),
    }
    return {name: pa.schema(list(columns.items())) for name, columns in whole.items()}


def _firing(strata: int) -> dict[str, dict[str, pa.DataType]]:
    """Firing anchors of the score split, sorted by unit, stratum and rank, and the strata that they were drawn from."""
    unit = {"arm": pa.dictionary(pa.int32(), pa.string()), "index": pa.int32()}
    places = {name: pa.int32() for name in ("stratum", "rank", "window", "position")}
    known = {"counts": pa.list_(pa.int64(), strata), **{n: pa.list_(pa.float64(), strata) for n in ("sums", "squares")}}
    silent = {"silent_sum": pa.float64(), "silent_square": pa.float64()}
    return {"anchors": {**unit, **places, "value": pa.float32()}, "strata": {**unit, **known, **silent}}


def excerpts_of(tokens: int, sizes: HarvestSizes) -> str:
    """Name of the file with the excerpts of so many tokens."""
    return "excerpts" if tokens == sizes.excerpt_tokens else f"excerpts_{tokens}"


def _excerpts(tokens: int) -> dict[str, pa.DataType]:
    label, activations = pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.float32(), tokens)
    return {
        "arm": label,
        "index": pa.int32(),
        "split": label,
        "group": label,
        **{name: pa.int32() for name in ("interval", "rank", "window", "start", "anchor")},
        "ids": pa.list_(pa.int32(), tokens),
        "activations": activations,
        "bigram": activations,
    }


def column(values: object, kind: pa.DataType) -> pa.Array:
    """`values` as an Arrow column: matrices become fixed-size lists, ragged lists and strings are taken as they are."""
    if pa.types.is_fixed_size_list(kind) and isinstance(values, np.ndarray):
        flat = np.ascontiguousarray(values).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind.value_type), type=kind)
    if pa.types.is_dictionary(kind) and isinstance(values, tuple):
        codes, labels = values
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(labels, pa.string()))
    return pa.array(values, kind)


class Writer:
    """Writes files under temporary names; `finish` renames them into place and puts the manifest last."""

    def __init__(self, out: Path, sizes: HarvestSizes, context: int) -> None:
        self._out, self._sizes, self._context = out, sizes, context
        self._files: dict[str, dict[str, str | int]] = {}
        out.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, columns: Mapping[str, object]) -> None:
        """Write one file; a dictionary-coded column is given as (codes, labels)."""
        schema = schemas(self._sizes, self._context)[name]
        table = pa.table([column(columns[field.name], field.type) for field in schema], schema=schema)
        path = self._out / f".{name}.parquet.tmp"
        pq.write_table(table, path, compression="zstd", compression_level=1)
        self._files[name] = {"sha256": digest(path), "rows": table.num_rows}

    def finish(self, facts: Mapping[str, object]) -> None:
        """Make the files the store; without a manifest they are none, so it goes first and comes last."""
        (self._out / MANIFEST).unlink(missing_ok=True)
        for name in self._files:
            os.replace(self._out / f".{name}.parquet.tmp", file_of(self._out, name))  # noqa: PTH105
        sizes = dataclasses.asdict(self._sizes)
        manifest = {"version": VERSION, **facts, "context": self._context, "sizes": sizes, "files": self._files}
        temporary = self._out / f".{MANIFEST}.tmp"
        temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, self._out / MANIFEST)  # noqa: PTH105


def file_of(directory: Path, name: str) -> Path:
    """Where the file called `name` lies."""
    return directory / f"{name}.parquet"


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
