"""The recipe of the demonstration subject learns, and its measures are what they say."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from sae.corpus.document import Document
from sae.corpus.windows import Windows, cut_windows
from sae.errors import UserError
from sae.pretrain import (
    BOS,
    PretrainLog,
    SubjectRecipe,
    _ChunkedCrossEntropy,
    _schedule,
    build_subject,
    evaluate,
    language_loss,
    token_share,
    train_subject,
    train_tokenizer,
)

DOCUMENTS = [Document("d", "the cat sat on the mat and the dog sat on the cat. " * 80, "files")]
RECIPE = SubjectRecipe(
    vocabulary=270, width=16, neurons=32, heads=2, context=24, tokens=12_000, batch=8, learning_rate=1e-2
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads cost more than they give on matrices this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Trained on one sentence."""
    return train_tokenizer(DOCUMENTS, RECIPE.vocabulary)


@pytest.fixture(scope="module")
def windows(tokenizer: PreTrainedTokenizerFast) -> Windows:
    """The sentence, over and over."""
    return cut_windows(DOCUMENTS, tokenizer, RECIPE.context)


def test_the_tokenizer_takes_any_text(tokenizer: PreTrainedTokenizerFast) -> None:
    """Byte-level: nothing is unknown, and BOS is at hand."""
    text = " שלום,\tworld 🙂\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == RECIPE.vocabulary
    assert tokenizer.bos_token == BOS


def test_the_subject_learns_and_is_saved(tokenizer: PreTrainedTokenizerFast, windows: Windows, tmp_path: Path) -> None:
    """On a text that repeats itself the loss falls far, and what is saved is what was trained."""
    logs = list[PretrainLog]()
    model = train_subject(RECIPE, tokenizer, windows, windows, tmp_path, log_every=3_000, on_log=logs.append)
    untrained = build_subject(RECIPE, tokenizer)
    assert language_loss(untrained, windows).item() == pytest.approx(math.log(270), abs=0.3)
    assert logs[-1].validation_loss < 1
    assert logs[-1].validation_loss < logs[0].validation_loss
    assert [log.tokens for log in logs] == sorted({log.tokens for log in logs})
    assert logs[-1].tokens >= RECIPE.tokens
    assert 3 <= len(logs) <= 5
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(language_loss(loaded, windows), language_loss(model, windows))
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == RECIPE.vocabulary


def test_training_can_be_repeated(tokenizer: PreTrainedTokenizerFast, windows: Windows, tmp_path: Path) -> None:
    """The same seed gives the same weights."""
    recipe = SubjectRecipe(
        vocabulary=270, width=16, neurons=32, heads=2, context=24, tokens=1_000, batch=4, seed=3
    )  # fmt: skip
    models = [train_subject(recipe, tokenizer, windows, windows, tmp_path / str(at)) for at in range(2)]
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.get_float32_matmul_precision() == "highest"


def test_padding_is_no_target(tokenizer: PreTrainedTokenizerFast) -> None:
    """A short window's loss is that of its real tokens alone."""
    text = "a zebra vexed a fox"
    long, short = (cut_windows([Document("d", text, "files")], tokenizer, context) for context in (40, 24))
    ids = tokenizer(text)["input_ids"]
    assert 16 <= len(ids) <= 23
    model = build_subject(SubjectRecipe(vocabulary=270, width=16, neurons=32, heads=2, context=40), tokenizer)
    assert language_loss(model, long).item() == pytest.approx(language_loss(model, short).item(), rel=1e-5)


def test_evaluation_weighs_every_token_alike(tokenizer: PreTrainedTokenizerFast, windows: Windows) -> None:
    """The loss does not depend on how the windows are batched, and the hook is gone afterwards."""
    model = build_subject(RECIPE, tokenizer)
    (one, share), (other, same) = (evaluate(model, windows, batch=batch) for batch in (7, 64))
    assert one == pytest.approx(other, rel=1e-5)
    assert one == pytest.approx(language_loss(model, windows).item(), rel=1e-5)
    assert share == pytest.approx(same, abs=1e-5)
    assert not model.get_submodule("transformer.h.0.mlp.act")._forward_hooks


