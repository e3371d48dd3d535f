"""A store is whole or it is none."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autointerp.activations.plan import SPLITS
from autointerp.activations.store import Store
from autointerp.records.unit import LogitEffect, Unit
from sae.errors import UserError
from tests.autointerp.harvests import SMALL, World, world

FILES = ("windows", "units", "excerpts", "pool", "vocabulary", "token_means")


@pytest.fixture
def made() -> World:
    return world(2)


@pytest.fixture
def store(made: World, tmp_path: Path) -> Store:
    return made.harvest(tmp_path / "store")


def test_units_come_arm_by_arm(store: Store, made: World) -> None:
    """In the order of the arms, by index, under the names they were given."""
    assert store.units == (
        *(Unit("features", i, str(i)) for i in range(7)),
        *(Unit("neurons", i, f"{i}+") for i in (0, 2, 4, 6)),
    )
    assert store.record(store.units[-1]).threshold == pytest.approx(0.4)
    with pytest.raises(KeyError):
        store.record(Unit("neurons", 1, "1+"))


def test_corpus_and_settings_come_back(store: Store, made: World) -> None:
    """Windows, splits, clusters, sizes, vocabulary and key are those that were harvested."""
    for name in ("tokens", "length", "document", "offset"):
        assert (getattr(store.windows, name) == getattr(made.windows, name)).all()
    assert store.windows.first == made.windows.first
    assert (store.split == made.split).all()
    assert (store.cluster == made.cluster).all()
    assert store.sizes == SMALL
    assert store.vocabulary[3] == "t3"
    assert store.manifest["key"] == "key 0"
    assert store.manifest["windows"] == {name: (made.split == code).sum() for code, name in enumerate(SPLITS)}


def test_logits_are_the_arms_or_none(store: Store, made: World) -> None:
    """Promoted and suppressed tokens as text with their weights, in their order; none where there are none."""
    logits = made.arms["features"].logits
    assert logits is not None
    record = store.record(store.units[1])
    for found, tokens, weights in (
        (record.promoted, logits.promoted, logits.promoted_weights),
        (record.suppressed, logits.suppressed, logits.suppressed_weights),
    ):
        assert found == tuple(LogitEffect(f"t{t}", float(w)) for t, w in zip(tokens[1], weights[1], strict=True))
    assert store.record(store.units[-1]).promoted == ()


def test_only_the_same_key_is_complete(store: Store, tmp_path: Path) -> None:
    """A store is taken for another key's only where the keys agree."""
    assert Store.is_complete(store.directory, "key 0")
    assert not Store.is_complete(store.directory, "key 1")
    assert not Store.is_complete(tmp_path / "nowhere", "key 0")


@pytest.mark.parametrize("name", FILES)
def test_missing_file_makes_the_store_none(store: Store, name: str) -> None:
    """Without any one of its files a store does not open, and the message names the file and the command."""
    (store.directory / f"{name}.parquet").unlink()
    assert not Store.is_complete(store.directory, "key 0")
    with pytest.raises(UserError, match=rf"{name}\.parquet is missing[\s\S]*autointerp harvest"):
        Store.open(store.directory)


def test_directory_without_a_manifest_is_no_store(tmp_path: Path) -> None:
    """The message names the command that makes one."""
    with pytest.raises(UserError, match=r"holds no store[\s\S]*autointerp harvest"):
        Store.open(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda manifest: json.dumps(manifest | {"version": 99}), "another version"),
        (lambda manifest: json.dumps(manifest)[:-40], "malformed"),
        (lambda _: "[]", "malformed"),
        (lambda manifest: json.dumps(manifest | {"sizes": {"excerpt_tokens": 9}}), "malformed"),
        (lambda manifest: json.dumps(manifest | {"files": {}}), "malformed"),
        (lambda manifest: json.dumps(manifest | {"context": 99}), "not what the manifest says"),
    ],
)
def test_spoilt_manifest_is_refused(store: Store, spoil: Callable[[dict[str, object]], str], message: str) -> None:
    """Another version, broken JSON, missing parts and wrong facts each get a message."""
    path = store.directory / "manifest.json"
    path.write_text(spoil(json.loads(path.read_text())))
    with pytest.raises(UserError, match=message):
        Store.open(store.directory)


def test_files_with_other_columns_or_rows_are_refused(store: Store) -> None:
    """A file that is not the one written is noticed when the store is opened."""
    path = store.directory / "vocabulary.parquet"
    table = pq.read_table(path)
    for wrong in (table.slice(1), table.rename_columns(["word"]), pa.table({"token": [1]})):
        pq.write_table(wrong, path)
        with pytest.raises(UserError, match="not what the manifest says"):
            Store.open(store.directory)
    path.write_bytes(b"no parquet")
    with pytest.raises(UserError, match="no Parquet file"):
        Store.open(store.directory)


def test_changed_bytes_are_found(store: Store) -> None:
    """`verify` passes on what was written and names a file whose contents changed under the same shape."""
    store.verify()
    path = store.directory / "vocabulary.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.table({"token": ["other"] * len(table)}), path)
    with pytest.raises(UserError, match=r"vocabulary\.parquet was changed"):
        Store.open(store.directory).verify()


def test_interrupted_rewriting_leaves_no_store(store: Store, made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off between two renames, the directory holds no manifest, so that no mixture is taken for a store."""
    replaced: list[object] = []

    def replace(source: Path, target: Path) -> None:
        replaced.append(target)
        if len(replaced) == 3:
            raise KeyboardInterrupt
        Path(source).rename(target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        made.harvest(store.directory, seed=5)
    assert not Store.is_complete(store.directory, "key 0")
    assert not Store.is_complete(store.directory, "key 5")
    monkeypatch.undo()
    assert made.harvest(store.directory, seed=5).manifest["key"] == "key 5"
    assert not [path for path in store.directory.iterdir() if path.suffix == ".tmp"]
