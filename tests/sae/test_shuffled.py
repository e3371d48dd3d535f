"""A subject with its weights shuffled: the same numbers, nothing learnt."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sae import PRETRAINED
from sae.features import stream_units
from sae.shuffled import recipe_like, shuffled_subject
from sae.subject import Subject
from tests.sae.tiny import gpt2, llama, own_windows


@pytest.mark.parametrize("make", [gpt2, llama], ids=["gpt2", "llama"])
def test_every_matrix_keeps_its_entries_and_loses_their_order(make: Callable[[Path], Subject], tmp_path: Path) -> None:
    """Matrices, embeddings included, have the same multiset of entries in another order; gains and biases stay."""
    subject = make(tmp_path)
    before = {name: tensor.clone() for name, tensor in subject.model.named_parameters()}
    after = dict(shuffled_subject(subject, seed=0).model.named_parameters())
    assert before.keys() == after.keys()
    assert any("emb" in name or "wte" in name for name in before)
    for name, tensor in before.items():
        assert torch.equal(tensor, dict(subject.model.named_parameters())[name])
        assert torch.equal(tensor.flatten().sort().values, after[name].flatten().sort().values)
        if tensor.ndim > 1:
            assert not torch.equal(tensor, after[name])
        else:
            assert torch.equal(tensor, after[name])


def test_the_seed_decides_and_what_was_learnt_is_lost(tmp_path: Path) -> None:
    """The same seed gives the same subject, another one another; text that the subject predicts is none of theirs."""
    subject = gpt2(tmp_path)
    first, again, other = (shuffled_subject(subject, seed) for seed in (0, 0, 1))
    windows = own_windows(subject, 8)
    assert first.loss(windows) == again.loss(windows) != other.loss(windows)
    assert first.loss(windows) > subject.loss(windows) + 0.5
    assert len({subject.digest, first.digest, other.digest}) == 3
    assert first.digest == again.digest


def test_places_may_lie_in_different_subjects(tmp_path: Path) -> None:
    """The stream gives each place the activations of its own subject."""
    from sae.baselines import Neurons

    subject = gpt2(tmp_path)
    shuffled = shuffled_subject(subject, seed=0)
    site = subject.site("blocks.0.mlp.hook_post")
    windows, neurons = own_windows(subject, 3), Neurons(site.width, signed=site.signed)
    places = {"own": (site, neurons), "shuffled": (shuffled.site(site.name), neurons)}
    ((_, both),) = stream_units(subject, places, windows, subjects={"shuffled": shuffled})
    for name, alone in (("own", subject), ("shuffled", shuffled)):
        ((_, blocks),) = stream_units(alone, {"n": (alone.site(site.name), neurons)}, windows)
        np.testing.assert_array_equal(both[name].value, blocks["n"].value)
    assert not np.array_equal(both["own"].value, both["shuffled"].value)


def test_the_recipe_is_the_dictionarys_own_where_its_files_say_it(tmp_path: Path) -> None:
    """The embedded autoencoder names its recipe; one that names none gets the default."""
    details = json.loads((PRETRAINED / "sae" / "cfg.json").read_text())["metadata"]["training_architecture_details"]
    recipe = recipe_like(PRETRAINED / "sae", d_sae=64, seed=5)
    assert (recipe.name, recipe.tokens, recipe.learning_rate) == ("bricken-2023", details["tokens"], 0.002)
    assert (recipe.d_sae, recipe.seed, recipe.resample_at) == (64, 5, ())
    assert recipe_like(tmp_path, d_sae=64, seed=5).d_sae == 64
