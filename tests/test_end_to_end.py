"""The commands as a user runs them, on tiny subjects that the tests make."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from autointerp.report.tables import read_outcomes
from tests.runs import MODELS, SITE, arguments, bill, command, values
from tests.sae.tiny import llama_folder


def test_a_trained_autoencoder_is_explained_and_compared_with_figures(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run` explains every feature and neuron, writes all results and prints the comparison."""
    assert command("run", *arguments(place, tmp_path / "run", "--features", "0:32", "--baseline", "neurons")) == 0
    shown = capsys.readouterr().out
    assert "features - neurons" in shown
    run = tmp_path / "run"
    for name in ("summary.json", "summary.md", "scores.parquet", "explanations.parquet", "config.toml"):
        assert (run / name).stat().st_size > 0
    for figure in ("score_distribution", "score_by_interval", "score_by_density", "density_histogram"):
        assert all((run / "figures" / f"{figure}.{suffix}").exists() for suffix in ("png", "svg", "csv"))
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert {"subject", "corpus", "prompts", "dictionaries"} <= set(manifest["content"])
    assert len(read_outcomes(run).outcomes) == manifest["units"]["ended"] == manifest["units"]["asked"]


@pytest.mark.usefixtures("no_figures")
def test_every_stage_is_its_own_command_and_gives_the_same_numbers(place: Path, tmp_path: Path) -> None:
    """harvest, explain, score, compare, report and show over one directory equal `run`."""
    flags = ("--features", "random:12", "--baseline", "neurons", "--baseline", "random")
    assert command("run", *arguments(place, tmp_path / "whole", *flags)) == 0
    staged = tmp_path / "staged"
    assert command("harvest", *arguments(place, staged, *flags)) == 0
    for stage in ("explain", "score", "compare", "report"):
        assert command(stage, staged) == 0
    assert values(staged) == values(tmp_path / "whole")
    assert command("show", staged, read_outcomes(staged).outcomes[0].unit.arm + ":1") in (0, 1)


@pytest.mark.usefixtures("no_figures")
def test_matched_neurons_and_another_autoencoder_are_baselines(place: Path, tmp_path: Path) -> None:
    """`neurons-matched` and `sae:PATH` are arms like any other."""
    flags = ("--features", "0:16", "--baseline", "neurons-matched", "--baseline", f"sae:{place / 'sae'}")
    assert command("run", *arguments(place, tmp_path / "run", *flags)) == 0
    arms = {outcome.unit.arm for outcome in read_outcomes(tmp_path / "run").outcomes}
    assert arms == {"features", "neurons-matched", f"sae:{place / 'sae'}"}


@pytest.mark.usefixtures("no_figures")
def test_both_tails_of_gated_neurons_are_units(place: Path, tmp_path: Path) -> None:
    """A Llama-family subject with SiLU neurons: an autoencoder is trained and run, each neuron has two tails."""
    subject = llama_folder(tmp_path / "llama", context=32)
    own = ["--subject", subject, "--site", SITE, "--context", "32", "--corpus", place / "corpus.jsonl"]
    assert command("train", *own, "--tokens", "10k", "--d-sae", "32", "--out", tmp_path / "sae") == 0
    assert command("run", *own, "--sae", tmp_path / "sae", "--tokens", "20k", "--out", tmp_path / "run") == 0
    names = {outcome.unit.name for outcome in read_outcomes(tmp_path / "run").outcomes if outcome.unit.arm == "neurons"}
    assert {name[-1] for name in names} == {"+", "-"}


@pytest.mark.usefixtures("server", "no_figures")
def test_a_second_run_calls_nobody_and_gives_the_same_scores(place: Path, tmp_path: Path) -> None:
    """Answers are paid for once; no key reaches any file."""
    flags = arguments(place, tmp_path / "run", "--features", "0:6", "--baseline", "neurons", *MODELS)
    assert command("run", *flags) == 0
    calls, scores = bill(tmp_path / "bill.jsonl"), values(tmp_path / "run")
    assert calls > 0
    assert command("run", *flags) == 0
    assert bill(tmp_path / "bill.jsonl") == calls
    assert values(tmp_path / "run") == scores
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"secret-" not in path.read_bytes()


@pytest.mark.usefixtures("server", "no_figures")
def test_a_dry_run_counts_and_sends_nothing(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--dry-run` prints calls, tokens and money of the rendered prompts."""
    assert command("run", *arguments(place, tmp_path / "run", "--features", "0:6", *MODELS, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert "Nothing was sent" in shown
    assert "simulate" in shown
    assert bill(tmp_path / "bill.jsonl") == 0


@pytest.mark.usefixtures("server", "no_figures")
def test_the_budget_holds_and_more_money_goes_on(place: Path, tmp_path: Path) -> None:
    """A run that reaches its budget exits 4 with what it has; `resume --max-cost` finishes it."""
    flags = arguments(place, tmp_path / "run", "--features", "0:6", *MODELS)
    assert command("run", *flags, "--max-cost", "0.10", "--concurrency", "2") == 4
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "BudgetReached"
    assert command("resume", tmp_path / "run", "--max-cost", "+5") == 0


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--sae", "nowhere"), 1, "nowhere"),
        (("--subject", "nowhere/at/all"), 1, "nowhere/at/all"),
        (("--corpus", "nowhere.txt"), 1, "nowhere.txt"),
        (("--features", "0:9999"), 2, "48 features"),
        (("--baseline", "neuron"), 2, "Did you mean neurons?"),
        (("--site", "blocks.0.hook_resid_post"), 1, "Use --site blocks.0.mlp.hook_post"),
        (("--explainer", "antropic/x", "--simulator", "openai/x"), 2, "anthropic"),
        (("--explainer", "openai/x"), 2, "--simulator"),
        (("--explainer", "openai/gpt-6-luna", "--simulator", "openai/gpt-6-luna"), 1, "OPENAI_API_KEY"),
        (("--dtype", "float8"), 2, "Did you mean float32?"),
    ],
)
def test_bad_input_gets_one_clear_message(
    flags: Sequence[str], code: int, said: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's mistake exits 1 or 2 with a message that names it, and no traceback."""
    assert command("run", *arguments(place, tmp_path / "run", *flags)) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_a_directory_with_other_numbers_is_not_overwritten(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same directory with another seed is refused, and the difference is shown."""
    assert command("harvest", *arguments(place, tmp_path / "run", "--features", "0:6")) == 0
    assert command("run", *arguments(place, tmp_path / "run", "--features", "0:6", "--seed", "1")) == 1
    assert "seed: 0 there, 1 here" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["resume", "explain", "score", "compare", "report"])
def test_a_missing_results_directory_is_named(stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every stage says what it was given and what it needs."""
    assert command(stage, tmp_path / "nothing") == 1
    assert "nothing is no results directory" in capsys.readouterr().err
