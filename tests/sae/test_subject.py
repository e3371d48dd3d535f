"""Loading a subject, what it computes at a site, and what replacing that does to its loss."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from sae.corpus.windows import Windows
from sae.errors import UserError
from sae.subject import Subject, load_subject
from tests.sae.tiny import CONTEXT, byte_tokenizer, gpt2, gpt2_folder, random_windows, tokens_of


def test_loading_sets_evaluation_mode_without_gradients(small: Subject) -> None:
    """A loaded model drops nothing out and trains nothing."""
    assert not small.model.training
    assert not any(parameter.requires_grad for parameter in small.model.parameters())


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    """Weights stored as fp16 come out in the type asked for, with the values that were stored."""
    folder = gpt2_folder(tmp_path, dtype=torch.float16)
    stored = load_file(folder / "model.safetensors")["transformer.wte.weight"]
    weight = load_subject(str(folder)).model.get_input_embeddings().weight
    assert stored.dtype == torch.float16
    assert weight.dtype == torch.float32
    assert torch.equal(weight, stored.float())


def test_digest_follows_the_weights(tmp_path: Path) -> None:
    """The digest is the same for a copy elsewhere and another where one weight differs."""
    first = gpt2_folder(tmp_path / "a")
    shutil.copytree(first, tmp_path / "b")
    digest = load_subject(str(first)).digest
    assert load_subject(str(tmp_path / "b")).digest == digest
    weights = load_file(first / "model.safetensors")
    weights["transformer.wte.weight"][0, 0] += 1
    save_file(weights, first / "model.safetensors", metadata={"format": "pt"})
    assert load_subject(str(first)).digest != digest


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    """A directory without configuration or weights says which of them it lacks."""
    (gpt2_folder(tmp_path) / missing).unlink()
    with pytest.raises(UserError, match="lacks.*" + missing.removeprefix("model").replace(".", r"\.")):
        load_subject(str(tmp_path))


def test_a_lost_weight_is_an_error_not_a_random_matrix(tmp_path: Path) -> None:
    """A checkpoint without one of its matrices is refused and the matrix named."""
    folder = gpt2_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lm_head\.weight"):
        load_subject(str(folder))


@pytest.mark.parametrize(
    ("file", "content"), [("model.safetensors", "not weights"), ("config.json", "{"), ("tokenizer.json", "{")]
)
def test_malformed_files_are_user_errors(tmp_path: Path, file: str, content: str) -> None:
    """Rubbish in any file gives a message that names the directory."""
    (gpt2_folder(tmp_path) / file).write_text(content)
    with pytest.raises(UserError, match=tmp_path.name):
        load_subject(str(tmp_path))


def test_other_families_are_refused_with_the_supported_ones(tmp_path: Path) -> None:
    """A model type that we do not know says which we do."""
    folder = gpt2_folder(tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match=r"bert model\.\nSupported: gpt2, llama"):
        load_subject(str(folder))


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no/such/directory"])
def test_a_model_that_is_nowhere_is_a_user_error(name: str) -> None:
    """Without a network, a name that is neither a directory nor a cached model says so."""
    with pytest.raises(UserError, match=f"no directory {name}"):
        load_subject(name)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_name_the_site(tmp_path: Path, value: float) -> None:
    """A broken weight is reported where it shows."""
    subject = gpt2(tmp_path)
    with torch.no_grad():
        subject.model.transformer.h[0].mlp.c_fc.bias[3] = value
    site = subject.site("blocks.0.mlp.hook_post")
    with pytest.raises(UserError, match=r"blocks\.0\.mlp\.hook_post hold NaN or infinite"):
        subject.activations(site, tokens_of(random_windows(subject, 1)))


def test_huge_finite_activations_pass(tmp_path: Path) -> None:
    """Values whose sum overflows are still finite."""
    subject = gpt2(tmp_path)
    with torch.no_grad():
        subject.model.transformer.h[0].mlp.c_fc.bias[:] = 1e38
    values = subject.activations(subject.site("blocks.0.mlp.hook_post"), tokens_of(random_windows(subject, 1)))
    assert not torch.isfinite(values.sum())


def test_windows_that_do_not_fit_the_model(small: Subject) -> None:
    """Too long a context and a foreign token id are user errors, not index errors."""
    site = small.site("blocks.0.mlp.hook_post")
    with pytest.raises(UserError, match=f"{CONTEXT + 1} positions are too long"):
        small.activations(site, torch.zeros((1, CONTEXT + 1), dtype=torch.int64))
    with pytest.raises(UserError, match="Token id 258 is not in the vocabulary"):
        small.activations(site, torch.full((1, 4), small.vocabulary))


def test_rows_are_the_counted_positions(small: Subject) -> None:
    """BOS and padding are left out, the rest comes window by window."""
    windows, site = random_windows(small, 4), small.site("blocks.0.hook_mlp_out")
    whole = small.activations(site, tokens_of(windows))
    expected = torch.cat([whole[i, 1:n] for i, n in enumerate(windows.length)])
    assert torch.equal(small.rows(site, windows), expected)


def test_loss_is_the_model_s_own(small: Subject, gated: Subject) -> None:
    """Against Hugging Face's loss with padding marked as ignored; the batch size does not matter."""
    for subject in (small, gated):
        windows = random_windows(subject, 7)
        tokens = tokens_of(windows)
        labels = torch.where(torch.arange(CONTEXT) < torch.from_numpy(windows.length)[:, None], tokens, -100)
        theirs = float(subject.model(tokens, labels=labels).loss)
        assert subject.loss(windows) == pytest.approx(theirs, abs=1e-5)
        assert subject.loss(windows, batch=2) == pytest.approx(theirs, abs=1e-5)


