"""Whether a dictionary belongs to a subject and a site."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sae.architectures.relu import ReluAutoencoder
from sae.belonging import check_belongs, doubt
from sae.dictionary import DictionaryInfo
from sae.errors import UserError
from sae.subject import Subject
from tests.sae.tiny import NEURONS, WIDTH, gpt2


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Two blocks of GPT-2."""
    return gpt2(tmp_path_factory.mktemp("gpt2"))


def _info(site: str | None = None, subject: str | None = None, d_in: int = WIDTH) -> DictionaryInfo:
    return DictionaryInfo(d_in, 3, site, subject, "")


@pytest.mark.parametrize(
    ("stated", "site"),
    [
        (None, "blocks.1.hook_resid_pre"),
        ("blocks.1.hook_resid_pre", "blocks.1.hook_resid_pre"),
        ("blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"),
        ("blocks.1.hook_resid_pre", "transformer.h.0"),
        ("h.0", "blocks.0.hook_resid_post"),
        ("h.1.mlp", "blocks.1.hook_mlp_out"),
    ],
)
def test_names_of_one_place_are_equal(subject: Subject, stated: str | None, site: str) -> None:
    """Between two blocks, TransformerLens's names and module paths, with and without their prefix."""
    check_belongs(subject, subject.site(site), _info(stated))


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (_info("blocks.0.hook_resid_pre"), "Use --site blocks.0.hook_resid_pre"),
        (_info("blocks.1.hook_mlp_out"), "Use --site blocks.1.hook_mlp_out"),
        (_info("blocks.1.attn.hook_z"), "does not have"),
        (_info("blocks.7.hook_resid_pre"), "does not have"),
        (_info(d_in=NEURONS), "Sites that give 20: blocks.1.mlp.hook_post"),
        (_info(d_in=77), "belongs to another model"),
        (_info("blocks.1.hook_resid_pre", d_in=77), "belongs to another model"),
    ],
)
def test_a_wrong_site_or_width_is_refused_with_what_would_fit(
    subject: Subject, info: DictionaryInfo, message: str
) -> None:
    """The message names the flag or the sites that fit."""
    with pytest.raises(UserError, match=message):
        check_belongs(subject, subject.site("blocks.1.hook_resid_pre"), info)


@pytest.mark.parametrize(
    ("name", "stated", "fits"),
    [
        ("gpt2", "gpt2-small", True),
        ("openai-community/gpt2", "gpt2-small", True),
        ("mistralai/Mistral-7B-v0.1", "mistral-7b", True),
        ("EleutherAI/pythia-70m", "gpt2-small", False),
        ("openai-community/gpt2", "EleutherAI/pythia-70m", False),
        ("/models/mine", "gpt2-small", True),
        ("gpt2", "my own model", True),
    ],
)
def test_another_model_is_refused_where_both_are_named_on_the_hub(
    subject: Subject, name: str, stated: str, fits: bool
) -> None:
    """Ids are compared without their owner; a directory says nothing."""
    named, site = replace(subject, name=name), subject.site("blocks.0.hook_resid_pre")
    if fits:
        check_belongs(named, site, _info(subject=stated))
    else:
        with pytest.raises(UserError, match="Use --subject"):
            check_belongs(named, site, _info(subject=stated))


def test_a_reconstruction_that_is_not_as_stated_says_so() -> None:
    """An unfolded scale gives itself away; the same weights with the scale are in order."""
    identity = torch.cat([torch.eye(4), -torch.eye(4)])
    sae = ReluAutoencoder(identity, torch.zeros(8), identity, torch.zeros(4), pre_encoder_bias=True)
    sample = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    stated = replace(_info(), explained_variance=0.99)
    assert doubt(sae, stated, sample, "cpu") is None
    shrunk = replace(sae, W_dec=0.5 * identity)
    assert "explains 0.75 of the variance of 500 vectors of the site; its files say 0.99" in str(
        doubt(shrunk, stated, sample, "cpu")
    )
    assert doubt(shrunk, _info(), sample, "cpu") is None
    assert "worse than their mean" in str(doubt(replace(sae, W_dec=3 * identity), _info(), sample, "cpu"))
    assert doubt(sae, stated, np.ones((5, 4), dtype=np.float32), "cpu") is None
