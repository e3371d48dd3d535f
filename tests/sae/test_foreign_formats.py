"""Other libraries' files, made here from the keys and shapes they document, against those libraries' formulas."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from sae.architectures.normalised import NormalisedAutoencoder
from sae.dictionary import Dictionary, on_device
from sae.errors import UserError
from sae.formats import load_dictionary
from sae.metrics import reconstruct

D_IN, UNITS, K = 4, 6, 2


def _random(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


W_ENC, W_DEC, B_ENC, B_DEC, THRESHOLD, R_MAG, X = _random(
    (UNITS, D_IN), (UNITS, D_IN), (UNITS,), (D_IN,), (UNITS,), (UNITS,), (40, D_IN)
)
NORMS = W_DEC.norm(dim=1)
LINEAR = {"encoder.weight": W_ENC, "decoder.weight": W_DEC.T.contiguous()}
ROWS = {"W_enc": W_ENC.T.contiguous(), "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}
POOLED = {"k": torch.tensor(K), "threshold": torch.tensor(0.3)}


def _z(x: Tensor = X, centred: bool = True) -> Tensor:
    return (x - B_DEC if centred else x) @ W_ENC.T + B_ENC


def _top(z: Tensor) -> Tensor:
    kth = z.sort(dim=1, descending=True).values[:, K - 1 : K]
    return torch.where(z >= kth, z.relu(), 0.0)


def _above(z: Tensor, threshold: Tensor | float) -> Tensor:
    return torch.where(z > threshold, z.relu(), 0.0)


def _check(dictionary: Dictionary, f: Tensor, decoder: Tensor = W_DEC) -> None:
    """Activations are `f`, and the reconstruction is the decoder's of them."""
    assert (dictionary.d_in, dictionary.n_units) == (D_IN, UNITS)
    assert torch.allclose(dictionary.encode(X), f, atol=1e-5)
    assert torch.allclose(dictionary.decode(f), f @ decoder + B_DEC, atol=1e-5)
    assert (f > 0).any(0).sum() >= UNITS - 1


def _saelens(directory: Path, architecture: str, own: Mapping[str, Tensor], **config: Any) -> Path:
    directory.mkdir(exist_ok=True)
    values = {"architecture": architecture, "d_in": D_IN, "d_sae": UNITS, "metadata": {"sae_lens_version": "6.54.12"}}
    (directory / "cfg.json").write_text(json.dumps(values | config))
    save_file({**ROWS, **own}, directory / "sae_weights.safetensors")
    return directory


def test_saelens_topk_with_and_without_decoder_norms(tmp_path: Path) -> None:
    """The largest pre-activations fire; rescaled, the largest times their decoder norm."""
    _check(load_dictionary(_saelens(tmp_path, "topk", {}, k=K))[0], _top(_z()))
    rescaled, _ = load_dictionary(_saelens(tmp_path, "topk", {}, k=K, rescale_acts_by_decoder_norm=True))
    _check(rescaled, _top(_z() * NORMS), normalize(W_DEC))


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_saelens_batchtopk_training_saves_are_jumprelus(tmp_path: Path, architecture: str) -> None:
    """The running threshold holds for every unit, against activations times decoder norm."""
    loaded, _ = load_dictionary(_saelens(tmp_path, architecture, {"topk_threshold": torch.tensor(0.3)}, k=K))
    _check(loaded, _above(_z() * NORMS, 0.3), normalize(W_DEC))


def test_saelens_gated_is_a_jumprelu(tmp_path: Path) -> None:
    """Gate and magnitude of a gated autoencoder come out of one threshold."""
    _saelens(tmp_path, "gated", {"b_gate": THRESHOLD, "b_mag": B_ENC.clone(), "r_mag": R_MAG})
    shared = (X - B_DEC) @ W_ENC.T
    _check(load_dictionary(tmp_path)[0], (shared + THRESHOLD > 0) * (R_MAG.exp() * shared + B_ENC).relu())


def test_flat_saelens_topk_is_no_relu(tmp_path: Path) -> None:
    """Before version 6 a TopK was a standard architecture with another activation function."""
    _saelens(tmp_path, "standard", {}, metadata={}, activation_fn_str="topk", activation_fn_kwargs={"k": K})
    _check(load_dictionary(tmp_path)[0], _top(_z()))


