"""The commands with a simulator that reads log-probabilities, on tiny subjects that the tests make."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from autointerp import ending
from tests.runs import arguments, command
from tests.sae.tiny import gpt2_folder
from tests.servers.loopback import serve

FEW = ("--features", "0:2", "--baseline", "none")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, and a random model's digits count although it expects them too little."""
    monkeypatch.setattr(ending, "draw", lambda *_: None)
    monkeypatch.setattr("autointerp.simulate.logprob.LEAST_MASS", 0.0)


def test_a_model_in_this_process_simulates_for_nothing(place: Path, tmp_path: Path) -> None:
    """`--simulator local/PATH` predicts the levels of what `lookup` explains, under a budget of nothing."""
    local = f"local/{gpt2_folder(tmp_path / 'simulator', context=8192)}"
    flags = arguments(place, tmp_path / "run", *FEW, "--simulator", local, "--max-cost", "0", "--device", "cpu")
    assert command("run", *flags) == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    [calls] = manifest["calls"]
    assert (manifest["status"], calls["stage"], calls["model"]) == ("complete", "simulate", local)
    assert calls["calls"] > 0
    assert calls["settled"] == 0
    assert len(pq.read_table(tmp_path / "run" / "scores.parquet")) > 0


def test_a_server_simulates_at_the_price_that_is_given(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--simulator slots/MODEL --base-url URL` asks as often as its dry run says, and needs a price."""
    with serve(bill=tmp_path / "bill") as server:
        own = ("--simulator", "slots/m", "--base-url", f"{server.url}/v1")
        flags = arguments(place, tmp_path / "run", "--features", "0:1", "--baseline", "none", *own)
        assert command("run", *flags) == 1
        assert "--price" in capsys.readouterr().err
        assert command("run", *flags, "--price", "0.1,0.1", "--dry-run", "--format", "json") == 0
        [row] = json.loads(capsys.readouterr().out)
        assert server.billed() == []
        assert command("run", *flags, "--price", "0.1,0.1", "--max-cost", "1") == 0
        assert len(server.billed()) == row["calls"] > 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--explainer", "slots/m", "--simulator", "slots/m"), "cannot explain"),
        (("--explainer", "local/m", "--simulator", "local/m"), "cannot explain"),
        (("--simulator", "slots/m", "--batch"), "no batch API"),
        (("--simulator", "slots/"), "names no model"),
    ],
)
def test_what_such_models_cannot_do_is_said(
    flags: tuple[str, ...], said: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They write no explanations and are in no batch API."""
    assert command("run", *arguments(place, tmp_path / "run", *flags)) == 2
    assert said in capsys.readouterr().err
