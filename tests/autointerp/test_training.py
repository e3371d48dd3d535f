"""The `train` command: from flags to recipes, and a sweep end to end."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from autointerp.config import TrainConfig
from autointerp.report.measured import WORDS
from autointerp.training import recipes_of
from sae.config import L1, TopK
from sae.errors import UserError
from sae.formats import load_dictionary
from sae.metrics import DictionaryMetrics
from sae.pretrain import PretrainLog
from sae.step import fastest_precision
from sae.trainee import Diverged, Trainee, TrainLog
from sae.truth import TruthMetrics


def test_one_dictionary_lies_in_the_directory_itself() -> None:
    """Without a second value of anything, there is one recipe, without a name, with the preset's own values."""
    recipes = recipes_of(TrainConfig(recipe="topk", tokens="5k", seed=4, learning_rate=0.5, precision="medium"))
    (recipe,) = recipes.values()
    assert list(recipes) == [""]
    assert isinstance(recipe.sparsity, TopK)
    assert (recipe.d_sae, recipe.tokens, recipe.seed, recipe.learning_rate) == (4096, 5000, 4, 0.5)
    assert recipe.precision == "medium"


def test_the_default_precision_is_the_fastest_here() -> None:
    """The one that this machine has; a GPU, on which bf16 was not measured, gets medium."""
    (recipe,) = recipes_of(TrainConfig(device="cpu")).values()
    assert recipe.precision == fastest_precision("cpu")
    assert fastest_precision("cuda") == "medium"


def test_counts_are_whole() -> None:
    """What cannot be a number of things is refused with the flag's name."""
    (recipe,) = recipes_of(
        TrainConfig(batch_tokens="1k", pool_batches=3, checkpoint_every="2.5k", tokens="10k")
    ).values()
    assert (recipe.batch, recipe.pool_batches, recipe.checkpoint_every, recipe.tokens) == (1000, 3, 2500, 10_000)
    with pytest.raises(UserError, match="--k cannot be"):
        recipes_of(TrainConfig(recipe="topk", k="2.5"))


def test_several_values_give_every_combination() -> None:
    """Names say what varies and nothing else; a value given twice counts once."""
    recipes = recipes_of(TrainConfig(d_sae="512, 2k,512", l1="0.003,0.01", seeds="7"))
    assert list(recipes) == [f"d_sae_{d}-l1_{l1}" for d in (512, 2000) for l1 in (0.003, 0.01)]
    for recipe in recipes.values():
        assert isinstance(recipe.sparsity, L1)
        assert recipe.seed == 7
    assert {recipe.d_sae for recipe in recipes.values()} == {512, 2000}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_sae": "512,"}, "--d-sae cannot be ''"),
        ({"l1": "0"}, "--l1 cannot be '0'"),
        ({"l1": "nan"}, "--l1 cannot be 'nan'"),
        ({"seeds": "-1"}, "--seeds cannot be '-1'"),
        ({"k": "8"}, "bricken-2023 has no field 'k'"),
        ({"recipe": "topk", "k": "5000"}, "k is 5000"),
    ],
)
def test_values_that_cannot_be_are_refused(settings: dict[str, str], message: str) -> None:
    """Each names its flag or its field."""
    with pytest.raises(UserError, match=message):
        recipes_of(TrainConfig(**settings))  # type: ignore[arg-type]


def test_a_sweep_end_to_end(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory per combination, each a dictionary with its metrics; the table has a column for each."""
    from tests.runs import SITE, command

    own = ("--subject", place / "subject", "--site", SITE, "--corpus", place / "corpus.jsonl", "--context", "32")
    flags = ("--recipe", "batchtopk", "--d-sae", "16,24", "--k", "4", "--tokens", "10k", "--out", tmp_path / "sae")
    assert command("train", *own, *flags, "--format", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == ["d_sae_16", "d_sae_24"]
    for name, values in shown.items():
        assert load_dictionary(tmp_path / "sae" / name)[1].n_units == int(name.removeprefix("d_sae_"))
        assert json.loads((tmp_path / "sae" / name / "metrics.json").read_text())["l0"] == values["l0"] > 0
    assert command("train", *own, *flags) == 1
    assert "already holds an autoencoder" in capsys.readouterr().err
    assert command("train", *own, *flags, "--resume", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == shown


def test_planted_vectors_are_trained_on_and_what_was_found_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No subject and no corpus: a sweep on planted vectors, measured against them, each beside its weights."""
    from tests.runs import command

    trained = command(
        "train", "--subject", "synthetic:hierarchical:d=8,features=10,active=2", "--recipe", "topk", "--d-sae", "10,12",
        "--k", "2", "--tokens", "20k", "--out", tmp_path / "sae", "--format", "json",
    )  # fmt: skip
    assert trained == 0
    printed = json.loads(capsys.readouterr().out)
    for name in ("d_sae_10", "d_sae_12"):
        dictionary, info = load_dictionary(tmp_path / "sae" / name)
        saved = json.loads((tmp_path / "sae" / name / "metrics.json").read_text())
        assert (dictionary.d_in, info.subject) == (8, "synthetic:hierarchical:d=8,features=10,active=2")
        assert len(saved["f1_by_feature"]) == 10
        assert saved["mcc"] == printed[name]["mcc"]
        assert saved["l0"] == pytest.approx(2, abs=0.1)
        assert info.explained_variance == pytest.approx(1 - saved["fvu"])


def test_a_sweep_goes_on_without_what_diverges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are measured; the exit code and the last line tell that one is missing, after --resume too."""
    from tests.runs import command

    advance = Trainee.advance

    def fall(trainee: Trainee, **given: torch.Tensor) -> TrainLog | None:
        if trainee.name == "k_3":
            raise Diverged("The loss is no longer finite.")
        return advance(trainee, **given)

    monkeypatch.setattr(Trainee, "advance", fall)
    flags = ("--subject", "synthetic:zipf:d=8,features=10,active=2", "--recipe", "topk", "--d-sae", "10", "--k", "2,3")
    for resumed in ([], ["--resume"]):
        place = tmp_path / "sae"
        assert command("train", *flags, "--tokens", "5k", "--out", place, "--format", "json", *resumed) == 3
        shown = capsys.readouterr()
        assert list(json.loads(shown.out)) == ["k_2"]
        assert shown.err.endswith("There is no autoencoder k_3. The loss is no longer finite.\n")


def test_every_measure_has_words() -> None:
    """What `train` and `train-subject` print has no raw names."""
    fields = [field for kind in (DictionaryMetrics, TruthMetrics, PretrainLog) for field in dataclasses.fields(kind)]
    arrays = {"density", "density_counts", "f1_by_feature"}
    assert {field.name for field in fields} - arrays == set(WORDS)
