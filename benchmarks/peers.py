"""An environment beside this one with SAELens, sparsify and dictionary_learning, which share its torch.

    python -m benchmarks.peers ~/.cache/autointerp/peers

Prints the path of its Python. The packages of this environment are on its path, so that torch is not fetched again.
"""

import argparse
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

PEERS = ("sae-lens==6.54.12", "eai-sparsify==1.3.3", "dictionary-learning==0.1.0")
_UNFIT = ("torchvision", "diffusers")
"""What dictionary-learning's nnsight brings for images: built for another torch, and they stop its import."""


def make_peers(folder: Path) -> Path:
    """The Python of the environment in `folder`, made where it is not there yet.

    Raises `CalledProcessError` with pip's words in its ``stderr`` where the packages cannot be fetched.
    """
    python, done = folder / "bin" / "python", folder / "made"
    if done.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    kept = folder / "constraints.txt"
    kept.write_text(f"torch=={version('torch').partition('+')[0]}\n", encoding="utf-8")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "-c", str(kept), *PEERS], check=True, capture_output=True, text=True)
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", *_UNFIT], check=True, capture_output=True, text=True)
    done.touch()
    return python


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    print(make_peers(parser.parse_args().folder.expanduser().resolve()))
