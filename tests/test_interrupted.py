"""Runs that are broken off: by SIGKILL, by Ctrl-C once, by Ctrl-C twice."""

import multiprocessing
import os
import signal
import sqlite3
import sys
import time
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from autointerp import ending
from autointerp.cli import main
from autointerp.report.tables import read_outcomes
from tests.runs import MODELS, arguments, bill, command, lead_to, values
from tests.servers.loopback import serve

# multiprocessing starts processes over a Unix socket; everything else stays on 127.0.0.1
pytestmark = pytest.mark.enable_socket


@pytest.mark.slow
def test_killed_in_the_middle_it_resumes_and_pays_nothing_twice(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGKILL the scores equal an undisturbed run's; only calls that were in flight are asked again."""
    monkeypatch.setattr(ending, "draw", lambda *_: None)
    run, other, bills = tmp_path / "run", tmp_path / "other" / "run", tmp_path / "bill.jsonl"
    flags = ("--features", "0:12", *MODELS, "--concurrency", "4")
    assert command("harvest", *arguments(place, run, *flags)) == 0
    with serve(bill=bills, delay=0.02) as running:
        lead_to(running.url, monkeypatch)
        process = start(tmp_path / "stderr", "run", *arguments(place, run, *flags))
        wait_for_bill(bills, 20, process)
        process.kill()
        process.join()
        killed = bill(bills)
        assert command("resume", run) == 0
        resumed = bill(bills)
        assert command("run", *arguments(place, other, *flags)) == 0
    whole = bill(bills) - resumed
    assert 20 <= killed < whole
    assert values(run) == values(other)
    assert resumed - whole <= 4, "at most the calls in flight are paid again"


def test_ctrl_c_saves_what_has_ended(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first SIGINT drains and exits 130 with the results so far; whatever was billed is settled."""
    flags = arguments(place, tmp_path / "run", "--features", "0:24", *MODELS, "--concurrency", "2")
    assert command("harvest", *flags) == 0
    with serve(bill=tmp_path / "bill.jsonl", delay=0.05) as running:
        lead_to(running.url, monkeypatch)
        process = start(tmp_path / "stderr", "run", *flags)
        wait_for_bill(tmp_path / "bill.jsonl", 12, process)
        interrupt(process)
        process.join(60)
    said = (tmp_path / "stderr").read_text()
    assert process.exitcode == 130, said
    assert "autointerp resume" in said
    assert read_outcomes(tmp_path / "run").outcomes
    assert attempts(tmp_path) == {"settled": bill(tmp_path / "bill.jsonl")}


def test_ctrl_c_twice_does_not_wait(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second SIGINT gives up calls that hang: they stay charged, and what has ended is saved."""
    flags = arguments(place, tmp_path / "run", "--features", "0:24", *MODELS, "--concurrency", "2")
    assert command("harvest", *flags) == 0
    with serve(bill=tmp_path / "bill.jsonl", delay=0.02) as running:
        lead_to(running.url, monkeypatch)
        process = start(tmp_path / "stderr", "run", *flags)
        wait_for_bill(tmp_path / "bill.jsonl", 20, process)
        running.delay = 600.0
        settled = -1
        while settled != bill(tmp_path / "bill.jsonl") or running.in_flight < 2:
            settled = bill(tmp_path / "bill.jsonl")
            time.sleep(0.1)
        interrupt(process)
        time.sleep(0.2)
        interrupt(process)
        process.join(60)
    said = (tmp_path / "stderr").read_text()
    assert process.exitcode == 130, said
    assert "autointerp resume" in said
    assert read_outcomes(tmp_path / "run").outcomes
    assert attempts(tmp_path) == {"settled": settled, "unknown": 2}


def start(errors: Path, *words: str | Path) -> BaseProcess:
    """A command as a process of its own, with its standard error in the file `errors`.

    It is forked from one that has imported everything, and draws no figures: both take longer than all the rest.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["autointerp.stages", "autointerp.cli", "anthropic", "openai"])
    process = context.Process(target=_command, args=(errors, dict(os.environ), [str(word) for word in words]))
    process.start()
    return process


def _command(errors: Path, environment: dict[str, str], words: list[str]) -> None:
    os.environ.update(environment)  # the process that this one is forked from has an older one
    with errors.open("wb") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    ending.draw = lambda *_: None
    main(words)


def interrupt(process: BaseProcess) -> None:
    """What Ctrl-C does."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)


def wait_for_bill(path: Path, calls: int, process: BaseProcess) -> None:
    """Return when `calls` calls are billed, or the process has ended."""
    while bill(path) < calls and process.is_alive():
        time.sleep(0.01)


def attempts(folder: Path) -> dict[str, int]:
    """Attempts in the store of answers, by state."""
    with closing(sqlite3.connect(folder / "answers.sqlite")) as store:
        return dict(store.execute("SELECT state, count(*) FROM attempt GROUP BY state").fetchall())
