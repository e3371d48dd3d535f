"""What is planted between explain and score documents stops a run."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autointerp.activations.plan import SPLITS
from tests.runs import command


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
    """P7: a document, and a near-duplicate, planted between explain and score stop the run with a message."""
    run = tmp_path / "run"
    shutil.copytree(harvest, run)
    path = run / "harvest" / "windows.parquet"
    table = pq.read_table(path)
    width = table.schema.field("tokens").type.list_size
    columns = {name: table[name].to_numpy().copy() for name in table.column_names if name != "tokens"}
    columns["tokens"] = table["tokens"].combine_chunks().flatten().to_numpy().reshape(-1, width).copy()
    said = plant(columns)
    arrays = {name: pa.array(values) for name, values in columns.items() if name != "tokens"}
    arrays["tokens"] = pa.FixedSizeListArray.from_arrays(
        pa.array(columns["tokens"].ravel()), type=table.schema.field("tokens").type
    )
    pq.write_table(pa.table([arrays[name] for name in table.column_names], schema=table.schema), path)
    assert command(stage, run) == 1
    shown = capsys.readouterr().err
    assert said in shown
