"""Runs that are stopped and gone on with."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from sae import checkpoint, trainer
from sae.architectures.weights import Trained
from sae.checkpoint import find_checkpoint
from sae.errors import UserError
from sae.formats import load_dictionary
from sae.formats.saelens import SaeMetadata
from sae.outcome import StepResult
from sae.trainee import Diverged, Trainee, TrainLog
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
    assert sorted(path.name for path in out.iterdir()) == sorted([*RECIPES, "run.json"])


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


_ONE = {"": RECIPES["topk"]}
_FULL = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
"""As safetensors says it on a file system without room."""


@pytest.mark.parametrize(
    ("holder", "function", "error"),
    [(checkpoint, "save_file", _FULL), (trainer._MetricsFile, "write", OSError(28, "No space left on device"))],
)
def test_a_full_disk_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: object, function: str, error: Exception
) -> None:
    """While the second checkpoint or a line of metrics is written; nothing of what did not fit stays."""
    write, first = getattr(holder, function), tmp_path / "checkpoint-1280"

    def fails(*arguments: object) -> object:
        if first.exists():
            raise error
        return write(*arguments)

    monkeypatch.setattr(holder, function, fails)
    message = rf"The disk is full[\s\S]*The last good checkpoint is {first}\.[\s\S]*Make room .* --resume"
    with pytest.raises(UserError, match=message):
        sweep_on(rows, _ONE, tmp_path)
    assert list(tmp_path.glob("checkpoint-*")) == [first]
    monkeypatch.undo()
    sweep_on(rows, _ONE, tmp_path, resume=True)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_that_runs_out_leaves_the_last_good_checkpoint(tmp_path: Path, device: str) -> None:
    """torch's own error of a processor that cannot allocate, and its type for a GPU, which is not at hand."""

    def greedy(start: int) -> Iterator[torch.Tensor]:
        for number, piece in enumerate(rows(start), start):
            if number == 40:
                if device == "cuda":
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
                torch.empty(2**50)
            yield piece

    message = r"There is not enough memory: .*allocate[\s\S]*checkpoint-1280\.[\s\S]*Take a smaller batch"
    with pytest.raises(UserError, match=message):
        sweep_on(greedy, _ONE, tmp_path)
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-1280"


def test_a_dictionary_too_large_for_memory_is_named_before_the_first_step(tmp_path: Path) -> None:
    """There is no checkpoint then, and the message says so."""
    huge = {"": dataclasses.replace(RECIPES["topk"], d_sae=2**42)}
    with pytest.raises(UserError, match=r"There is not enough memory[\s\S]*There is no checkpoint yet"):
        sweep_on(rows, huge, tmp_path)


def test_a_loss_that_diverges_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    """Well before it is NaN: the error of a learning rate gone wild is a thousand times the variance."""
    wild = dataclasses.replace(RECIPES["l1"], learning_rate=100.0, learning_rate_warmup=1.0, checkpoint_every=64)
    with pytest.raises(UserError, match=r"The training diverges[\s\S]*The last good checkpoint is .*checkpoint-\d+\."):
        sweep_on(rows, {"": wild}, tmp_path)


def test_weights_that_are_not_finite_replace_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of a step is that of the weights before it."""
    count = Trainee._count

    def poison(trainee: Trainee, result: StepResult) -> None:
        count(trainee, result)
        if trainee.done == 40:
            trainee.weights.W_dec[0] = torch.nan

    monkeypatch.setattr(Trainee, "_count", poison)
    with pytest.raises(UserError, match=r"no longer finite[\s\S]*The last good checkpoint is .*checkpoint-1280\."):
        sweep_on(rows, {"": RECIPES["topk"]}, tmp_path)


def test_a_loss_that_was_not_finite_is_told_before_anything_is_saved(tmp_path: Path) -> None:
    """A GPU's losses are not read at every step."""
    trainee = Trainee.new("", RECIPES["topk"], next(rows(0)))
    trainee.step.failed.fill_(1.0)
    with pytest.raises(UserError, match="The loss is no longer finite at step 0"):
        trainee.save(tmp_path, SaeMetadata())
    assert not list(tmp_path.iterdir())


def test_a_loss_that_nobody_reads_at_once_is_found_at_the_next_log_line() -> None:
    """As on a GPU: the weights are still those before it, and no new directions are given in between."""
    for field, found in ({"log_every": 4 * 64}, 4), ({"resample_at": (3 / STEPS,)}, 3):
        recipe = dataclasses.replace(RECIPES["jumprelu"], **{"log_every": 10**9, "resample_at": (), **field})
        trainee = Trainee.new("", recipe, next(rows(0)))
        trainee._at_once = False
        before = trainee.weights.W_enc.clone()
        for _ in range(found - 1):
            trainee.advance(torch.full((64, 24), torch.nan), torch.rand(64, 24))
        with pytest.raises(Diverged, match=f"no longer finite at step {found - 1}"):
            trainee.advance(torch.rand(64, 24), torch.rand(64, 24))
        assert torch.equal(trainee.weights.W_enc, before)


def test_a_signal_while_the_end_is_written_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained is whole on disk, and the run stops before anything else begins."""
    save = Trainee.save

    def interrupted(trainee: Trainee, *given: object) -> Trained:
        if trainee.done == STEPS:
            os.kill(os.getpid(), signal.SIGINT)
        return save(trainee, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainee, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep_on(rows, {"": RECIPES["l1"]}, tmp_path)
    assert checkpoint.has_ended(tmp_path)
    assert load_dictionary(tmp_path)[1].n_units == RECIPES["l1"].d_sae


def test_ten_minutes_without_a_checkpoint_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tokens there may be between two."""
    monkeypatch.setattr("sae.trainer._UNSAVED", 0.0)
    recipe = dataclasses.replace(RECIPES["l1"], checkpoint_every=10**12)

    def stop(log: TrainLog) -> None:
        assert log.tokens == recipe.batch or find_checkpoint(tmp_path) is not None

    sweep_on(rows, {"": recipe}, tmp_path, on_log=stop)


def test_other_errors_are_not_reworded(tmp_path: Path) -> None:
    """A fault of the program keeps its own traceback."""

    def broken(start: int):
        yield from (piece for piece, _ in zip(rows(start), range(3), strict=False))
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        sweep_on(broken, RECIPES, tmp_path)
