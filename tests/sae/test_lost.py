"""A dictionary of a sweep that diverges, and the others, which go on."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from sae.architectures.weights import Trained
from sae.errors import UserError
from sae.trainee import Trainee, TrainLog
from sae.trainer import sweep_on
from tests.sae import tiny  # noqa: F401  one thread
from tests.sae.resumable import RECIPES, rows

GOOD = {name: RECIPES[name] for name in ("l1", "topk")}
WILD = dataclasses.replace(RECIPES["l1"], learning_rate=100.0, learning_rate_warmup=1.0)
ALL = {**GOOD, "wild": WILD}


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Trained]:
    """The sweep of those that do not diverge."""
    return sweep_on(rows, GOOD, tmp_path_factory.mktemp("without"))


def _check_equal(found: Mapping[str, Trained], expected: Mapping[str, Trained]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name].W_dec, expected[name].W_dec) for name in found)


def test_the_others_end_as_without_it(tmp_path: Path, without: Mapping[str, Trained]) -> None:
    """Bit for bit. It has a log and no autoencoder, and whoever resumes the run is told again."""
    told = list[tuple[str, str]]()
    found = sweep_on(rows, ALL, tmp_path, on_lost=lambda *each: told.append(each))
    _check_equal(found, without)
    ((name, reason),) = told
    assert name == "wild"
    assert "The training diverges (wild): the error is" in reason
    assert "Lower the learning rate" in reason
    assert (tmp_path / "wild" / "metrics.jsonl").exists()
    assert not (tmp_path / "wild" / "cfg.json").exists()
    _check_equal(sweep_on(rows, ALL, tmp_path, on_lost=lambda *each: told.append(each), resume=True), without)
    assert told == [(name, reason)] * 2


def test_a_stopped_run_goes_on_without_it(tmp_path: Path, without: Mapping[str, Trained]) -> None:
    """The checkpoint holds the others and says what was lost."""
    told, again = list[str](), list[str]()

    def stop(log: TrainLog) -> None:
        if told and log.tokens > 0.7 * WILD.tokens:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep_on(rows, ALL, tmp_path, on_log=stop, on_lost=lambda name, _: told.append(name))
    (place,) = tmp_path.glob("checkpoint-*")
    assert list(json.loads((place / "state.json").read_text())["lost"]) == ["wild"]
    found = sweep_on(rows, ALL, tmp_path, on_lost=lambda name, _: again.append(name), resume=True)
    assert told == again == ["wild"]
    _check_equal(found, without)


def test_a_loss_that_nobody_read_is_found_before_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, between two log lines: the checkpoint is written without that dictionary."""
    advance, told = Trainee.advance, list[str]()

    def unread(trainee: Trainee, **given: torch.Tensor) -> TrainLog | None:
        trainee._at_once = False
        if trainee.name == "topk" and trainee.done == 5:
            trainee.step.failed.fill_(1.0)
        return advance(trainee, **given)

    monkeypatch.setattr(Trainee, "advance", unread)
    recipes = {name: dataclasses.replace(each, log_every=10**9, checkpoint_every=8 * 64) for name, each in GOOD.items()}
    found = sweep_on(rows, recipes, tmp_path, on_lost=lambda _, reason: told.append(reason))
    assert list(found) == ["l1"]
    (reason,) = told
    assert "no longer finite at step 8" in reason


def test_the_last_one_is_an_error(tmp_path: Path) -> None:
    """Where none is left to go on."""
    both = {"wild": WILD, "wilder": dataclasses.replace(WILD, learning_rate=1000.0)}
    told = list[str]()
    with pytest.raises(UserError, match="The training diverges"):
        sweep_on(rows, both, tmp_path, on_lost=lambda name, _: told.append(name))
    assert len(told) < len(both)
