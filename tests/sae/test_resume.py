"""Runs that are stopped and gone on with."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from sae import checkpoint
from sae.architectures.weights import Trained
from sae.checkpoint import find_checkpoint
from sae.errors import UserError
from sae.formats import load_dictionary
from sae.trainer import sweep_on
from tests.sae import tiny  # noqa: F401  one thread
from tests.sae.resumable import RECIPES, STEPS, rows, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Trained]]:
    """The sweep without a stop."""
    out = tmp_path_factory.mktemp("whole")
    return out, run(out, resume=False)


def _start(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sae.resumable", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def _lines(directory: Path) -> list[str]:
    return (directory / "metrics.jsonl").read_text().splitlines()


def _check_equal(out: Path, finished: Mapping[str, Trained], whole: tuple[Path, Mapping[str, Trained]]) -> None:
    """Every tensor bit for bit, and the same log but for the clock; nothing is left but the results."""
    reference, expected = whole
    for name, ours in finished.items():
        for field in dataclasses.fields(ours):
            value, other = getattr(ours, field.name), getattr(expected[name], field.name)
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
        logs = [
            [
                {key: value for key, value in json.loads(line).items() if key != "details/tokens_per_second"}
                for line in _lines(directory / name)
            ]
            for directory in (out, reference)
        ]
        assert logs[0] == logs[1]
        assert len(logs[0]) == STEPS
    assert sorted(path.name for path in out.iterdir()) == sorted(RECIPES)


def test_the_sweep_uses_all_that_a_checkpoint_holds(whole: tuple[Path, Mapping[str, Trained]]) -> None:
    """Some units die and are revived, and thresholds move: else the tests below would prove little."""
    out, finished = whole
    for name in RECIPES:
        dead = [json.loads(line)["sparsity/dead_features"] for line in _lines(out / name)]
        assert max(dead) > 0, name
    thresholds = [finished[name].threshold for name in ("batchtopk", "jumprelu")]  # type: ignore[union-attr]
    assert thresholds[0].amin() > 0
    assert thresholds[1].unique().numel() > 10


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, whole: tuple[Path, Mapping[str, Trained]]) -> None:
    """SIGKILL at a random moment, in another process; then an interruption; the end is the same, bit for bit."""
    rng = np.random.default_rng()
    lines, delay = int(rng.integers(1, STEPS - 20)), float(rng.uniform(0, 0.02))
    process = _start(tmp_path)
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, f"it ended by itself, asked to be killed after {lines} steps"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, resume=True, stop_at=lines + 9)
    assert find_checkpoint(tmp_path) is not None
    _check_equal(tmp_path, run(tmp_path, resume=True), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_of_the_last_whole_step(
    tmp_path: Path, number: signal.Signals, whole: tuple[Path, Mapping[str, Trained]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step under way is ended and saved, the interruption is raised, and the former handlers are back."""
    before = signal.getsignal(number)
    seen = 0

    def signalled(start: int):
        nonlocal seen
        for piece in rows(start):
            seen += 1
            if seen == 60:
                os.kill(os.getpid(), number)
            yield piece

    with pytest.raises(KeyboardInterrupt):
        sweep_on(signalled, RECIPES, tmp_path, source={"rows": "random"})
    place = find_checkpoint(tmp_path)
    assert place is not None
    assert int(place.name.removeprefix("checkpoint-")) % (20 * 64)
    assert signal.getsignal(number) == before
    for name in RECIPES:
        assert load_dictionary(place / name)[1].n_units == 48
    if number == signal.SIGTERM:
        _check_equal(tmp_path, run(tmp_path, resume=True), whole)


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    """A stopped run is not overwritten, and not continued with other recipes or from another source."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, resume=False, stop_at=5)
    with pytest.raises(UserError, match=r"holds a run that was stopped[\s\S]*--resume"):
        run(tmp_path, resume=False)
    changed = {**RECIPES, "l1": dataclasses.replace(RECIPES["l1"], learning_rate=0.5)}
    with pytest.raises(UserError, match=r"recipes l1 learning_rate was 0.01, now 0.5"):
        sweep_on(rows, changed, tmp_path, source={"rows": "random"}, resume=True)
    with pytest.raises(UserError, match=r"source rows was random, now other"):
        sweep_on(rows, RECIPES, tmp_path, source={"rows": "other"}, resume=True)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "The disk is full"),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            "not enough memory",
        ),
    ],
)
def test_what_runs_out_is_named_with_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    """A full disk while the second checkpoint is written leaves the first one whole, and says so."""
    save, calls = checkpoint._save, 0

    def fails(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls > len(RECIPES) + 2:
            raise error
        save(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "_save", fails)
    with pytest.raises(UserError, match=rf"{message}[\s\S]*The last good checkpoint is .*checkpoint-1280"):
        run(tmp_path, resume=False)
    monkeypatch.undo()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, resume=True, stop_at=25)


def test_other_errors_are_not_reworded(tmp_path: Path) -> None:
    """A fault of the program keeps its own traceback."""

    def broken(start: int):
        yield from (piece for piece, _ in zip(rows(start), range(3), strict=False))
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        sweep_on(broken, RECIPES, tmp_path)