def test_flat_saelens_normalisation_needs_its_number(tmp_path: Path) -> None:
    """A bool before version 3: false is none, true is one number that must be there."""
    _check(load_dictionary(_saelens(tmp_path, "standard", {}, normalize_activations=False))[0], _z().relu())
    with pytest.raises(UserError, match="one number that its files do not hold"):
        load_dictionary(_saelens(tmp_path, "standard", {}, normalize_activations=True))


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_inputs_normalised_by_themselves(tmp_path: Path, kind: str) -> None:
    """Each input is normalised, and its own mean and scale come back in the reconstruction."""
    loaded, _ = load_dictionary(_saelens(tmp_path, "standard", {}, normalize_activations=kind))
    if kind == "layer_norm":
        mean, scale = X.mean(1, keepdim=True), X.std(1, keepdim=True) + 1e-5
    else:
        mean, scale = torch.zeros(len(X), 1), X.norm(dim=1, keepdim=True) / D_IN**0.5
    f = _z((X - mean) / scale).relu()
    assert isinstance(loaded, NormalisedAutoencoder)
    assert torch.allclose(loaded.encode(X), f, atol=1e-4)
    assert torch.allclose(reconstruct(loaded, X), (f @ W_DEC + B_DEC) * scale + mean, atol=1e-4)
    assert torch.allclose(reconstruct(on_device(loaded, "cpu"), 5 * X) / 5, reconstruct(loaded, X), atol=1e-3)
    with pytest.raises(UserError, match="needs the inputs"):
        loaded.decode(f)


