"""The trainer, on planted dictionaries and on a tiny subject."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from sae.config import TrainingRecipe
from sae.corpus.document import Document
from sae.corpus.windows import Windows, cut_windows
from sae.errors import UserError
from sae.formats import load_dictionary
from sae.pool import Rows
from sae.recipes import april_2024, batchtopk, bricken_2023, jumprelu, topk, training_recipe
from sae.rows import activation_rows, train
from sae.subject import Subject, load_subject
from sae.trainee import TrainLog, firing_rate
from sae.trainer import sweep_on, train_on

D_IN, PLANTED = 24, 32


def _planted() -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.nn.functional.normalize(torch.randn(PLANTED, D_IN, generator=generator), dim=1)


def _stream(directions: torch.Tensor, seed: int = 0) -> Rows:
    """Sums of on average 1.5 directions with weights between 0.5 and 1.5, without end."""

    def rows(start: int) -> Iterator[torch.Tensor]:
        for piece in itertools.count(start):
            generator = torch.Generator().manual_seed(1000 * seed + piece)
            fires = torch.rand(300, len(directions), generator=generator) < 1.5 / len(directions)
            yield (fires * (torch.rand(fires.shape, generator=generator) + 0.5)) @ directions

    return rows


@pytest.mark.parametrize(
    "recipe",
    [
        bricken_2023(d_sae=64, tokens=300 * 256, batch=256, l1=0.05, learning_rate=1e-2, pool_batches=8, seed=1),
        april_2024(d_sae=64, tokens=300 * 256, batch=256, l1=1.0, learning_rate=1e-2, pool_batches=8, seed=1),
        topk(d_sae=64, tokens=300 * 256, batch=256, k=2, learning_rate=1e-2, pool_batches=8, seed=1),
        batchtopk(d_sae=64, tokens=300 * 256, batch=256, k=2, learning_rate=1e-2, pool_batches=8, seed=1),
        jumprelu(
            d_sae=64,
            tokens=300 * 256,
            batch=256,
            l0=0.1,
            bandwidth=0.05,
            threshold=0.1,
            learning_rate=1e-2,
            pool_batches=8,
            seed=1,
        ),
    ],
    ids=lambda recipe: recipe.name,
)
def test_a_planted_dictionary_is_recovered(tmp_path: Path, recipe: TrainingRecipe) -> None:
    """Every planted direction has a decoder row near it: mean largest cosine above 0.95."""
    directions = _planted()
    logs: list[TrainLog] = []
    sae = train_on(_stream(directions), recipe, tmp_path, on_log=logs.append)
    cosine = (directions @ sae.directions().T).amax(1)
    assert cosine.mean() > 0.95
    assert torch.allclose(sae.directions().norm(dim=1), torch.ones(64), atol=1e-5)
    assert logs[-1].fvu < 0.2
    assert logs[-1].tokens == recipe.steps * recipe.batch


def _short(**changes: object) -> TrainingRecipe:
    sizes = {"d_sae": 16, "tokens": 640, "batch": 64, "pool_batches": 2, "log_every": 128, "checkpoint_every": 256}
    return training_recipe("bricken-2023", **(sizes | changes))


def test_what_is_saved_is_what_is_returned(tmp_path: Path) -> None:
    """The directory loads into the returned autoencoder, with its firing rates and facts beside it."""
    sae = train_on(_stream(_planted()), _short(), tmp_path)
    x = next(_stream(_planted(), seed=5)(0))
    loaded, info = load_dictionary(tmp_path)
    assert torch.equal(loaded.encode(x), sae.encode(x))
    assert (info.d_in, info.n_units) == (D_IN, 16)
    config = json.loads((tmp_path / "cfg.json").read_text())
    rates = 10 ** load_file(tmp_path / "sparsity.safetensors")["sparsity"]
    assert config["metadata"]["l0"] == pytest.approx(rates.sum().item(), rel=1e-4)
    assert config["metadata"]["training_architecture_details"]["name"] == "bricken-2023"


def test_metrics_have_the_names_of_saelens_and_the_values_of_the_log(tmp_path: Path) -> None:
    """One JSON line per log record, at the recipe's interval."""
    logs: list[TrainLog] = []
    train_on(_stream(_planted()), _short(), tmp_path, on_log=logs.append)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [log.tokens for log in logs] == [128, 256, 384, 512, 640]
    for log, line in zip(logs, lines, strict=True):
        assert line["details/n_training_samples"] == log.tokens
        assert line["losses/overall_loss"] == pytest.approx(line["losses/mse_loss"] + line["losses/l1_loss"])
        assert line["metrics/explained_variance"] == pytest.approx(1 - log.fvu)
        assert line["metrics/l0"] == log.l0
        assert line["sparsity/dead_features"] == log.dead


