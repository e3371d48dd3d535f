"""What runs in the environment of the other libraries: they save dictionaries, load them again, and load ours.

    python peer_side.py PLACE

`PLACE` holds ``x.safetensors`` and our directories ``ours-*``. Writes their directories beside them, and for every
directory ``NAME`` the outputs of its own library's loader in ``NAME.safetensors``: activations ``f`` and
reconstruction ``y`` of ``x``.
"""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.utils import load_dictionary
from sae_lens import SAE
from sae_lens.registry import get_sae_class, get_sae_training_class
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor

PLACE = Path(sys.argv[1])
X = load_file(PLACE / "x.safetensors")["x"]
D_IN, UNITS, K = X.shape[1], 64, 5


def give(name: str, encode: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor]) -> None:
    """Write the outputs of one dictionary."""
    with torch.no_grad():
        f = encode(X)
        save_file({"f": f.contiguous(), "y": decode(f).contiguous()}, PLACE / f"{name}.safetensors")


@torch.no_grad()
def scatter(module: torch.nn.Module, seed: int) -> None:
    """Random weights, biases and thresholds, none of which is 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.named_parameters():
        tensor.copy_(
            torch.randn(tensor.shape, generator=generator) * (0.3 if "W_" in name or "weight" in name else 0.2)
        )


def saelens() -> None:
    """Inference and training saves of SAELens."""
    plain = [("standard", {}), ("jumprelu", {}), ("gated", {}), ("topk", {"k": K})]
    changed = [
        ("topk", {"k": K, "rescale_acts_by_decoder_norm": True}),
        ("standard", {"apply_b_dec_to_input": False}),
        ("standard", {"normalize_activations": "layer_norm"}),
        ("topk", {"k": K, "normalize_activations": "constant_norm_rescale"}),
    ]
    for seed, (architecture, settings) in enumerate(plain + changed):
        kind, config = get_sae_class(architecture)
        sae = kind(config(d_in=D_IN, d_sae=UNITS, **settings))
        scatter(sae, seed)
        name = f"saelens-{seed}-{architecture}"
        sae.save_model(PLACE / name)
        loaded = SAE.load_from_disk(PLACE / name)
        give(name, loaded.encode, loaded.decode)
    for architecture, settings in (
        ("batchtopk", {"k": K}),
        ("matryoshka_batchtopk", {"k": K, "matryoshka_widths": [16, UNITS]}),
        ("topk", {"k": K}),
        ("standard", {}),
        ("jumprelu", {}),
    ):
        kind, config = get_sae_training_class(architecture)
        sae = kind(config(d_in=D_IN, d_sae=UNITS, **settings))
        scatter(sae, 7)
        if "batchtopk" in architecture:
            sae.topk_threshold = torch.tensor(0.4, dtype=sae.topk_threshold.dtype)
        sae.save_model(PLACE / f"saelens-training-{architecture}")
        sae.save_inference_model(PLACE / f"saelens-inference-{architecture}")
        loaded = SAE.load_from_disk(PLACE / f"saelens-inference-{architecture}")
        for name in ("training", "inference"):
            give(f"saelens-{name}-{architecture}", loaded.encode, loaded.decode)


def sparsify() -> None:
    """A save of sparsify."""
    coder = SparseCoder(D_IN, SparseCoderConfig(num_latents=UNITS, k=K))
    scatter(coder, 1)
    coder.save_to_disk(PLACE / "sparsify")
    loaded = SparseCoder.load_from_disk(PLACE / "sparsify")

    def encode(x: Tensor) -> Tensor:
        out = loaded.encode(x)
        return torch.zeros(len(x), UNITS).scatter_(1, out.top_indices, out.top_acts)

    give("sparsify", encode, lambda f: loaded(X).sae_out)


def dictionary_learning() -> None:
    """A save of every class of dictionary_learning."""
    made = [
        AutoEncoder(D_IN, UNITS),
        AutoEncoderNew(D_IN, UNITS),
        GatedAutoEncoder(D_IN, UNITS),
        JumpReluAutoEncoder(D_IN, UNITS),
        AutoEncoderTopK(D_IN, UNITS, K),
        BatchTopKSAE(D_IN, UNITS, K),
        MatryoshkaBatchTopKSAE(D_IN, UNITS, K, [16, UNITS - 16]),
    ]
    for seed, module in enumerate(made):
        scatter(module, seed)
        kind = type(module).__name__
        if kind in {"BatchTopKSAE", "MatryoshkaBatchTopKSAE"}:
            module.threshold.fill_(0.4)
        folder = PLACE / f"learning-{kind}"
        folder.mkdir()
        torch.save(module.state_dict(), folder / "ae.pt")
        (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, "k": K}}))
        loaded, _ = load_dictionary(str(folder), device="cpu")
        give(folder.name, loaded.encode, loaded.decode)


saelens()
sparsify()
dictionary_learning()
for ours in PLACE.glob("ours-*"):
    loaded = SAE.load_from_disk(ours)
    give(ours.name, loaded.encode, loaded.decode)
print({name: version(name) for name in ("sae-lens", "eai-sparsify", "dictionary-learning", "torch")})  # noqa: T201
