"""The store that a harvest writes, read back unit by unit."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autointerp.activations.columns import read_columns
from autointerp.activations.layout import MANIFEST, VERSION, digest, excerpts_of, file_of, schemas
from autointerp.activations.plan import GROUPS, LOGIT_KINDS, SPLITS, HarvestSizes, SplitSizes
from autointerp.records.anchors import FiringAnchors, Pool, Text
from autointerp.records.unit import (
    REFERENCES,
    Excerpt,
    LogitEffect,
    LogitKind,
    Split,
    SplitStatistics,
    Unit,
    UnitRecord,
)
from sae.corpus.document import Document
from sae.corpus.splits import Splits, check_no_leak
from sae.corpus.windows import Windows
from sae.errors import UserError

_REMEDY = "Make it with `autointerp resume`, or with `autointerp harvest`."


@dataclass(frozen=True, eq=False)
class Store:
    """A directory that `harvest` wrote; columns are read when they are first asked for."""

    directory: Path
    """Where it lies."""
    manifest: Mapping[str, Any]
    """Its key, seed, sizes and counts."""

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """The store in `directory`. Raises `UserError` where there is none, or one that is malformed or incomplete."""
        path = directory / MANIFEST
        if not path.is_file():
            raise UserError(f"{directory} holds no store of activations.", f"There is no {path}.", _REMEDY)
        try:
            store = cls(directory, json.loads(path.read_text(encoding="utf-8")))
            if store.manifest["version"] != VERSION:
                why = f"It has layout {store.manifest['version']}, this program reads {VERSION}."
                raise UserError(f"{directory} was written by another version.", why, _REMEDY)
            expected, files = schemas(store.sizes, store.manifest["context"]), store.manifest["files"]
            rows = {name: files[name]["rows"] for name in expected}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is malformed.", repr(error), _REMEDY) from error
        for name, schema in expected.items():
            _check_file(file_of(directory, name), schema, rows[name])
        return store

    @staticmethod
    def is_complete(directory: Path, key: str) -> bool:
        """Whether `directory` holds a whole store that was harvested under `key`."""
        try:
            return Store.open(directory).manifest.get("key") == key
        except UserError:
            return False

    def verify(self) -> None:
        """Raise `UserError` where a file's bytes are not those that were written."""
        for name, facts in self.manifest["files"].items():
            if digest(file_of(self.directory, name)) != facts["sha256"]:
                raise UserError(f"{file_of(self.directory, name)} was changed or is damaged.", do=_REMEDY)

    @cached_property
    def sizes(self) -> HarvestSizes:
        """How much was kept of each unit."""
        return _read_sizes(self.manifest["sizes"])

    def check_no_leak(self) -> None:
        """Raise `UserError` where an excerpt lies in a window of another split, or splits share what they must not:
        a document, a cluster, a near-duplicate document, or a window's tokens."""
        names = [Document(f"document {at}", "", "") for at in range(int(self.windows.document.max(initial=-1)) + 1)]
        check_no_leak(Splits(SPLITS, self.split, self.cluster), self.windows, names)
        for name, excerpts in self._excerpts.items():
            astray = excerpts["split"] != self.split[excerpts["window"]]
            if astray.any():
                wrong = f"A leak: {int(astray.sum())} excerpts lie in windows of another split."
                raise UserError(wrong, f"They are in {file_of(self.directory, name)}.")

    @cached_property
    def windows(self) -> Windows:
        """The corpus that was harvested."""
        tokens, length, document, offset = (self._windows[n] for n in ("tokens", "length", "document", "offset"))
        return Windows(tokens, length, document, offset, self.manifest["first"])

    @property
    def split(self) -> np.ndarray:
        """Code of every window: its place in `SPLITS`, -1 in none."""
        return self._windows["split"]

    @property
    def cluster(self) -> np.ndarray:
        """Cluster of every window's document."""
        return self._windows["cluster"]

    @cached_property
    def vocabulary(self) -> list[str]:
        """Displayed text of every token id."""
        return pq.read_table(file_of(self.directory, "vocabulary"))["token"].to_pylist()

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Every unit, arm by arm, by index."""
        columns = self._units
        labels = [self.manifest["arms"][code] for code in columns["arm"]]
        return tuple(Unit(*each) for each in zip(labels, columns["index"].tolist(), columns["name"], strict=True))

    def record(self, unit: Unit) -> UnitRecord:
        """What the harvest knows of `unit`. Raises `KeyError` for a unit that was not harvested."""
        row = self._row[unit.arm, unit.index]
        columns = self._units
        tokens, means = (self._token_means[name][self._slice("token_means", row)] for name in ("token", "mean"))
        return UnitRecord(
            unit=self.units[row],
            threshold=float(columns["threshold"][row]),
            statistics={split: self._statistics(split, row) for split in self.sizes.held},
            excerpts=self._record_excerpts(row, self.sizes),
            wider={each.excerpt_tokens: self._record_excerpts(row, each) for each in self.sizes.wider},
            promoted=self._effects("promoted", row),
            suppressed=self._effects("suppressed", row),
            token_means=dict(zip(tokens.tolist(), means.tolist(), strict=True)),
            firing=self._firing(row),
            logit_test=self._logit_test(row),
            references={name: value for name in REFERENCES if not math.isnan(value := float(columns[name][row]))},
        )

    def text(self, split: Split) -> Text:
        """The windows of `split`; the same object at every call."""
        return self._texts[split]

    def pool(self, split: Split) -> Pool:
        """The split's uniformly random excerpts."""
        columns = self._columns("pool", SPLITS)
        chosen = columns["split"] == SPLITS.index(split)
        return Pool(*(columns[name][chosen] for name in ("window", "start", "cluster", "ids")))

    @cached_property
    def _row(self) -> dict[tuple[str, int], int]:
        return {(unit.arm, unit.index): row for row, unit in enumerate(self.units)}

    @cached_property
    def _windows(self) -> dict[str, np.ndarray]:
        return self._columns("windows")

    @cached_property
    def _units(self) -> dict[str, Any]:
        return self._columns("units", self.manifest["arms"])

    @cached_property
    def _excerpts(self) -> dict[str, dict[str, np.ndarray]]:
        names = [excerpts_of(each.excerpt_tokens, self.sizes) for each in self.sizes.widths]
        return {name: self._columns(name, self.manifest["arms"], SPLITS, GROUPS) for name in names}

    @cached_property
    def _token_means(self) -> dict[str, np.ndarray]:
        return self._columns("token_means", self.manifest["arms"])

    @cached_property
    def _texts(self) -> dict[Split, Text]:
        vocabulary = tuple(self.vocabulary)
        rows: dict[Split, np.ndarray] = {
            name: np.flatnonzero(self.split == code).astype(np.int32) for code, name in enumerate(SPLITS)
        }
        return {
            name: Text(
                row,
                self._windows["tokens"][row],
                self._windows["length"][row],
                self.cluster[row],
                self.manifest["first"],
                vocabulary,
            )
            for name, row in rows.items()
        }

    @cached_property
    def _anchors(self) -> dict[str, np.ndarray]:
        return self._columns("anchors", self.manifest["arms"])

    @cached_property
    def _strata(self) -> dict[str, np.ndarray]:
        return self._columns("strata", self.manifest["arms"])

    @cached_property
    def _score_anchors(self) -> int:
        """Anchors of the score split: the tokens of windows that hold an excerpt."""
        text = self._texts["score"]
        real = text.length.astype(np.int64) - text.first
        return int(real[real >= self.sizes.excerpt_tokens].sum())

    def _firing(self, row: int) -> FiringAnchors | None:
        if not self.sizes.score.anchors:
            return None
        mine, known = self._slice("anchors", row), self._strata
        window, position, value, stratum = (
            self._anchors[name][mine] for name in ("window", "position", "value", "stratum")
        )
        counts, sums, squares = (known[name][row] for name in ("counts", "sums", "squares"))
        silent = float(known["silent_sum"][row]), float(known["silent_square"][row])
        anchors = self._score_anchors
        return FiringAnchors(window, position, value, stratum, counts, sums, squares, anchors, *silent)

    @cached_property
    def _borders(self) -> dict[str, np.ndarray]:
        """For the tables sorted by unit, where each unit's rows begin, and where the last one's end."""
        tables = {"units": self._units, "token_means": self._token_means, **self._excerpts}
        if self.sizes.score.anchors:
            tables["anchors"] = self._anchors
        keys = {name: (table["arm"].astype(np.int64) << 32) + table["index"] for name, table in tables.items()}
        units = keys.pop("units")
        return {name: np.append(np.searchsorted(own, units), len(own)) for name, own in keys.items()}

    def _slice(self, name: str, row: int) -> slice:
        return slice(*self._borders[name][row : row + 2].tolist())

    def _statistics(self, split: Split, row: int) -> SplitStatistics:
        columns = self._units
        return SplitStatistics(
            tokens=self.manifest["tokens"][split],
            fired=int(columns[f"{split}_fired"][row]),
            maximum=float(columns[f"{split}_maximum"][row]),
            mean=float(columns[f"{split}_mean"][row]),
            interval_counts=tuple(columns[f"{split}_interval_counts"][row].tolist()),
        )

    def _record_excerpts(self, row: int, sizes: HarvestSizes) -> dict[Split, tuple[Excerpt, ...]]:
        name = excerpts_of(sizes.excerpt_tokens, self.sizes)
        table, mine, text = self._excerpts[name], self._slice(name, row), self.vocabulary
        numbers = {name: table[name][mine].tolist() for name in ("window", "start", "anchor", "interval")}
        clusters = self.cluster[table["window"][mine]].tolist()
        found: dict[Split, list[Excerpt]] = {split: [] for split in sizes.splits}
        listed = (table[name][mine].tolist() for name in ("split", "group", "ids", "activations", "bigram"))
        for i, (split, group, ids, activations, bigram) in enumerate(zip(*listed, strict=True)):
            found[SPLITS[split]].append(
                Excerpt(
                    window=numbers["window"][i],
                    start=numbers["start"][i],
                    cluster=clusters[i],
                    ids=tuple(ids),
                    tokens=tuple([text[id_] for id_ in ids]),
                    activations=tuple(activations),
                    anchor=numbers["anchor"][i],
                    group=GROUPS[group],
                    interval=numbers["interval"][i],
                    bigram=tuple(bigram) if SPLITS[split] != "explain" else (),
                )
            )
        return {split: tuple(excerpts) for split, excerpts in found.items()}

    def _logit_test(self, row: int) -> dict[LogitKind, tuple[tuple[int, str], ...]] | None:
        asked: dict[LogitKind, list[int]] = {kind: self._units[f"asked_{kind}"][row] for kind in LOGIT_KINDS}
        if not asked["promoted"]:
            return None
        return {kind: tuple((token, self.vocabulary[token]) for token in tokens) for kind, tokens in asked.items()}

    def _effects(self, end: str, row: int) -> tuple[LogitEffect, ...]:
        tokens, weights = (self._units[f"{end}_{name}"][row] for name in ("tokens", "weights"))
        return tuple(LogitEffect(self.vocabulary[token], weight) for token, weight in zip(tokens, weights, strict=True))

    def _columns(self, name: str, *labels: Sequence[str]) -> dict[str, Any]:
        return read_columns(file_of(self.directory, name), *labels)


def _read_sizes(sizes: Mapping[str, Any]) -> HarvestSizes:
    values: dict[str, Any] = dict(sizes)
    values |= {name: SplitSizes(**sizes[name]) for name in SPLITS if sizes[name] is not None}
    values["wider"] = tuple(_read_sizes(each) for each in sizes["wider"])
    return HarvestSizes(**values)


def _check_file(path: Path, schema: pa.Schema, rows: int) -> None:
    try:
        metadata = pq.read_metadata(path)
        found = metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is missing or is no Parquet file.", str(error), _REMEDY) from error
    if not found.equals(schema) or metadata.num_rows != rows:
        raise UserError(f"{path} is not what the manifest says.", f"It has {metadata.num_rows} rows.", _REMEDY)
