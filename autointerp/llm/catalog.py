"""Providers by name."""

from collections.abc import Iterable, Mapping

from autointerp.llm import anthropic, openai
from autointerp.llm.anthropic_batches import AnthropicBatches
from autointerp.llm.batch_provider import BatchProvider
from autointerp.llm.keys import api_key, find_key, setting
from autointerp.llm.openai_batches import OpenAIBatches
from autointerp.llm.provider import Provider
from sae.errors import UserError, nearest

PROVIDERS = ("anthropic", "openai")


def make_providers(
    models: Iterable[str], base_url: str | None = None, *, offline: bool = False
) -> Mapping[str, Provider]:
    """Who answers for each of `models` (``provider/name``); models of one provider share its connections.

    `base_url` is any OpenAI-compatible server, for the models of `openai`; without it ``OPENAI_BASE_URL`` and
    ``ANTHROPIC_BASE_URL`` are honoured. `offline` asks for no key: such providers render and read, but cannot send.
    Raises `UserError` for an unknown provider, a missing key, or a `base_url` that no model would use.
    """
    names = sorted(set(models))
    prefixes = {model: _provider_of(model) for model in names}
    if base_url and "openai" not in prefixes.values():
        what = "--base-url is given, but no model is of openai/."
        raise UserError(what, do="Name the server's model openai/MODEL, or leave --base-url out.", usage=True)
    made: dict[str, Provider] = {}
    for prefix in sorted(set(prefixes.values())):
        made[prefix] = _anthropic(offline=offline) if prefix == "anthropic" else _openai(base_url, offline=offline)
    return {model: made[prefix] for model, prefix in prefixes.items()}


def make_batch_providers(models: Iterable[str], base_url: str | None = None) -> Mapping[str, BatchProvider]:
    """The batch API for each of `models`, at the address that `make_providers` calls; raises as that does."""
    made: dict[str, BatchProvider] = {}
    for prefix in sorted({_provider_of(model) for model in models}):
        if prefix == "anthropic":
            made[prefix] = AnthropicBatches(api_key(anthropic.KEY), setting(anthropic.URL) or anthropic.DEFAULT_URL)
        else:
            made[prefix] = OpenAIBatches(*_openai_place(base_url))
    return {model: made[_provider_of(model)] for model in models}


def _provider_of(model: str) -> str:
    prefix, _, name = model.partition("/")
    if prefix not in PROVIDERS:
        why = f"{prefix!r} is no provider. {nearest(prefix, PROVIDERS)}"
        raise UserError(f"{model!r} is no language model that can be called.", why, usage=True)
    if not name:
        raise UserError(f"{model!r} names no model.", do=f"Give {prefix}/MODEL.", usage=True)
    return prefix


def _anthropic(*, offline: bool) -> Provider:
    key = None if offline else api_key(anthropic.KEY)
    return anthropic.AnthropicProvider(key, setting(anthropic.URL) or anthropic.DEFAULT_URL)


def _openai(base_url: str | None, *, offline: bool) -> Provider:
    if offline:
        return openai.OpenAIProvider(None, base_url or setting(openai.URL) or openai.DEFAULT_URL)
    return openai.OpenAIProvider(*_openai_place(base_url))


def _openai_place(base_url: str | None) -> tuple[str, str]:
    """Key and address."""
    url = base_url or setting(openai.URL) or openai.DEFAULT_URL
    key = api_key(openai.KEY) if url == openai.DEFAULT_URL else find_key(openai.KEY)
    return key or "none", url  # most local servers ask for no key, but the SDK does
