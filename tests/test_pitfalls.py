"""P7"""
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autointerp.activations.plan import SPLITS
from tests.runs import arguments, command


@pytest.fixture(scope="module")
def harvest(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harvested run, not yet explained."""
    out = tmp_path_factory.mktemp("pitfalls") / "run"
    assert command("harvest", *arguments(place, out, "--features", "0:4", "--baseline", "neurons")) == 0
    return out


def plant_document(windows: dict[str, np.ndarray]) -> str:
    """Half of an explain document among the score documents."""
    of_explain = windows["document"][windows["split"] == 0]
    shared = np.flatnonzero(windows["document"] == np.bincount(of_explain).argmax())
    windows["split"][shared[::2]] = SPLITS.index("score")
    return "the document of document"


def plant_near_duplicate(windows: dict[str, np.ndarray]) -> str:
    """An explain document with a token changed in every third window, in place of a score document as long."""
    counts = np.bincount(windows["document"])
    split_of = {int(document): int(code) for document, code in zip(windows["document"], windows["split"], strict=True)}
    first, second = next(
        (a, b)
        for a, b in itertools.product(np.argsort(counts)[::-1].tolist(), repeat=2)
        if counts[a] == counts[b] and (split_of[a], split_of[b]) == (0, SPLITS.index("score"))
    )
    original, copy = (np.flatnonzero(windows["document"] == document) for document in (first, second))
    windows["split"][copy] = SPLITS.index("score")
    windows["length"][copy] = windows["length"][original]
    windows["tokens"][copy] = windows["tokens"][original]
    windows["tokens"][copy[::3], 16] += 1
    return "occur in explain documents"


@pytest.mark.parametrize("plant", [plant_document, plant_near_duplicate])
@pytest.mark.parametrize("stage", ["explain", "resume"])
def test_p07_a_leak_stops_the_run(
    stage: str,
    plant: Callable[[dict[str, np.ndarray]], str],
    harvest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """x."""
    run = tmp_path / "run"
    shutil.copytree(harvest, run)
    path = run / "harvest" / "windows.parquet"
    table = pq.read_table(path)
    width = table.schema.field("tokens").type.list_size
    columns = {name: table[name].to_numpy().copy() for name in table.column_names if name != "tokens"}
    columns["tokens"] = table["tokens"].combine_chunks().flatten().to_numpy().reshape(-1, width).copy()
    said = plant(columns)
    arrays = {name: pa.array(values) for name, values in columns.items() if name != "tokens"}
    arrays["tokens"] = pa.FixedSizeListArray.from_arrays(pa.array(columns["tokens"].ravel()), type=table.schema.field("tokens").type)
    pq.write_table(pa.table([arrays[name] for name in table.column_names], schema=table.schema), path)
    assert command(stage, run) == 1
    shown = capsys.readouterr().err
    print(shown)
    assert said in shown
