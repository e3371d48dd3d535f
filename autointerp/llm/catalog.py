"""Providers by name."""

from collections.abc import Iterable, Mapping

from autointerp.llm import anthropic, openai
from autointerp.llm.anthropic_batches import AnthropicBatches
from autointerp.llm.batch_provider import BatchProvider
from autointerp.llm.completions import CompletionsProvider
from autointerp.llm.keys import api_key, find_key, setting
from autointerp.llm.openai_batches import OpenAIBatches
from autointerp.llm.provider import Provider
from sae.errors import UserError, nearest

PROVIDERS = ("anthropic", "openai", "slots", "local")
SLOT_PROVIDERS = ("slots", "local")
"""Those that write nothing and only say what is likely where a text hides levels."""


def make_providers(
    models: Iterable[str], base_url: str | None = None, *, offline: bool = False, device: str = "auto"
) -> Mapping[str, Provider]:
    """Who answers for each of `models` (``provider/name``); models of one provider share its connections.

    `base_url` is any OpenAI-compatible server, for the models of `openai` and `slots`; without it ``OPENAI_BASE_URL``
    and ``ANTHROPIC_BASE_URL`` are honoured. `offline` asks for no key: such providers render and read, but cannot send.
    `device` is where models of `local` run. Raises `UserError` for an unknown provider, a missing key or local model,
    or a `base_url` that is missing or that no model would use.
    """
    names = sorted(set(models))
    prefixes = {model: _provider_of(model) for model in names}
    if base_url and not {"openai", "slots"} & set(prefixes.values()):
        what = "--base-url is given, but no model is of openai/ or slots/."
        do = "Name the server's model openai/MODEL or slots/MODEL, or leave --base-url out."
        raise UserError(what, do=do, usage=True)
    made: dict[str, Provider] = {}
    for model, prefix in prefixes.items():
        if prefix == "local":
            made[model] = _local(model, device)
        elif prefix not in made:
            made[prefix] = _remote(prefix, base_url, offline=offline)
    return {model: made[model if prefix == "local" else prefix] for model, prefix in prefixes.items()}


def make_batch_providers(models: Iterable[str], base_url: str | None = None) -> Mapping[str, BatchProvider]:
    """The batch API for each of `models`, at the address that `make_providers` calls; raises as that does."""
    made: dict[str, BatchProvider] = {}
    models = list(models)
    for prefix in sorted({_provider_of(model) for model in models}):
        if prefix == "anthropic":
            made[prefix] = AnthropicBatches(api_key(anthropic.KEY), setting(anthropic.URL) or anthropic.DEFAULT_URL)
        elif prefix in SLOT_PROVIDERS:
            raise UserError(f"{prefix}/ has no batch API.", do="Leave --batch out.", usage=True)
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


def _remote(prefix: str, base_url: str | None, *, offline: bool) -> Provider:
    match prefix:
        case "anthropic":
            return _anthropic(offline=offline)
        case "slots":
            return _slots(base_url)
        case _:
            return _openai(base_url, offline=offline)


def _local(model: str, device: str) -> Provider:
    from autointerp.llm.local import LocalProvider  # imports torch

    return LocalProvider(model.partition("/")[2], device)


def _slots(base_url: str | None) -> Provider:
    url = base_url or setting(openai.URL)
    if url is None:
        why = "OpenAI returns no log-probabilities of prompts."
        raise UserError("slots/ needs a server.", why, "Give --base-url, such as http://127.0.0.1:8000/v1.", usage=True)
    return CompletionsProvider(find_key(openai.KEY) or "none", url)


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