def test_the_same_seed_trains_the_same_autoencoder(tmp_path: Path) -> None:
    """Seeds decide the weights."""
    runs = [train_on(_stream(_planted()), _short(seed=s), tmp_path / str(i)) for i, s in enumerate((3, 3, 4))]
    assert torch.equal(runs[0].W_dec, runs[1].W_dec)
    assert not torch.equal(runs[0].W_dec, runs[2].W_dec)


def test_exactly_the_dead_units_are_resampled(tmp_path: Path) -> None:
    """Resampling after the last step changes the units that the log counts as dead, and no other."""
    changes = {"tokens": 64 * 40, "d_sae": 64, "l1": 0.5, "learning_rate": 1e-2, "dead_window": 0.25}
    logs: list[TrainLog] = []
    plain = train_on(_stream(_planted()), _short(**changes, resample_at=()), tmp_path / "a", on_log=logs.append)
    resampled = train_on(_stream(_planted()), _short(**changes, resample_at=(0.999,)), tmp_path / "b")
    changed = (plain.W_dec != resampled.W_dec).any(1)
    assert changed.sum() == logs[-1].dead > 0
    assert torch.equal(changed, (plain.W_enc != resampled.W_enc).any(1))
    assert not resampled.b_enc[changed].any()
    assert torch.equal(plain.b_enc[~changed], resampled.b_enc[~changed])


def test_the_learning_rate_warms_up_again_after_resampling(tmp_path: Path) -> None:
    """From the step after units were resampled, over the recipe's fraction of the run; else it is constant."""
    changes = {"tokens": 64 * 40, "d_sae": 64, "l1": 0.5, "dead_window": 0.25, "log_every": 64}
    logs: list[TrainLog] = []
    recipe = _short(**changes, learning_rate=1e-2, resample_at=(0.5,), resample_warmup=0.1)
    train_on(_stream(_planted()), recipe, tmp_path, on_log=logs.append)
    assert logs[19].dead > 0
    rates = [log.learning_rate / 1e-2 for log in logs]
    assert rates == pytest.approx([1.0] * 20 + [0.25, 0.5, 0.75] + [1.0] * 17)


def test_a_loss_that_is_not_finite_names_the_step_and_the_last_checkpoint(tmp_path: Path) -> None:
    """The run stops at the bad batch, and the checkpoint it names can be loaded."""

    def spoiled(start: int) -> Iterator[torch.Tensor]:
        for i, piece in enumerate(_stream(_planted())(start), start):
            yield piece if i < 3 else piece * torch.nan

    with pytest.raises(UserError, match=r"The loss is no longer finite at step \d+[\s\S]*checkpoint-\d+") as caught:
        train_on(spoiled, _short(tokens=3200), tmp_path)
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert str(checkpoint) in str(caught.value)
    sae, _ = load_dictionary(checkpoint)
    assert torch.isfinite(sae.directions()).all()
    assert not (tmp_path / "cfg.json").exists()


def test_an_interrupted_run_leaves_a_checkpoint(tmp_path: Path) -> None:
    """Ctrl-C saves the autoencoder as it is, then goes on as Ctrl-C."""

    def interrupt(log: TrainLog) -> None:
        if log.tokens >= 384:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_on(_stream(_planted()), _short(), tmp_path, on_log=interrupt)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-384"]
    assert load_dictionary(tmp_path / "checkpoint-384")[1].n_units == 16


