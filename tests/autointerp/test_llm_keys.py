"""API keys come from the environment and go nowhere."""

from pathlib import Path

import pytest

from autointerp.llm import anthropic, openai
from autointerp.llm.catalog import make_providers
from autointerp.llm.keys import api_key, redact, redact_known, setting
from autointerp.llm.provider import answer_key
from sae.errors import UserError
from tests.autointerp.llm_parts import request

SECRET = "unmistakable-secret-0123456789"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (anthropic.KEY, anthropic.URL, openai.KEY, openai.URL):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_missing_key_is_named() -> None:
    """The message says which variable to set."""
    with pytest.raises(UserError, match="There is no ANTHROPIC_API_KEY"):
        make_providers(["anthropic/claude-haiku-5-5"])


def test_a_key_is_read_from_a_file_without_being_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` is read; the environment wins over it, and does not get its values."""
    Path(".env").write_text(f"ANTHROPIC_API_KEY={SECRET}\nOTHER=${{HOME}}\n")
    assert api_key(anthropic.KEY) == SECRET
    assert setting("OTHER") == "${HOME}"
    assert anthropic.KEY not in __import__("os").environ
    monkeypatch.setenv(anthropic.KEY, "from-the-environment")
    assert api_key(anthropic.KEY) == "from-the-environment"


def test_a_file_that_is_not_text_is_named() -> None:
    """A broken `.env` is said, not guessed at."""
    Path(".env").write_bytes(b"\xff\xfe\x00K")
    with pytest.raises(UserError, match=r"\.env is not UTF-8"):
        setting(anthropic.KEY)


def test_a_key_that_was_read_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it stands in a text."""
    monkeypatch.setenv(anthropic.KEY, SECRET)
    api_key(anthropic.KEY)
    assert redact(f"bad key {SECRET}!") == "bad key [key]!"
    assert redact_known(f'"{SECRET}"') == '"[key]"'


@pytest.mark.parametrize("text", ["sk-proj-abcdef123", "sk-abc***wxyz", "Bearer abc.def-123"])
def test_what_looks_like_a_key_is_hidden_in_messages_only(text: str) -> None:
    """Providers echo keys that are half masked; an answer that happens to have such words is left alone."""
    assert redact(f"Incorrect key: {text}") == "Incorrect key: [key]"
    assert redact_known(text) == text


def test_ordinary_words_are_left_alone() -> None:
    """Hiding must not garble."""
    text = "risk-averse task-management at a bearer market"
    assert redact(text).startswith("risk-averse task-management")


def test_an_unknown_provider_is_refused_with_the_nearest() -> None:
    """A slip of the pen is caught before anything runs."""
    with pytest.raises(UserError, match="Did you mean anthropic"):
        make_providers(["antropic/claude-haiku-5-5"])
    with pytest.raises(UserError, match="names no model"):
        make_providers(["openai/"])


def test_a_base_url_that_nothing_uses_is_refused() -> None:
    """An option that is silently ignored would send the calls, and the money, elsewhere."""
    with pytest.raises(UserError, match="--base-url"):
        make_providers(["anthropic/claude-haiku-5-5"], "http://127.0.0.1:8000/v1", offline=True)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host/v1", "http://"])
def test_a_base_url_must_be_a_web_address(url: str) -> None:
    """The message shows one."""
    with pytest.raises(UserError, match="no web address"):
        make_providers(["openai/m"], url)


def test_a_local_server_needs_no_key() -> None:
    """Most ask for none."""
    [provider] = make_providers(["openai/m"], "http://127.0.0.1:8000/v1/").values()
    assert provider.address == "127.0.0.1:8000/v1"


def test_addresses_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the SDKs have it; models of one provider share one."""
    monkeypatch.setenv(anthropic.URL, "https://user:pass@gateway.example/claude")
    made = make_providers(["anthropic/a", "anthropic/b"], offline=True)
    assert made["anthropic/a"] is made["anthropic/b"]
    assert made["anthropic/a"].address == "gateway.example/claude"


def test_the_same_model_elsewhere_has_another_key() -> None:
    """Two servers are two models, whatever they call themselves."""
    asked = request(model="openai/m")
    [first] = make_providers(["openai/m"], "http://127.0.0.1:8000/v1").values()
    [second] = make_providers(["openai/m"], "http://127.0.0.1:8001/v1").values()
    assert answer_key(first, asked) != answer_key(second, asked)
