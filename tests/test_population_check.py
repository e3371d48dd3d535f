"""The exact values that the check of `population` compares with are those over every anchor."""

import numpy as np
import pytest

from autointerp import statistics
from autointerp.proposal import TextIndex
from autointerp.records.anchors import Text
from benchmarks.population_check import WIDTH, Firings, exact
from benchmarks.validity_metrics import average_precision


class _Record:
    threshold = 0.5


def test_sparse_firings_give_the_dense_values() -> None:
    """Windows shorter than an excerpt have no anchors; activations below the threshold correlate, but do not fire."""
    rng = np.random.default_rng(0)
    tokens, length = rng.integers(20, size=(30, 16), dtype=np.int32), rng.choice([5, 14, 16], size=30)
    rows = np.arange(100, 130, dtype=np.int32)
    text = Text(rows, tokens, length.astype(np.int32), rows, 1, tuple(f" t{i}" for i in range(20)))
    counted = (np.arange(16) >= 1) & (np.arange(16) < length[:, None])
    truth = np.where(counted & (tokens < 6), rng.exponential(size=tokens.shape), 0).astype(np.float32)
    window, position = np.nonzero(truth)
    fired = Firings(window, position, truth[window, position])
    assert (fired.on(text, [105, 117]) == truth[[5, 17]]).all()
    level = rng.integers(5, size=20).astype(float)
    anchors = counted & (length[:, None] - 1 >= WIDTH)
    x, y = truth[anchors].astype(float), level[tokens[anchors]]
    found = exact(_Record(), fired, TextIndex(text, WIDTH), level)  # type: ignore[arg-type]
    assert found["pearson"] == pytest.approx(statistics.pearson(x, y))
    assert found["auprc"] == pytest.approx(average_precision(x > _Record.threshold, y))
