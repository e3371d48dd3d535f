"""Round trips through the loaders of SAELens, sparsify and dictionary_learning, in an environment of their own."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.peers import make_peers
from sae.architectures.jumprelu import JumpReluAutoencoder
from sae.architectures.relu import ReluAutoencoder
from sae.architectures.topk import TopKAutoencoder
from sae.dictionary import Dictionary
from sae.formats import load_dictionary
from sae.formats.saelens import SaeMetadata, save_saelens
from sae.metrics import reconstruct

pytestmark = pytest.mark.slow

D_IN, UNITS = 16, 64
METADATA = SaeMetadata(subject="gpt2", site="blocks.0.mlp.hook_post", context=128, prepend_bos=True)
ATOL = 1e-5


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of their environment; skips where it cannot be made. `PEERS` names a folder to keep it in."""
    kept = os.environ.get("PEERS")
    try:
        return make_peers(Path(kept).resolve() if kept else tmp_path_factory.mktemp("peers"))
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:]
        pytest.skip(f"the libraries cannot be installed here: {' '.join(last)}")


def _ours() -> dict[str, ReluAutoencoder | TopKAutoencoder | JumpReluAutoencoder]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(UNITS, D_IN), (UNITS,), (UNITS, D_IN), (D_IN,)]
    tensors = [0.3 * torch.randn(shape, generator=generator) for shape in shapes]
    threshold = 0.5 * torch.rand(UNITS, generator=generator)
    made: dict[str, ReluAutoencoder | TopKAutoencoder | JumpReluAutoencoder] = {}
    for bias in (True, False):
        for scale in (1.0, 1.7):
            made[f"relu-{bias}-{scale}"] = ReluAutoencoder(*tensors, bias, scale)
            made[f"topk-{bias}-{scale}"] = TopKAutoencoder(*tensors, 5, bias, scale)
            made[f"jumprelu-{bias}-{scale}"] = JumpReluAutoencoder(*tensors, threshold, bias, scale)
    return made


def test_every_librarys_own_loader_gives_our_outputs(peers: Path, tmp_path: Path) -> None:
    """What they save we read, what we save SAELens reads: activations and reconstructions are equal to 1e-5."""
    x = torch.randn(200, D_IN, generator=torch.Generator().manual_seed(9))
    save_file({"x": x}, tmp_path / "x.safetensors")
    ours = {f"ours-{name}": sae for name, sae in _ours().items()}
    for name, sae in ours.items():
        save_saelens(tmp_path / name, sae, METADATA, firing_rate=torch.full((UNITS,), 0.1))
    environment = {
        "HF_HUB_OFFLINE": "1",
        "SPARSIFY_DISABLE_TRITON": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
    }
    script = Path(__file__).with_name("peer_side.py")
    ran = subprocess.run(
        [peers, script, tmp_path],
        env=os.environ | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    print(ran.stdout.splitlines()[-1])  # noqa: T201
    outputs = {file.stem: load_file(file) for file in sorted(tmp_path.glob("*.safetensors")) if file.stem != "x"}
    assert len(outputs) == 12 + 8 + 10 + 1 + 7
    for name, theirs in outputs.items():
        dictionary: Dictionary = ours[name] if name in ours else load_dictionary(tmp_path / name)[0]
        f, y = dictionary.encode(x), reconstruct(dictionary, x)
        print(f"{name:45} {(f - theirs['f']).abs().max():.1e} {(y - theirs['y']).abs().max():.1e}")  # noqa: T201
        assert (theirs["f"] > 0).float().mean() > 0.01
        assert torch.allclose(f, theirs["f"], rtol=0, atol=ATOL), name
        assert torch.allclose(y, theirs["y"], rtol=0, atol=ATOL), name
