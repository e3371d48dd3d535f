"""`--batch` as a user runs it: send, close the laptop, resume."""

import json
import math
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from autointerp import stages
from autointerp.llm import batches, courier
from tests.runs import MODELS, addresses, arguments, command, values
from tests.servers.loopback import Server, serve


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Both providers on loopback with a bill; what is a minute is some milliseconds."""
    for module, name in ((batches, "QUIET"), (courier, "FIRST_POLL"), (courier, "LONGEST_POLL")):
        monkeypatch.setattr(module, name, 0.05)
    with serve(bill=tmp_path / "bill.jsonl", log=tmp_path / "log.jsonl") as running:
        for name, value in addresses(running.url).items():
            monkeypatch.setenv(name, value)
        yield running


def submissions(server: Server) -> int:
    """Batches that were sent."""
    names = Counter(line["request"] for line in server.requests())
    return names["POST /v1/messages/batches"] + names["POST /v1/batches"]


@pytest.mark.slow
def test_a_run_in_batches_gives_the_scores_of_a_synchronous_run(server: Server, place: Path, tmp_path: Path) -> None:
    """One batch per stage for all units, all of the bill at batch price, the same numbers."""
    flags = ("--features", "0:6", "--baseline", "neurons", *MODELS)
    assert command("run", *arguments(place, tmp_path / "batched" / "run", *flags, "--batch")) == 0
    assert submissions(server) == 2
    bill = server.billed()
    assert all(line["batch"] for line in bill)
    manifest = json.loads((tmp_path / "batched" / "run" / "manifest.json").read_text())
    assert sum(row["cost"] for row in manifest["calls"]) == sum(line["nano"] for line in bill)
    assert command("run", *arguments(place, tmp_path / "run", *flags)) == 0
    assert values(tmp_path / "batched" / "run") == values(tmp_path / "run")


@pytest.mark.slow
def test_a_run_above_its_estimate_stops_before_the_rest_is_sent(
    server: Server, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first units go in batches of their own; what they cost decides, and a limit lets the run finish."""
    monkeypatch.setattr(stages, "PILOT", 3)
    monkeypatch.setattr("autointerp.llm.prices.WRITTEN_SHARE", 0.0)
    monkeypatch.setattr("autointerp.llm.prices.BYTES_PER_TOKEN", 40)
    flags = arguments(place, tmp_path / "run", "--features", "0:6", *MODELS, "--batch")
    assert command("run", *flags) == 4
    assert "is heading for" in capsys.readouterr().err
    piloted = len(server.billed())
    assert 0 < piloted <= 3 * 4
    assert command("resume", tmp_path / "run", "--max-cost", "5") == 0
    requests = [line["request"] for line in server.billed()]
    assert len(requests) == len(set(requests)) > piloted


def test_ctrl_c_leaves_the_batch_to_the_provider_and_resume_fetches_it(
    server: Server, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first SIGINT exits 130 at once; nothing is cancelled, and nothing is sent a second time."""
    server.batch_seconds = math.inf

    def interrupt() -> None:
        while not submissions(server):
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    flags = arguments(place, tmp_path / "run", "--features", "0:6", *MODELS, "--batch", "--max-cost", "5")
    assert command("run", *flags) == 130
    said = capsys.readouterr().err
    assert "1 batch" in said and "nothing was cancelled" in said and "autointerp resume" in said
    assert submissions(server) == 1
    assert server.billed() == []
    server.batch_seconds = 0.0
    assert command("resume", tmp_path / "run") == 0
    assert submissions(server) == 2
    assert not any("cancel" in line["request"] for line in server.requests())
    requests = [line["request"] for line in server.billed()]
    assert len(requests) == len(set(requests))
