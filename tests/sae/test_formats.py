"""Reading and writing dictionaries."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sae.architectures.jumprelu import JumpReluAutoencoder
from sae.architectures.relu import ReluAutoencoder
from sae.architectures.topk import TopKAutoencoder
from sae.errors import UserError
from sae.formats import load_dictionary
from sae.formats.saelens import SaeMetadata, save_saelens

D_IN, UNITS = 4, 6
METADATA = SaeMetadata(subject="tiny", site="blocks.0.mlp.hook_post", corpus="text", context=16, prepend_bos=True)


def _autoencoder(*, pre_encoder_bias: bool = True, input_scale: float = 1.0) -> ReluAutoencoder:
    generator = torch.Generator().manual_seed(0)
    shapes = [(UNITS, D_IN), (UNITS,), (UNITS, D_IN), (D_IN,)]
    tensors = [torch.randn(*shape, generator=generator) for shape in shapes]
    return ReluAutoencoder(*tensors, pre_encoder_bias=pre_encoder_bias, input_scale=input_scale)


def _inputs() -> torch.Tensor:
    return torch.randn(9, D_IN, generator=torch.Generator().manual_seed(1))


def _foreign(directory: Path, changes: dict[str, Any] | None = None, *, threshold: bool = False) -> ReluAutoencoder:
    """A directory with the keys and tensors that SAELens 6.54 writes, and the autoencoder it describes."""
    sae = _autoencoder()
    config: dict[str, Any] = {
        "d_in": D_IN,
        "d_sae": UNITS,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "sae_lens_training_version": "6.54.12",
            "model_name": "gpt2",
            "hook_name": "blocks.8.hook_resid_pre",
        },
        "architecture": "jumprelu" if threshold else "standard",
    }
    config |= changes or {}
    directory.mkdir(exist_ok=True)
    (directory / "cfg.json").write_text(json.dumps(config))
    tensors = {"W_enc": sae.W_enc.T.contiguous(), "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    if threshold:
        tensors["threshold"] = torch.linspace(-1, 2, UNITS)
    save_file(tensors, directory / "sae_weights.safetensors")
    return sae


@pytest.mark.parametrize("pre_encoder_bias", [True, False])
@pytest.mark.parametrize("input_scale", [1.0, 3.7])
def test_save_and_load_give_identical_outputs(tmp_path: Path, pre_encoder_bias: bool, input_scale: float) -> None:
    """What is read is the folded autoencoder, bit for bit, with its site, subject and digest."""
    sae, x = _autoencoder(pre_encoder_bias=pre_encoder_bias, input_scale=input_scale), _inputs()
    save_saelens(tmp_path / "sae", sae, METADATA)
    loaded, info = load_dictionary(tmp_path / "sae")
    folded = sae.folded()
    assert torch.equal(loaded.encode(x), folded.encode(x))
    assert torch.equal(loaded.decode(loaded.encode(x)), folded.decode(folded.encode(x)))
    assert torch.allclose(loaded.encode(x), sae.encode(x), atol=1e-5)
    assert (info.d_in, info.n_units, info.site, info.subject) == (D_IN, UNITS, METADATA.site, METADATA.subject)
    assert len(info.digest) == 64
    assert load_dictionary(tmp_path / "sae" / "cfg.json")[1] == info


def test_the_written_files_are_what_saelens_reads(tmp_path: Path) -> None:
    """Tensor names, shapes and configuration keys are SAELens's; the version is always there."""
    rate = torch.tensor([0.1, 0.01, 0.0, 1.0, 0.5, 0.001])
    save_saelens(tmp_path, _autoencoder(pre_encoder_bias=False), METADATA, firing_rate=rate)
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "W_enc": (D_IN, UNITS),
        "b_enc": (UNITS,),
        "W_dec": (UNITS, D_IN),
        "b_dec": (D_IN,),
    }
    config = json.loads((tmp_path / "cfg.json").read_text())
    expected = {
        "architecture": "standard",
        "d_in": D_IN,
        "d_sae": UNITS,
        "dtype": "float32",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    assert expected.items() <= config.items()
    assert int(config["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    assert config["metadata"]["hook_name"] == METADATA.site
    assert config["metadata"]["model_name"] == METADATA.subject
    sparsity = load_file(tmp_path / "sparsity.safetensors")["sparsity"]
    assert sparsity.tolist() == pytest.approx([-1, -2, -10, 0, np.log10(0.5), -3], abs=1e-5)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("input_scale", [1.0, 3.7])
def test_every_architecture_is_written_and_read_back(tmp_path: Path, input_scale: float) -> None:
    """TopK with its k, JumpReLU with its thresholds: equal outputs, and the keys that SAELens reads."""
    sae, x = _autoencoder(input_scale=input_scale), _inputs()
    jump = JumpReluAutoencoder(*sae.parameters(), torch.linspace(-1, 2, UNITS), True, input_scale)
    top = TopKAutoencoder(*sae.parameters(), k=2, pre_encoder_bias=True, input_scale=input_scale)
    for name, each in (("jumprelu", jump), ("topk", top)):
        save_saelens(tmp_path / name, each, replace(METADATA, trained_as="batchtopk"))
        loaded, _ = load_dictionary(tmp_path / name)
        assert type(loaded) is type(each)
        assert torch.equal(loaded.encode(x), each.folded().encode(x))
        assert torch.allclose(loaded.decode(loaded.encode(x)), each.decode(each.encode(x)), atol=1e-5)
        config = json.loads((tmp_path / name / "cfg.json").read_text())
        assert config["architecture"] == name
        assert config["metadata"]["training_architecture"] == "batchtopk"
    assert (config["k"], config["rescale_acts_by_decoder_norm"]) == (2, False)
    assert load_file(tmp_path / "jumprelu" / "sae_weights.safetensors")["threshold"].shape == (UNITS,)


def test_half_precision_weights_are_read_as_float32(tmp_path: Path) -> None:
    """Weights stored as float16 compute in float32."""
    sae, x = _autoencoder(), _inputs()
    save_saelens(tmp_path, sae, METADATA, dtype=torch.float16)
    loaded, _ = load_dictionary(tmp_path)
    assert load_file(tmp_path / "sae_weights.safetensors")["W_enc"].dtype == torch.float16
    assert loaded.encode(x).dtype == torch.float32
    assert torch.allclose(loaded.encode(x), sae.encode(x), atol=2e-2)


def test_the_digest_follows_the_weights(tmp_path: Path) -> None:
    """One changed weight changes the digest; the same files have the same."""
    for name, value in (("a", 0.0), ("b", 0.0), ("c", 1e-3)):
        sae = _autoencoder()
        sae.b_enc[0] += value
        save_saelens(tmp_path / name, sae, METADATA)
    digests = [load_dictionary(tmp_path / name)[1].digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("apply_bias", [True, False])
def test_apply_b_dec_to_input_is_honoured(tmp_path: Path, apply_bias: bool) -> None:
    """The decoder bias is subtracted from the input exactly where the configuration says so."""
    sae, x = _foreign(tmp_path, {"apply_b_dec_to_input": apply_bias}), _inputs()
    loaded, info = load_dictionary(tmp_path)
    centred = x - sae.b_dec if apply_bias else x
    assert torch.allclose(loaded.encode(x), (centred @ sae.W_enc.T + sae.b_enc).relu(), atol=1e-6)
    assert (info.site, info.subject) == ("blocks.8.hook_resid_pre", "gpt2")


def test_jumprelu_directories_are_read(tmp_path: Path) -> None:
    """The thresholds take effect."""
    sae, x = _foreign(tmp_path, threshold=True), _inputs()
    loaded, _ = load_dictionary(tmp_path)
    assert isinstance(loaded, JumpReluAutoencoder)
    z = (x - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    assert torch.allclose(loaded.encode(x), z.relu() * (z > torch.linspace(-1, 2, UNITS)), atol=1e-6)


def test_an_input_scale_is_read_from_beside_the_weights_or_refused(tmp_path: Path) -> None:
    """An unfolded average norm needs its scale: with the scaler it is applied, without it nothing is guessed."""
    sae, x = _foreign(tmp_path, {"normalize_activations": "expected_average_only_in"}), _inputs()
    with pytest.raises(UserError, match="one number that its files do not hold"):
        load_dictionary(tmp_path)
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 2.5}')
    loaded, _ = load_dictionary(tmp_path)
    f = sae.encode(x * 2.5)
    assert torch.allclose(loaded.encode(x), f, atol=1e-5)
    assert torch.allclose(loaded.decode(f), sae.decode(f) / 2.5, atol=1e-5)
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": null}')
    with pytest.raises(UserError, match="scaling_factor"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "topk"}, "k as None"),
        ({"architecture": "topk", "k": UNITS + 1}, "lets 7 units fire, but has 6"),
        ({"architecture": "temporal"}, "architecture 'temporal'[\\s\\S]*standard, topk"),
        ({"architecture": "gated"}, "no tensor b_gate"),
        ({"activation_fn_str": "tanh-relu"}, "activation function 'tanh-relu'"),
        ({"normalize_activations": "covariance_whitening"}, "covariance_whitening"),
        ({"normalize_activations": "layernorm"}, "Did you mean layer_norm"),
        ({"reshape_activations": "other"}, "reshapes"),
        ({"finetuning_scaling_factor": True}, "fine-tuned scale"),
        ({"d_sae": UNITS + 1}, "has shape"),
        ({"d_in": "4"}, "d_in"),
    ],
)
def test_what_cannot_be_computed_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Nothing is read as something else: unknown kinds and wrong shapes are refused by name."""
    _foreign(tmp_path, changes)
    with pytest.raises(UserError, match=message):
        load_dictionary(tmp_path)


def test_flat_configurations_of_older_versions_are_read(tmp_path: Path) -> None:
    """Before version 6, the metadata lay beside the other keys."""
    _foreign(tmp_path, {"metadata": {}, "hook_name": "blocks.1.hook_mlp_out", "model_name": "pythia"})
    info = load_dictionary(tmp_path)[1]
    assert (info.site, info.subject) == ("blocks.1.hook_mlp_out", "pythia")


def test_gemma_scope_files_and_folders_are_read(tmp_path: Path) -> None:
    """A JumpReLU without pre-encoder bias, from the file or from its folder, in half precision too."""
    sae, x, threshold = _autoencoder(), _inputs(), np.linspace(0, 1, UNITS).astype(np.float32)
    np.savez(
        tmp_path / "params.npz",
        W_enc=sae.W_enc.T.numpy(),
        W_dec=sae.W_dec.numpy(),
        b_enc=sae.b_enc.numpy(),
        b_dec=sae.b_dec.numpy(),
        threshold=threshold,
    )
    loaded, info = load_dictionary(tmp_path)
    z = x @ sae.W_enc.T + sae.b_enc
    expected = torch.where(z > torch.from_numpy(threshold), z.relu(), 0.0)
    assert torch.allclose(loaded.encode(x), expected, atol=1e-6)
    assert (info.d_in, info.n_units, info.site) == (D_IN, UNITS, None)
    assert load_dictionary(tmp_path / "params.npz")[1] == info


def test_malformed_gemma_scope_files_are_refused(tmp_path: Path) -> None:
    """Missing arrays, wrong shapes, bytes that are no archive, and pickles."""
    file = tmp_path / "params.npz"
    np.savez(file, W_dec=np.zeros((2, 2)))
    with pytest.raises(UserError, match="no matrix W_enc"):
        load_dictionary(tmp_path)
    np.savez(file, W_enc=np.zeros((2, 3)), W_dec=np.zeros((2, 3)), b_enc=np.zeros(3), b_dec=np.zeros(2))
    with pytest.raises(UserError, match="W_dec"):
        load_dictionary(tmp_path)
    file.write_bytes(b"not an archive")
    with pytest.raises(UserError, match="cannot be read"):
        load_dictionary(tmp_path)
    np.savez(file, W_enc=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="cannot be read"):
        load_dictionary(tmp_path)


def test_missing_and_damaged_files_say_what_would_fit(tmp_path: Path) -> None:
    """Nothing there, another format, no weights, broken weights, broken JSON, NaN."""
    with pytest.raises(UserError, match="There is no dictionary"):
        load_dictionary(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"It holds: notes.txt[\s\S]*SAELens"):
        load_dictionary(tmp_path)
    with pytest.raises(UserError, match="not a dictionary"):
        load_dictionary(tmp_path / "notes.txt")
    sae = _foreign(tmp_path / "sae")
    weights, config = tmp_path / "sae" / "sae_weights.safetensors", tmp_path / "sae" / "cfg.json"
    with pytest.raises(UserError, match="Dictionaries below it: sae"):
        load_dictionary(tmp_path)
    sae.b_enc[0] = torch.nan
    save_saelens(tmp_path / "nan", sae, METADATA)
    with pytest.raises(UserError, match="NaN"):
        load_dictionary(tmp_path / "nan")
    weights.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read"):
        load_dictionary(tmp_path / "sae")
    weights.unlink()
    with pytest.raises(UserError, match=r"no sae_weights.safetensors"):
        load_dictionary(tmp_path / "sae")
    for text in ("{", "[]"):
        config.write_text(text)
        with pytest.raises(UserError, match=r"cfg.json"):
            load_dictionary(tmp_path / "sae")
