"""Loading a subject, finding its sites, reading and replacing what happens there."""

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
from sae.sites import hook_sites
from sae.subject import Subject, load_subject
from tests.sae.tiny import CONTEXT, NEURONS, WIDTH, byte_tokenizer, gpt2, gpt2_folder, llama, random_windows


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A GPT-2 with ReLU neurons."""
    return gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A Llama with gated neurons."""
    return llama(tmp_path_factory.mktemp("llama"))


def tokens_of(windows: Windows) -> torch.Tensor:
    """The windows' tokens as the model wants them."""
    return torch.from_numpy(windows.tokens.astype(np.int64))


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


def test_module_paths_and_hook_names_are_the_same_site(small: Subject) -> None:
    """A module path gives the site under its TransformerLens name."""
    assert small.site("transformer.h.1.mlp.act") == small.site("blocks.1.mlp.hook_post")
    assert small.site("transformer.h.1") == small.site("blocks.1.hook_resid_post")
    assert small.site("transformer.h.0.mlp") == small.site("blocks.0.hook_mlp_out")


def test_every_named_site_has_the_width_it_says(small: Subject, gated: Subject) -> None:
    """Widths from the configuration are those of the activations, in both families."""
    for subject in (small, gated):
        tokens = tokens_of(random_windows(subject, 2))
        for site in hook_sites(subject.model).values():
            assert subject.activations(site, tokens).shape == (2, CONTEXT, site.width)


def test_residual_and_mlp_sites_add_up(small: Subject, gated: Subject) -> None:
    """What a block puts out is the next block's input, and its MLP's output is neurons through W_down."""
    for subject in (small, gated):
        tokens = tokens_of(random_windows(subject, 3))
        before, after = (
            subject.activations(subject.site(f"blocks.{s}"), tokens) for s in ("1.hook_resid_pre", "0.hook_resid_post")
        )
        assert torch.equal(before, after)
        neurons = subject.activations(subject.site("blocks.1.mlp.hook_post"), tokens)
        out = subject.activations(subject.site("blocks.1.hook_mlp_out"), tokens)
        block = subject.model.base_model.get_submodule("h" if subject is small else "layers")[1]
        down = block.mlp.c_proj if subject is small else block.mlp.down_proj
        assert torch.allclose(down(neurons), out, atol=1e-6)


def test_gated_neurons_are_the_product_with_the_gate(gated: Subject) -> None:
    """Llama's hook_post is gate times value, not the gate alone."""
    site = gated.site("blocks.0.mlp.hook_post")
    gate = gated.site("model.layers.0.mlp.act_fn")
    up = gated.site("model.layers.0.mlp.up_proj")
    tokens = tokens_of(random_windows(gated, 2))
    product = gated.activations(gate, tokens) * gated.activations(up, tokens)
    assert torch.allclose(gated.activations(site, tokens), product)
    assert (gate.kind, gate.width) == ("other", NEURONS)


def test_signs_and_layers(small: Subject, gated: Subject, tmp_path: Path) -> None:
    """Only ReLU neurons are unsigned; modules outside the blocks have no layer."""
    assert not small.site("blocks.0.mlp.hook_post").signed
    assert small.site("blocks.0.hook_mlp_out").signed
    assert gated.site("blocks.0.mlp.hook_post").signed
    assert gpt2(tmp_path, activation="gelu_new").site("blocks.0.mlp.hook_post").signed
    assert small.site("transformer.h.1.attn.c_proj").layer == 1
    assert small.site("transformer.ln_f").layer is None


def test_unknown_sites_get_the_nearest_name(small: Subject) -> None:
    """A misspelt hook and a layer too many are answered with a site that exists."""
    with pytest.raises(UserError, match=r"nearest is blocks\.0\.mlp\.hook_post\.") as error:
        small.site("blocks.0.mlp.hook_pots")
    assert error.value.usage
    with pytest.raises(UserError, match=r"nearest is blocks\.\d\.hook_resid_post\."):
        small.site("blocks.7.hook_resid_post")


@pytest.mark.parametrize("path", ["transformer.wpe", "transformer.h"])
def test_modules_without_a_vector_per_position_are_no_sites(small: Subject, path: str) -> None:
    """Position embeddings and lists of blocks are refused."""
    with pytest.raises(UserError, match="not one vector per position"):
        small.site(path)


def test_neurons_and_fitting_sites(small: Subject) -> None:
    """A residual site's neurons are its block's; a wrong width names the sites of that block that fit."""
    site = small.site("blocks.1.hook_resid_post")
    neurons = small.neurons_site(site)
    assert neurons.name == "blocks.1.mlp.hook_post"
    assert small.suggest(NEURONS) == ["blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post"]
    small.check_fits(site, WIDTH, "SAE")
    with pytest.raises(
        UserError,
        match=rf"The SAE expects {NEURONS}, the site blocks.1.hook_resid_post gives {WIDTH}.\n"
        rf"Sites that give {NEURONS}: blocks.1.mlp.hook_post\.",
    ):
        small.check_fits(site, NEURONS, "SAE")
    with pytest.raises(UserError, match="belongs to another model"):
        small.check_fits(site, 768, "SAE")
    with pytest.raises(UserError, match="no block"):
        small.neurons_site(small.site("transformer.ln_f"))


def test_nothing_after_the_site_is_run(small: Subject) -> None:
    """Reading block 0 leaves block 1 untouched."""
    calls: list[int] = []
    handle = small.model.transformer.h[1].register_forward_hook(lambda *_: calls.append(1))
    try:
        tokens = tokens_of(random_windows(small, 2))
        small.activations(small.site("blocks.0.mlp.hook_post"), tokens)
        assert not calls
        small.activations(small.site("blocks.1.mlp.hook_post"), tokens)
        small.activations(small.site("blocks.1.hook_resid_post"), tokens)
        assert len(calls) == 1
    finally:
        handle.remove()


def test_no_hook_stays_behind(small: Subject) -> None:
    """After reads, replacements and a failing replacement the model has no hooks."""
    windows, site = random_windows(small, 2), small.site("blocks.0.mlp.hook_post")
    small.activations(site, tokens_of(windows))

    def fail(_x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        small.loss(windows, site, fail)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in small.model.modules())


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