def _sparsify(directory: Path, **config: Any) -> Path:
    directory.mkdir(exist_ok=True)
    values = {"activation": "topk", "expansion_factor": 32, "num_latents": UNITS, "k": K, "d_in": D_IN}
    (directory / "cfg.json").write_text(json.dumps(values | {"transcode": False, "skip_connection": False} | config))
    tensors = {"encoder.weight": W_ENC, "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    save_file(tensors, directory / "sae.safetensors")
    return directory


def test_sparsify_directories_are_read(tmp_path: Path) -> None:
    """The decoder bias is subtracted at the input; the directory is named after the hook point."""
    loaded, info = load_dictionary(_sparsify(tmp_path / "layers.3.mlp"))
    _check(loaded, _top(_z()))
    assert (info.site, info.subject) == ("layers.3.mlp", None)
    assert load_dictionary(tmp_path / "layers.3.mlp" / "sae.safetensors")[1] == info
    assert load_dictionary(_sparsify(tmp_path / "mine"))[1].site is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transcode": True}, "transcoder"),
        ({"skip_connection": True}, "transcoder"),
        ({"activation": "groupmax"}, "'groupmax'[\\s\\S]*'topk'"),
        ({"num_latents": 0, "expansion_factor": 2}, "shape"),
        ({"k": UNITS + 1}, "lets 7 units fire"),
        ({"d_in": None}, "d_in as None"),
    ],
)
def test_what_sparsify_computes_otherwise_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Transcoders, other activations, wrong shapes."""
    with pytest.raises(UserError, match=message):
        load_dictionary(_sparsify(tmp_path, **changes))


def _learned(directory: Path, name: str, stored: Mapping[str, Tensor]) -> Path:
    directory.mkdir(exist_ok=True)
    trainer = {"dict_class": name, "activation_dim": D_IN, "dict_size": UNITS, "k": K, "layer": 3}
    trainer |= {"lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_3"}
    (directory / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))
    torch.save(dict(stored), directory / "ae.pt")
    return directory


GATES = {"gate_bias": THRESHOLD, "r_mag": R_MAG, "mag_bias": B_ENC}
SHARED = (X - B_DEC) @ W_ENC.T
LEARNED: dict[str, tuple[Mapping[str, Tensor], Tensor]] = {
    "AutoEncoderNew": ({**LINEAR, "encoder.bias": B_ENC, "decoder.bias": B_DEC}, _z(centred=False).relu()),
    "AutoEncoderTopK": ({**LINEAR, **POOLED, "encoder.bias": B_ENC, "b_dec": B_DEC}, _top(_z())),
    "BatchTopKSAE": ({**LINEAR, **POOLED, "encoder.bias": B_ENC, "b_dec": B_DEC}, _above(_z(), 0.3)),
    "MatryoshkaBatchTopKSAE": ({**ROWS, **POOLED, "group_sizes": torch.tensor([2, 4])}, _above(_z(), 0.3)),
    "JumpReluAutoEncoder": ({**ROWS, "threshold": THRESHOLD}, _above(_z(centred=False), THRESHOLD)),
    "GatedAutoEncoder": (
        {**LINEAR, **GATES, "decoder_bias": B_DEC},
        (SHARED + THRESHOLD > 0) * (R_MAG.exp() * SHARED + B_ENC).relu(),
    ),
}


@pytest.mark.parametrize("name", LEARNED)
def test_dictionary_learning_directories_are_read(tmp_path: Path, name: str) -> None:
    """Every class computes what that library computes; the class comes from the configuration."""
    stored, f = LEARNED[name]
    loaded, info = load_dictionary(_learned(tmp_path, name, stored))
    _check(loaded, f)
    assert (info.site, info.subject) == ("blocks.3.hook_resid_post", "EleutherAI/pythia-70m-deduped")


def test_dictionary_learning_rows_are_at_norm_1_after_loading(tmp_path: Path) -> None:
    """As its own loader does for `AutoEncoder`; a checkpoint finds the configuration above it."""
    _learned(tmp_path, "AutoEncoder", {**LINEAR, "encoder.bias": B_ENC, "bias": B_DEC})
    (tmp_path / "checkpoints").mkdir()
    step = (tmp_path / "ae.pt").rename(tmp_path / "checkpoints" / "ae_500.pt")
    _check(load_dictionary(step)[0], _z().relu() * NORMS, normalize(W_DEC))


def test_dictionary_learning_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Unknown classes, missing tensors, a missing configuration, and pickled code."""
    for name, stored, message in (
        ("CrossCoder", LINEAR, "class CrossCoder[\\s\\S]*BatchTopKSAE"),
        ("AutoEncoder", {"bias": B_DEC}, "no matrix encoder.weight"),
        ("AutoEncoderNew", LINEAR, "no tensor encoder.bias"),
        ("AutoEncoderTopK", {**LINEAR, "encoder.bias": B_ENC, "b_dec": B_DEC}, "k as None"),
    ):
        with pytest.raises(UserError, match=message):
            load_dictionary(_learned(tmp_path, name, stored))
    torch.save({"encoder.weight": Path()}, tmp_path / "ae.pt")
    with pytest.raises(UserError, match="weights_only"):
        load_dictionary(tmp_path)
    (tmp_path / "ae.pt").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read as tensors"):
        load_dictionary(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config.json"):
        load_dictionary(tmp_path)


OPENAI = {**LINEAR, "latent_bias": B_ENC, "pre_bias": B_DEC, "stats_last_nonzero": torch.zeros(UNITS)}


def test_openai_relu_files_are_read(tmp_path: Path) -> None:
    """Without an activation named, it is the ReLU, on inputs as they are."""
    torch.save(OPENAI, tmp_path / "6.pt")
    _check(load_dictionary(tmp_path / "6.pt")[0], _z().relu())


def test_openai_topk_files_normalise_their_inputs(tmp_path: Path) -> None:
    """The largest on normalised inputs; the reconstruction is in the site's units."""
    torch.save(
        {**OPENAI, "activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}, tmp_path / "6.pt"
    )
    loaded, _ = load_dictionary(tmp_path / "6.pt")
    mean, scale = X.mean(1, keepdim=True), X.std(1, keepdim=True) + 1e-5
    f = _top(_z((X - mean) / scale))
    assert torch.allclose(loaded.encode(X), f, atol=1e-5)
    assert torch.allclose(reconstruct(loaded, X), (f @ W_DEC + B_DEC) * scale + mean, atol=1e-4)


def test_openai_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Other activations and wrong shapes."""
    file = tmp_path / "6.pt"
    for changes, message in (
        ({"activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "Identity"}}, "'Identity'"),
        ({"activation": "Tanh"}, "'Tanh'"),
        ({"activation": "TopK", "activation_state_dict": {"postact_fn": "ReLU"}}, "k as None"),
        ({"pre_bias": B_ENC}, "pre_bias"),
    ):
        torch.save({**OPENAI, **changes}, file)
        with pytest.raises(UserError, match=message):
            load_dictionary(file)


def test_the_stated_explained_variance_is_read(tmp_path: Path) -> None:
    """From the train command, dictionary_learning, SAELens's evaluation or the last line of a log; else None."""
    _saelens(tmp_path, "standard", {})
    assert load_dictionary(tmp_path)[1].explained_variance is None
    line = '{"metrics/explained_variance": 0.%s}\n'
    (tmp_path / "metrics.jsonl").write_text(line % 1 + line % 6)
    assert load_dictionary(tmp_path)[1].explained_variance == 0.6
    for name, values, expected in (
        ("eval_results.json", {"frac_variance_explained": 0.7}, 0.7),
        ("eval_results.json", {"metrics": {"reconstruction_quality": {"explained_variance": 0.8}}}, 0.8),
        ("metrics.json", {"fvu": 0.25}, 0.75),
    ):
        (tmp_path / name).write_text(json.dumps(values))
        assert load_dictionary(tmp_path)[1].explained_variance == expected
    (tmp_path / "metrics.json").write_text("{")
    assert load_dictionary(tmp_path)[1].explained_variance == 0.8
