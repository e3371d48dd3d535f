"""Nothing that was computed, paid for or decided is lost between sessions of one run."""

import json
from pathlib import Path

import pytest

from autointerp.config import load_run
from autointerp.report.tables import read_outcomes
from tests.runs import MODELS, arguments, bill, command, values

pytestmark = pytest.mark.usefixtures("no_figures")
FEW = ("--features", "0:4")


@pytest.mark.usefixtures("server")
def test_more_money_is_saved_as_what_it_means(place: Path, tmp_path: Path) -> None:
    """After `--max-cost +5` the saved limit is a number: resuming once more does not add another five."""
    run = tmp_path / "run"
    assert command("run", *arguments(place, run, *FEW, *MODELS, "--max-cost", "0.001")) == 4
    assert command("resume", run, "--max-cost", "+5") == 0
    limit = load_run(run).max_cost
    assert limit is not None
    assert 5 <= float(limit) < 5.01
    assert command("resume", run) == 0
    assert load_run(run).max_cost == limit


@pytest.mark.usefixtures("server")
def test_a_dry_run_changes_no_saved_configuration(place: Path, tmp_path: Path) -> None:
    """Asking what a run would cost leaves the run on disk as it was."""
    flags = arguments(place, tmp_path / "run", *FEW, *MODELS)
    assert command("run", *flags, "--concurrency", "3") == 0
    assert command("run", *flags, "--concurrency", "5", "--dry-run") == 0
    assert load_run(tmp_path / "run").concurrency == 3


@pytest.mark.usefixtures("server")
def test_an_interrupted_session_replaces_no_fuller_results(place: Path, tmp_path: Path) -> None:
    """A complete run, asked again with an empty store and no money, keeps its scores and explanations."""
    run = tmp_path / "run"
    assert command("run", *arguments(place, run, *FEW, *MODELS)) == 0
    record = json.loads((run / "manifest.json").read_text())
    before, said = values(run), [outcome.explanation for outcome in read_outcomes(run).outcomes]
    assert command("resume", run, "--answers", tmp_path / "empty.sqlite", "--max-cost", "0.03") == 4
    assert values(run) == before
    assert [outcome.explanation for outcome in read_outcomes(run).outcomes] == said
    after = json.loads((run / "manifest.json").read_text())
    assert all(after[name] == record[name] for name in ("status", "units", "failures"))


@pytest.mark.usefixtures("server")
def test_a_run_on_disk_ignores_the_file_of_the_working_directory(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`autointerp.toml` and the environment configure new runs only: a run's own limit stays."""
    run = tmp_path / "run"
    assert command("run", *arguments(place, run, *FEW, *MODELS, "--max-cost", "0.001")) == 4
    (tmp_path / "autointerp.toml").write_text('max_cost = "50"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOINTERP_MAX_COST", "60")
    assert command("resume", run) == 4
    assert load_run(run).max_cost == "0.001"


@pytest.mark.usefixtures("server")
def test_the_store_of_answers_is_found_from_another_directory(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--answers` is saved as an absolute path, so `resume` elsewhere pays nothing again."""
    monkeypatch.chdir(tmp_path)
    assert command("run", *arguments(place, tmp_path / "run", *FEW, *MODELS, "--answers", "mine.sqlite")) == 0
    calls = bill(tmp_path / "bill.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command("resume", tmp_path / "run") == 0
    assert bill(tmp_path / "bill.jsonl") == calls


def test_a_run_that_computed_nothing_may_change(place: Path, tmp_path: Path) -> None:
    """A mistake found before the harvest leaves no directory that refuses the corrected command."""
    assert command("run", *arguments(place, tmp_path / "run", "--features", "0:9999")) == 2
    assert command("harvest", *arguments(place, tmp_path / "run", *FEW)) == 0


def test_a_changed_corpus_is_no_resumption(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command over other contents is refused, and the harvest of the old ones stays usable."""
    lines = (place / "corpus.jsonl").read_text().splitlines()
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(lines))
    flags = arguments(place, tmp_path / "run", *FEW, "--corpus", text)
    assert command("harvest", *flags) == 0
    text.write_text("\n".join([*lines[5:], json.dumps({"text": "Other words altogether. " * 40})]))
    assert command("run", *flags) == 1
    assert "was harvested from another" in capsys.readouterr().err
    assert command("resume", tmp_path / "run") == 0


def test_sessions_of_one_run_add_up_their_seconds(place: Path, tmp_path: Path) -> None:
    """The manifest's wall time of a stage is that of all sessions."""
    flags = arguments(place, tmp_path / "run", *FEW)
    spent = []
    for _ in range(2):
        assert command("run", *flags) == 0
        spent.append(json.loads((tmp_path / "run" / "manifest.json").read_text())["seconds"])
    assert spent[1]["evaluate"] > spent[0]["evaluate"]
    assert spent[1]["harvest"] == spent[0]["harvest"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "--out", "file/run"), 2, "Cannot write into file/run"),
        (("run", "--config", "."), 2, "The configuration file . cannot be read"),
        (("run", "--config", "nowhere.toml"), 2, "nowhere.toml cannot be read"),
        (("train-subject", "--width", "130"), 2, "--width 130 is not a multiple"),
    ],
)
def test_a_path_or_size_that_cannot_be_is_said(
    words: tuple[str, ...],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One message, no traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert command(*words) == code
    assert said in capsys.readouterr().err


def test_a_subject_is_trained_on_very_little_text(tmp_path: Path) -> None:
    """Where too few tokens repeat to tell their share of the variance, the log says null, not NaN."""
    (tmp_path / "text.jsonl").write_text(
        "\n".join(
            json.dumps({"text": f"{i} {i * 7919 % 1009} words, each of them another: {i**3}."}) for i in range(40)
        )
    )
    small = ("--width", "16", "--neurons", "16", "--context", "16", "--vocabulary", "300", "--tokens", "2k")
    assert command("train-subject", "--corpus", tmp_path / "text.jsonl", "--out", tmp_path / "subject", *small) == 0
    log = json.loads((tmp_path / "subject" / "training.json").read_text())
    assert all(line["token_share"] is None or 0 <= line["token_share"] <= 1 for line in log)
