"""Places in a model: what they are called, how wide they are, how they are read and replaced."""

import difflib
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from sae.errors import UserError

Kind = Literal["mlp_post", "mlp_out", "resid", "other"]
"""Neurons; what the MLP adds to the residual stream; the residual stream; anything else."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a model."""

    name: str
    """TransformerLens name where there is one, such as ``blocks.0.mlp.hook_post``, else the module path."""
    module: str
    """Path of the module at which it is read, such as ``transformer.h.0.mlp.act``."""
    side: Literal["input", "output"]
    """Which side of that module."""
    width: int
    """Numbers per position."""
    layer: int | None
    """Block it lies in, counted from 0; None outside all blocks."""
    kind: Kind
    """What it is, for the path from it to the logits."""
    signed: bool
    """Whether activations can be negative; False only for neurons with a plain ReLU."""


@dataclass(frozen=True, slots=True)
class Family:
    """Where one family of models keeps its parts."""

    blocks: str
    """The list of blocks."""
    norm: str
    """The last normalisation before the unembedding."""
    centred: bool
    """Whether that normalisation subtracts the mean (LayerNorm) or not (RMSNorm)."""
    neurons: str
    """Module of a block at which its neurons are read."""
    neurons_side: Literal["input", "output"]
    """Which side: gated neurons exist only as the input of the matrix that follows them."""
    down: str
    """Module of a block that maps neurons to the residual stream."""


FAMILIES = {
    "gpt2": Family("transformer.h", "transformer.ln_f", True, "mlp.act", "output", "mlp.c_proj"),
    "llama": Family("model.layers", "model.norm", False, "mlp.down_proj", "input", "mlp.down_proj"),
}
"""Supported families by ``model_type`` of their configuration."""


def family_of(model: PreTrainedModel) -> Family:
    """The family of `model`."""
    return FAMILIES[model.config.model_type]


def down_matrix(model: PreTrainedModel, layer: int) -> Float[Tensor, "neuron width"]:
    """What each neuron of `layer` adds to the residual stream."""
    family = family_of(model)
    down = model.get_submodule(f"{family.blocks}.{layer}.{family.down}")
    weight = cast(Tensor, down.weight).detach()
    return weight.T if isinstance(down, nn.Linear) else weight


def hook_sites(model: PreTrainedModel) -> dict[str, Site]:
    """Every site of `model` that has a TransformerLens name, by that name, block by block."""
    family = family_of(model)
    width = int(model.config.hidden_size)
    rectified = family.neurons_side == "output" and getattr(model.config, "activation_function", None) == "relu"
    sites: list[Site] = []
    for layer in range(len(cast(nn.ModuleList, model.get_submodule(family.blocks)))):
        name, block = f"blocks.{layer}", f"{family.blocks}.{layer}"
        neurons, neuron_count = f"{block}.{family.neurons}", down_matrix(model, layer).shape[0]
        sites += [
            Site(f"{name}.hook_resid_pre", block, "input", width, layer, "resid", True),
            Site(f"{name}.mlp.hook_post", neurons, family.neurons_side, neuron_count, layer, "mlp_post", not rectified),
            Site(f"{name}.hook_mlp_out", f"{block}.mlp", "output", width, layer, "mlp_out", True),
            Site(f"{name}.hook_resid_post", block, "output", width, layer, "resid", True),
        ]
    return {site.name: site for site in sites}


def find_site(model: PreTrainedModel, name: str) -> Site:
    """The site called `name`: a TransformerLens name, or the path of a module, which means its output.

    Raises `UserError` with the nearest valid name where there is none, or where the module's output is not one
    vector per position.
    """
    named = hook_sites(model)
    if name in named:
        return named[name]
    for site in named.values():
        if (site.module, site.side) == (name, "output"):
            return site
    paths = [path for path, _ in model.named_modules() if path.startswith(f"{model.base_model_prefix}.")]
    if name not in paths:
        (close,) = difflib.get_close_matches(name, [*named, *paths], n=1, cutoff=0.0)
        raise UserError(f"The model has no site {name}.", do=f"The nearest is {close}.", usage=True)
    inside = re.match(re.escape(family_of(model).blocks) + r"\.(\d+)\.", name)
    layer = int(inside.group(1)) if inside else None
    return Site(name, name, "output", _probe(model, name), layer, "other", signed=True)


@contextmanager
def hooked(model: PreTrainedModel, site: Site, see: Callable[[Tensor], Tensor | None]) -> Generator[None]:
    """Within this context `see` gets the site's activations in every forward pass; what it returns replaces them."""

    def after(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        rest: tuple[Any, ...] = output[1:] if isinstance(output, tuple) else ()
        seen = see(output[0] if isinstance(output, tuple) else output)
        if seen is None:
            return None
        return (seen, *rest) if isinstance(output, tuple) else seen

    def before(_module: nn.Module, inputs: Any, kwargs: Any) -> Any:
        seen = see(inputs[0] if inputs else kwargs["hidden_states"])
        if seen is None:
            return None
        return ((seen, *inputs[1:]), kwargs) if inputs else (inputs, kwargs | {"hidden_states": seen})

    module = model.get_submodule(site.module)
    if site.side == "input":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


class _ReachedError(Exception):
    """Ends a forward pass at the site: nothing after it is needed."""


@torch.no_grad()
def run_to_site(model: PreTrainedModel, site: Site, tokens: Tensor) -> Tensor | None:
    """What the site's module gives for `tokens`; the rest of the model is not run. None where it is never called."""
    caught: list[Tensor] = []

    def catch(value: Tensor) -> None:
        caught.append(value)
        raise _ReachedError

    with hooked(model, site, catch):
        try:
            model.base_model(tokens, use_cache=False)
        except _ReachedError:
            return caught[0]
    return None


def _probe(model: PreTrainedModel, path: str) -> int:
    tokens = torch.zeros((2, 3), dtype=torch.int64, device=model.device)
    output = run_to_site(model, Site(path, path, "output", 0, None, "other", signed=True), tokens)
    if not isinstance(output, Tensor) or output.ndim != 3 or output.shape[:2] != tokens.shape:
        raise UserError(
            f"{path} is no site: its output is not one vector per position.",
            do=f"Choose a module inside a block, such as {family_of(model).blocks}.0.mlp.",
            usage=True,
        )
    return output.shape[2]