@pytest.mark.parametrize("empty", ["train", "validation"])
def test_an_empty_split_is_refused(
    tokenizer: PreTrainedTokenizerFast, windows: Windows, tmp_path: Path, empty: str
) -> None:
    """There is nothing to train or to validate on."""
    none = windows.select(np.zeros(len(windows), dtype=np.bool_))
    train, validation = (none, windows) if empty == "train" else (windows, none)
    with pytest.raises(UserError, match=f"The {empty} split has no windows"):
        train_subject(RECIPE, tokenizer, train, validation, tmp_path)


def test_a_loss_that_is_not_finite_stops(tokenizer: PreTrainedTokenizerFast, windows: Windows, tmp_path: Path) -> None:
    """An absurd learning rate is a message, not a broken model."""
    recipe = SubjectRecipe(
        vocabulary=270, width=16, neurons=32, heads=2, context=24, tokens=20_000, batch=8, learning_rate=1e30
    )
    with pytest.raises(UserError, match=r"The loss is (nan|inf) at step"):
        train_subject(recipe, tokenizer, windows, windows, tmp_path)


@given(n=st.sampled_from([1, 5, 256, 257, 600]), scale=st.sampled_from([1.0, 30.0]), seed=st.integers(0, 99))
def test_the_chunked_cross_entropy_is_the_ordinary_one(n: int, scale: float, seed: int) -> None:
    """Value and gradients equal those of torch over whole logits, below, at and above a chunk's size."""
    rng = torch.Generator().manual_seed(seed)
    hidden = (torch.randn(n, 6, generator=rng, dtype=torch.float64) * scale).requires_grad_()
    weight = torch.randn(11, 6, generator=rng, dtype=torch.float64).requires_grad_()
    targets = torch.randint(11, (n,), generator=rng)
    ours = _ChunkedCrossEntropy.apply(hidden, weight, targets)
    theirs = torch.nn.functional.cross_entropy(hidden @ weight.T, targets)
    torch.testing.assert_close(ours, theirs)
    got = torch.autograd.grad(3 * ours, (hidden, weight))
    torch.testing.assert_close(got, torch.autograd.grad(3 * theirs, (hidden, weight)))


def test_token_share_of_token_detectors_is_one() -> None:
    """A pure function of the token is explained by it, whatever the other neurons do in scale."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(50, size=5_000)
    assert token_share(rng.random((50, 8))[tokens], tokens) == pytest.approx(1, abs=1e-9)


def test_token_share_of_noise_is_zero() -> None:
    """Thanks to the degrees of freedom, many rare tokens do not explain noise."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(100, size=3_000)
    assert token_share(rng.random((3_000, 64)), tokens) == pytest.approx(0, abs=0.01)


def test_token_share_of_a_mixture_is_the_share_of_variance() -> None:
    """Half token, half context: one half."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(200, size=20_000)
    values = rng.standard_normal((200, 64))[tokens] + rng.standard_normal((20_000, 64))
    assert token_share(values, tokens) == pytest.approx(0.5, abs=0.02)


def test_rare_tokens_do_not_enter() -> None:
    """Below 20 occurrences a token is left out, and with fewer than two tokens nothing is known."""
    tokens = np.repeat(np.arange(10), 19)
    assert token_share(np.random.default_rng(3).random((190, 4)), tokens) is None


def test_the_schedule_warms_up_and_ends_near_zero() -> None:
    """It rises over the first 2 % to the peak and falls by a cosine."""
    rates = [_schedule(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 20)
    assert max(rates) == rates[20] == pytest.approx(1)
    assert np.all(np.diff(rates[20:]) < 0)
    assert rates[-1] < 1e-5
