"""The `population` protocol from the command line, and after the subject has gone from memory."""

from pathlib import Path

import pytest

from autointerp import stages
from autointerp.activations.source import StoreSource
from autointerp.activations.store import Store
from tests.runs import arguments, command, values

pytestmark = pytest.mark.usefixtures("no_figures")
RUN = ("--features", "0:6", "--protocol", "population", "--baseline", "neurons")


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run, which the tests here look at and do again."""
    out = tmp_path_factory.mktemp("population") / "run"
    assert command("run", *arguments(place, out, *RUN)) in (0, 3)
    return out


def test_a_run_scores_and_a_resume_comes_to_the_same(done: Path) -> None:
    """Scores exist, and the subject that a resume loads when it is needed gives the same ones."""
    before = (done / "scores.parquet").read_bytes()
    rows = [row for row in values(done) if row["measure"] == "pearson" and row["value"] is not None]
    assert rows
    for row in rows:
        assert -1 <= row["low"] <= row["value"] <= row["high"] <= 1  # type: ignore[operator]
        assert 0 < row["items"] <= 120  # type: ignore[operator]
    assert command("resume", done) in (0, 3)
    assert (done / "scores.parquet").read_bytes() == before


def test_a_source_without_a_subject_is_refused_before_anything_is_asked(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run says which protocol cannot be scored, and why."""
    monkeypatch.setattr(stages, "stored", lambda _, directory: StoreSource(Store.open(directory / "harvest")))
    assert command("resume", done) == 1
    said = capsys.readouterr().err
    assert "population cannot be scored here" in said
    assert "subject is not loaded" in said
