"""The columns of a store's files, as numpy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def read_columns(path: Path, *labels: Sequence[str]) -> dict[str, Any]:
    """Every column of the file; dictionary-coded ones become indices into `labels`, taken in the order of columns.

    Numbers come as an array, fixed lists as a matrix, ragged lists and text as a list.
    """
    table, coded = pq.read_table(path), iter(labels)
    return {
        field.name: _as_numpy(table[field.name], next(coded) if pa.types.is_dictionary(field.type) else ())
        for field in table.schema
    }


def _as_numpy(column: pa.ChunkedArray, labels: Sequence[str]) -> Any:
    kind = column.type
    if pa.types.is_dictionary(kind):
        whole = cast(pa.DictionaryArray, column.unify_dictionaries().combine_chunks())
        place = np.array([labels.index(label) for label in whole.dictionary.to_pylist()], dtype=np.int64)
        return place[whole.indices.to_numpy()]
    if pa.types.is_fixed_size_list(kind):
        return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).reshape(-1, kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_string(kind):
        return column.to_pylist()
    return column.to_numpy()
