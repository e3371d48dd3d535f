"""Shared by all tests: determinism, no way out of this machine, and the subject that runs are made on."""

import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # two workers on two cores: more threads only wait for each other
for name in [name for name in os.environ if name.startswith(("AUTOINTERP_", "ANTHROPIC_", "OPENAI_"))]:
    del os.environ[name]

from hypothesis import HealthCheck, settings  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

if TYPE_CHECKING:
    from tests.servers.loopback import Server

settings.register_profile(
    "fast", max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fast")


def array_modules() -> list[str]:
    """Modules of ours that declare shapes, themselves or by the alias `Activations`.

    Checking every call of the others costs a run half a minute; their types are checked without running them.
    """
    root = Path(__file__).parent.parent
    files = [path for package in ("sae", "autointerp") for path in sorted((root / package).rglob("[!_]*.py"))]
    words = ("jaxtyping", "Activations")
    found = [path for path in files if any(word in path.read_text(encoding="utf-8") for word in words)]
    return [".".join(path.relative_to(root).with_suffix("").parts) for path in found]


install_import_hook(array_modules(), "beartype.beartype")  # shapes and types are checked in tests only

# Fixtures import what they need when they are used: the process that only hands out tests loads this file too.


def pytest_configure(config: pytest.Config) -> None:
    """In the processes that run tests, import the large libraries before any module of ours.

    What a module under the import hook is the first to import is compiled again: the hook has a cache of its own.
    """
    if hasattr(config, "workerinput") or not config.getoption("numprocesses"):
        for name in ("anthropic", "beartype", "scipy.stats", "transformers.modeling_utils"):
            importlib.import_module(name)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a GPT-2 with ReLU neurons and an autoencoder that `train` made of it."""
    from sae.corpus.generated import generated_documents
    from tests.runs import SITE, command
    from tests.sae.tiny import gpt2_folder

    place = tmp_path_factory.mktemp("end-to-end")
    texts = [document.text for document in generated_documents(60, seed=3, characters=1200)]
    (place / "corpus.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    gpt2_folder(place / "subject", layers=1, context=32)
    trained = command(
        "train", "--subject", place / "subject", "--site", SITE, "--out", place / "sae", "--d-sae", "48",
        "--tokens", "20k", "--context", "32", "--corpus", place / "corpus.jsonl",
    )  # fmt: skip
    assert trained == 0
    return place


@pytest.fixture(scope="session")
def harvest(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harvested run, not yet explained."""
    from tests.runs import arguments, command

    out = tmp_path_factory.mktemp("pitfalls") / "run"
    assert command("harvest", *arguments(place, out, "--features", "0:4", "--baseline", "neurons")) == 0
    return out


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Server]":
    """Both providers on loopback, with a bill."""
    from tests.runs import lead_to
    from tests.servers.loopback import serve

    with serve(bill=tmp_path / "bill.jsonl") as running:
        lead_to(running.url, monkeypatch)
        yield running


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the runs of these tests, and is tested elsewhere."""
    monkeypatch.setattr("autointerp.ending.draw", lambda *_: None)
