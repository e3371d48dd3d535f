"""Two subjects that many tests read and none changes."""

import pytest

from sae.subject import Subject
from tests.sae.tiny import gpt2, llama


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A GPT-2 with ReLU neurons."""
    return gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A Llama with gated neurons."""
    return llama(tmp_path_factory.mktemp("llama"))
