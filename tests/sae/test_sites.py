"""Places in a model: their names and widths, and that nothing is left behind there."""

from pathlib import Path

import pytest
import torch

from sae.errors import UserError
from sae.sites import hook_sites
from sae.subject import Subject
from tests.sae.tiny import CONTEXT, NEURONS, WIDTH, gpt2, random_windows, tokens_of


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