def test_a_finished_directory_is_not_overwritten(tmp_path: Path) -> None:
    """A second run into the same directory is refused before anything is computed."""
    train_on(_stream(_planted()), _short(), tmp_path)
    with pytest.raises(UserError, match="already holds an autoencoder"):
        train_on(lambda start: iter(()), _short(), tmp_path)


def test_resuming_what_has_ended_gives_what_was_saved(tmp_path: Path) -> None:
    """Nothing is computed again; another recipe is refused with the difference."""
    trained = train_on(_stream(_planted()), _short(), tmp_path)
    again = train_on(lambda start: iter([torch.zeros(1, D_IN)]), _short(), tmp_path, resume=True)
    assert torch.equal(again.W_enc, trained.W_enc)
    with pytest.raises(UserError, match="seed was 0, now 5"):
        train_on(_stream(_planted()), replace(_short(), seed=5), tmp_path, resume=True)


def test_dictionaries_of_an_earlier_sweep_are_not_overwritten(tmp_path: Path) -> None:
    """A sweep that shares a name with one that has ended is refused."""
    sweep_on(_stream(_planted()), {"a": _short(), "b": _short()}, tmp_path)
    with pytest.raises(UserError, match="a already holds an autoencoder"):
        sweep_on(_stream(_planted()), {"a": _short(), "c": _short()}, tmp_path)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A random GPT-2 of width 8 with ReLU neurons, and a tokenizer of digits."""
    folder = tmp_path_factory.mktemp("subject")
    torch.manual_seed(0)
    vocabulary = {"<bos>": 0} | {str(i): i + 1 for i in range(15)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<bos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<bos>").save_pretrained(folder)
    config = GPT2Config(
        vocab_size=16,
        n_positions=16,
        n_embd=8,
        n_inner=12,
        n_head=2,
        n_layer=1,
        activation_function="relu",
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return load_subject(str(folder))


def _windows(subject: Subject, documents: int = 20) -> Windows:
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 15, 40))) for _ in range(documents)]
    return cut_windows([Document(str(i), text, "files") for i, text in enumerate(texts)], subject.tokenizer, 16)


def test_training_on_a_subject_end_to_end(tmp_path: Path, subject: Subject) -> None:
    """A dictionary of the site's width is trained and saved, with where it came from."""
    site, windows = subject.site("blocks.0.mlp.hook_post"), _windows(subject)
    sae = train(subject, site, windows, _short(), tmp_path)
    loaded, info = load_dictionary(tmp_path)
    assert loaded.d_in == sae.d_in == site.width == 12
    assert (info.site, info.subject) == ("blocks.0.mlp.hook_post", subject.name)
    metadata = json.loads((tmp_path / "cfg.json").read_text())["metadata"]
    assert (metadata["context_size"], metadata["prepend_bos"]) == (16, True)


def test_each_pass_over_the_windows_has_every_token_in_a_new_order(subject: Subject) -> None:
    """Two passes hold the same rows, BOS and padding left out, in orders that the seed decides."""
    windows, site = _windows(subject, documents=60), subject.site("blocks.0.mlp.hook_post")

    def two_passes(seed: int) -> list[torch.Tensor]:
        stream, passes = activation_rows(subject, site, windows, seed), []
        for _ in range(2):
            pieces = [next(stream)]
            while sum(map(len, pieces)) < windows.n_tokens:
                pieces.append(next(stream))
            passes.append(torch.cat(pieces))
        return passes

    first, second = two_passes(0)
    assert len(first) == len(second) == windows.n_tokens
    assert not torch.allclose(first, second)
    assert torch.allclose(first.sum(1).sort().values, second.sum(1).sort().values, atol=1e-5)
    assert torch.equal(first, two_passes(0)[0])
    with pytest.raises(UserError, match="no tokens"):
        next(activation_rows(subject, site, windows.select(np.arange(0)), 0))


def test_firing_rates_are_shares_of_rows(tmp_path: Path) -> None:
    """Each rate is the mean of the unit's firing over all rows, over more than one chunk."""
    sae = train_on(_stream(_planted()), _short(), tmp_path)
    x = torch.cat([next(_stream(_planted(), seed=i)(0)) for i in range(20)])
    assert torch.allclose(firing_rate(sae, x), (sae.encode(x) > 0).float().mean(0))
