"""Activations on disk."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sae import cache
from sae.cache import ActivationCache
from sae.corpus.windows import Windows
from sae.errors import UserError
from sae.rows import activation_rows
from sae.subject import Subject, load_subject
from tests.sae.tiny import gpt2_folder, random_windows


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    """The same random model in two precisions."""
    folder = str(gpt2_folder(tmp_path_factory.mktemp("subject"), layers=1))
    return {dtype: load_subject(folder, dtype=dtype) for dtype in ("float32", "bfloat16")}


def _pieces(subject: Subject, windows: Windows, count: int, stored: ActivationCache | None) -> list[torch.Tensor]:
    stream = activation_rows(subject, subject.site("blocks.0.mlp.hook_post"), windows, 3, cache=stored)
    return [next(stream) for _ in range(count)]


def _open(place: Path, subject: Subject, windows: Windows, seed: int = 3) -> ActivationCache:
    return ActivationCache(place, subject, subject.site("blocks.0.mlp.hook_post"), windows, seed)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_three_passes_with_a_cache_are_those_without(
    tmp_path: Path, subjects: dict[str, Subject], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows in the same orders, computed once; a later run computes none, and one that was cut off the rest."""
    subject, windows = subjects[dtype], random_windows(subjects[dtype], 150)
    plain = _pieces(subject, windows, 9, None)
    _pieces(subject, windows, 2, _open(tmp_path, subject, windows))  # cut off in its first pass
    stored = _open(tmp_path, subject, windows)
    cached = _pieces(subject, windows, 9, stored)
    tolerance = 1e-5 if dtype == "float32" else 0.05  # products of other batches round otherwise
    for ours, expected in zip(cached, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    assert all(torch.equal(ours, expected) for ours, expected in zip(cached[:3], plain[:3], strict=True))
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    monkeypatch.setattr(Subject, "rows", None)
    again = _pieces(subject, windows, 9, _open(tmp_path, subject, windows))
    assert all(torch.equal(ours, expected) for ours, expected in zip(again, cached, strict=True))


def test_other_activations_are_refused(tmp_path: Path, subjects: dict[str, Subject]) -> None:
    """Of another subject's precision, corpus, order or site; and files that are damaged."""
    subject = subjects["float32"]
    windows = random_windows(subject, 70)
    _pieces(subject, windows, 1, _open(tmp_path, subject, windows))
    with pytest.raises(UserError, match=r"holds other activations: dtype was float32, now bfloat16"):
        _open(tmp_path, subjects["bfloat16"], windows)
    with pytest.raises(UserError, match=r"windows was \w+, now"):
        _open(tmp_path, subject, random_windows(subject, 70, seed=1))
    with pytest.raises(UserError, match="seed was 3, now 4"):
        _open(tmp_path, subject, windows, seed=4)
    with pytest.raises(UserError, match=r"site was blocks.0.mlp.hook_post, now blocks.0.hook_resid_pre"):
        ActivationCache(tmp_path, subject, subject.site("blocks.0.hook_resid_pre"), windows, 3)
    file = tmp_path / "activations-000000.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"activations-000000.safetensors cannot be read[\s\S]*Remove it"):
        _open(tmp_path, subject, windows)


def test_a_disk_without_room_is_refused_before_anything_is_computed(
    tmp_path: Path, subjects: dict[str, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored already needs no more room."""
    subject = subjects["float32"]
    windows = random_windows(subject, 70)
    needed = windows.n_tokens * 20 * 4
    for free, fits in ((needed - 1, False), (needed, True)):
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda path, free=free: shutil._ntuple_diskusage(0, 0, free))
        if fits:
            _pieces(subject, windows, 2, _open(tmp_path, subject, windows))
        else:
            with pytest.raises(UserError, match=r"GB in .*, and .* GB are free"):
                _open(tmp_path, subject, windows)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))
    assert np.all(_open(tmp_path, subject, windows)._stored)