def test_replacing_touches_counted_positions_only(small: Subject) -> None:
    """The replacement sees and changes neither BOS nor padding, on either side of a module."""
    windows = random_windows(small, 4)
    for name in ("blocks.0.hook_resid_pre", "blocks.0.mlp.hook_post"):
        site, seen = small.site(name), []

        def note(x: torch.Tensor, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            seen.append(x)
            return x

        assert small.loss(windows, site, note) == pytest.approx(small.loss(windows), abs=1e-6)
        assert torch.equal(torch.cat(seen), small.rows(site, windows))
    only_bos = Windows(windows.tokens, np.ones(4, np.int32), windows.document, windows.offset, 1)
    with pytest.raises(UserError, match="no token to predict"):
        small.loss(only_bos)


def test_zeroing_an_mlp_equals_removing_it(small: Subject) -> None:
    """Ablating hook_mlp_out where it counts gives the loss of a model whose MLP is silent there."""
    windows, site = random_windows(small, 6), small.site("blocks.1.hook_mlp_out")
    ablated = small.loss(windows, site, torch.zeros_like)
    counted = torch.from_numpy(windows.counted())[..., None]
    handle = small.model.transformer.h[1].mlp.register_forward_hook(lambda _m, _i, out: out * ~counted)
    try:
        silent = small.loss(windows, batch=len(windows))
    finally:
        handle.remove()
    assert ablated == pytest.approx(silent, abs=1e-6)
    assert abs(ablated - small.loss(windows)) > 1e-3


@pytest.mark.parametrize("text", ["a b a", "Ünïcode — שלום 世界 🙂", "\x00\t\n"])
def test_token_bytes_join_to_the_text(small: Subject, gated: Subject, text: str) -> None:
    """In both kinds of vocabulary the bytes of the tokens are the bytes of the text."""
    for subject in (small, gated):
        found = subject.token_bytes()
        ids = subject.tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(found[i] for i in ids) == text.encode()
        assert found[subject.tokenizer.bos_token_id] == subject.tokenizer.bos_token.encode()
        assert len(found) == subject.vocabulary


def test_ids_without_a_token_are_empty(tmp_path: Path) -> None:
    """An embedding padded past the tokenizer has empty tokens at its end."""
    tokenizer = byte_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer) + 6, n_embd=4, n_layer=1, n_head=1, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = load_subject(str(tmp_path)).token_bytes()
    assert found[-6:] == (b"",) * 6
    assert found[-7] == b" a"
