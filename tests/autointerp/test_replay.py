"""A kept stream is read back as it was; one that cannot be kept is computed again."""

import errno
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from autointerp.activations import replay
from autointerp.activations.replay import Batch, Replay


class Stream:
    """Two batches of random blocks, counting how often they are computed."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self) -> Iterator[Batch]:
        self.passes += 1
        rng = np.random.default_rng(0)
        for begin in (0, 4):
            columns = {name: rng.integers(0, 9, 5) for name in ("window", "position", "unit")}
            yield range(begin, begin + 4), {"arm": SimpleNamespace(**columns, value=rng.random(5))}


def contents(batches: Iterator[Batch]) -> list[object]:
    """Everything in `batches`, comparable."""
    names = ("window", "position", "unit", "value")
    return [(rows, [getattr(block["arm"], name).tolist() for name in names]) for rows, block in batches]


def test_a_stream_is_computed_once() -> None:
    """The second pass reads what the first one kept."""
    stream = Stream()
    kept = Replay(stream)
    assert contents(kept()) == contents(kept())
    assert stream.passes == 1
    kept.close()


def test_a_stream_that_is_too_large_is_computed_again() -> None:
    """More bytes than allowed are not kept."""
    stream = Stream()
    kept = Replay(stream, most=10)
    assert contents(kept()) == contents(kept())
    assert stream.passes == 2
    kept.close()


def test_a_full_disk_costs_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written, both passes are computed."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(replay.np, "savez", full)
    stream = Stream()
    kept = Replay(stream)
    assert contents(kept()) == contents(kept())
    assert stream.passes == 2
    kept.close()
