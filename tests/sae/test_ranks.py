"""Training on several processes, started by the real torchrun."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from sae.checkpoint import find_checkpoint
from sae.corpus.windows import Windows
from sae.errors import UserError
from sae.ranks import ALONE, Ranks
from sae.recipes import topk
from sae.rows import shard
from sae.trainer import sweep_on
from tests.sae import tiny  # noqa: F401  one thread
from tests.sae.ranked import RECIPES, SIMPLE, run, tensors
from tests.sae.resumable import STEPS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``tests.sae.ranked`` in two processes, of which none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: object) -> subprocess.Popen[str]:
        words = ["--standalone", "--nproc-per-node", "2", "--module", "tests.sae.ranked", *map(str, arguments)]
        process = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        _kill(process)
        process.communicate()


def _kill(process: subprocess.Popen[str]) -> None:
    """torchrun and its processes, at once and without warning."""
    if process.poll() is None:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            each.kill()


def _ended(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return errors


def _curve(directory: Path, key: str = "losses/overall_loss") -> np.ndarray:
    return np.array([json.loads(line)[key] for line in (directory / "metrics.jsonl").read_text().splitlines()])


def test_two_processes_train_as_one_with_the_same_batches(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Both end with the same bits, and with those of one process up to rounding.

    In TopK each rank weights the dead units' loss by the variances of its own part of the batch; in BatchTopK units
    compete within that part, here of 32 vectors, which is another, but hardly a worse training.
    """
    process = start(tmp_path / "two", "simple")
    alone = tensors(run(tmp_path / "one", SIMPLE))
    _ended(process)
    first, second = (load_file(tmp_path / "two" / f"rank-{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in alone)
    for name, tolerance in {"l1": 1e-5, "jumprelu": 1e-5, "topk": 1e-3}.items():
        curves = [_curve(tmp_path / which / name) for which in ("one", "two")]
        assert len(curves[0]) == STEPS
        np.testing.assert_allclose(*curves, rtol=tolerance)
        for field in [field for field in alone if field.startswith(f"{name}.")]:
            torch.testing.assert_close(first[field], alone[field], rtol=0, atol=tolerance)
        for key in ("metrics/l0", "metrics/explained_variance", "sparsity/dead_features"):
            counts = [_curve(tmp_path / which / name, key) for which in ("one", "two")]
            np.testing.assert_allclose(*counts, rtol=0, atol=tolerance)
    ends = [_curve(tmp_path / which / "batchtopk")[-20:].mean() for which in ("one", "two")]
    assert ends[1] == pytest.approx(ends[0], rel=0.02)


@pytest.mark.slow
def test_a_group_that_is_killed_and_then_stopped_goes_on_to_the_same_weights(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """kill -9 of all at a random moment; SIGTERM to torchrun, which leaves one checkpoint; the end is the same."""
    _ended(start(tmp_path / "whole", "all"))
    lines, out = int(np.random.default_rng().integers(60, 300)), tmp_path / "cut"
    for stop in (_kill, lambda process: process.send_signal(signal.SIGTERM)):
        process = start(out, "all")
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        stop(process)
        _, errors = process.communicate()
        assert process.returncode != 0
        lines = 20
    place = find_checkpoint(out)
    assert place is not None, errors
    assert int(place.name.removeprefix("checkpoint-")) % (20 * 64), errors
    assert "KeyboardInterrupt" in errors
    _ended(start(out, "all"))
    for rank in range(2):
        expected = load_file(tmp_path / "whole" / "rank-0.safetensors")
        found = load_file(out / f"rank-{rank}.safetensors")
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    for name in RECIPES:
        assert np.array_equal(_curve(out / name), _curve(tmp_path / "whole" / name))
        assert max(_curve(out / name, "sparsity/dead_features")) > 0
    assert find_checkpoint(out) is None


def test_another_number_of_processes_does_not_go_on(tmp_path: Path) -> None:
    """The message says how many there were, and how to start them."""
    recipe = topk(d_sae=8, k=1, tokens=64, batch=8, pool_batches=1, log_every=8)

    def rows(start: int) -> Iterator[torch.Tensor]:
        while True:
            yield torch.rand(4, 3)

    def interrupt(log: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep_on(rows, {"": recipe}, tmp_path, on_log=interrupt)
    with pytest.raises(UserError, match=r"by 1 process, and this is a run of 2[\s\S]*without torchrun"):
        sweep_on(rows, {"": recipe}, tmp_path, resume=True, ranks=Ranks(1, 2))
    with pytest.raises(UserError, match="A batch of 8 cannot be shared by 3 processes"):
        sweep_on(rows, {"": recipe}, tmp_path / "new", ranks=Ranks(0, 3))


def test_every_document_is_read_by_one_rank_and_lengths_are_alike() -> None:
    """Whole documents, dealt out so that no rank has more than one document above another."""
    rng = np.random.default_rng(0)
    document = np.sort(rng.integers(0, 20, 300)).astype(np.int32)
    length = rng.integers(2, 12, 300).astype(np.int32)
    windows = Windows(np.zeros((300, 12), dtype=np.int32), length, document, np.zeros(300, dtype=np.int32), first=1)
    owned = [shard(windows, Ranks(rank, 3)) for rank in range(3)]
    assert (np.sum(owned, axis=0) == 1).all()
    assert sum(len(np.unique(document[mine])) for mine in owned) == len(np.unique(document))
    tokens = [windows.length[mine].sum() for mine in owned]
    assert max(tokens) - min(tokens) <= np.bincount(document, length).max()
    assert shard(windows, ALONE).all()
