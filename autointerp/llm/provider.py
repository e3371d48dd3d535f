"""What a provider is: it renders a request, sends it, and reads what came back. Nothing else."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, cast, runtime_checkable
from urllib.parse import urlsplit

from autointerp.llm.faults import Fault, malformed, status_fault
from autointerp.records.call import Request, Usage
from sae.errors import UserError

Status: TypeAlias = Literal["answered", "refusal", "truncated", "empty"]
"""What was paid for: all four are stored."""
Body: TypeAlias = dict[str, Any]
"""A JSON object."""

TIMEOUT = 600.0
"""Seconds of silence after which an attempt is given up."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came back over the wire."""

    body: Body
    """The provider's JSON, as it came."""
    request_id: str
    """The provider's name for the call; empty where it gives none."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the provider says besides, names in lower case: its rate limits, perhaps."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a body says."""

    status: Status
    """Whether it is an answer."""
    text: str
    """The answer's text, or why there is none."""
    usage: Usage | None
    """Tokens; None where the provider does not say, and then the call is charged at its bound."""
    served: str
    """Model that the provider says answered."""


@runtime_checkable
class Provider(Protocol):
    """Sends requests to one address."""

    @property
    def address(self) -> str:
        """Host and path, part of the key: the same model elsewhere is another model."""
        ...

    def render(self, request: Request) -> Body:
        """Everything that is sent and can change the answer; caching marks and service tiers are added by `send`."""
        ...

    async def send(self, request: Request) -> Sent:
        """Send once. Raises `Fault`."""
        ...

    def read(self, body: Body) -> Answer:
        """What `body` says. Raises `Fault` where it says nothing."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


def answer_key(provider: Provider, request: Request, *, draw: int = 0) -> bytes:
    """SHA-256 of everything that can change the answer; stage, arm and caching marks are left out.

    `draw` counts the further draws that a refused, cut-off or empty answer was given: every one of them stays stored.
    """
    parts = {
        "model": request.model,
        "address": provider.address,
        "body": provider.render(request),
        "replicate": request.replicate,
        "draw": draw,
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(b"v1\0" + text.encode()).digest()


def model_name(request: Request) -> str:
    """The model without its provider."""
    return request.model.partition("/")[2]


def address_of(base_url: str) -> str:
    """Host, port and path of `base_url`; raises `UserError` where it is no web address."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{base_url!r} is no web address.", do="Give one such as http://127.0.0.1:8000/v1.", usage=True)
    return parts.netloc.rpartition("@")[2] + parts.path.rstrip("/")


def parse_body(text: str) -> Body:
    """The JSON object in `text`; raises `Fault`."""
    try:
        body = json.loads(text)
    except ValueError:
        raise malformed(text) from None
    if not isinstance(body, dict):
        raise malformed(text)
    return cast(Body, body)


def error_inside(body: Body) -> Fault | None:
    """The fault that a body of status 200 carries, if it does: some servers report overload like that."""
    if not body.get("error"):
        return None
    return status_fault(500, {}, json.dumps(body["error"]))
