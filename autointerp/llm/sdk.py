"""What both official SDKs share: they are made by the same generator."""

import ssl
from dataclasses import dataclass
from typing import Any

from autointerp.llm.faults import sdk_fault
from autointerp.llm.provider import TIMEOUT, Body, Sent, address_of, parse_body

AT_ONCE = 4
"""Calls in flight per SDK client: for each call a client looks at every idle connection that it holds."""


@dataclass(eq=False, slots=True)
class _Connections:
    """An SDK's client, its own retries off."""

    client: Any
    in_flight: int = 0


class SdkProvider:
    """Sends bodies as they were rendered, over as many SDK clients as it takes."""

    REQUEST_ID: str
    """Header with the provider's name for a call."""

    def __init__(self, key: str | None, base_url: str, timeout: float = TIMEOUT) -> None:
        self.address = address_of(base_url)
        self._key, self._base_url, self._timeout = key, base_url, timeout
        self._connections: list[_Connections] = []
        self._tls: ssl.SSLContext | None = None

    def _connect(self, tls: ssl.SSLContext) -> Any:
        """A new client of the SDK. Importing one takes a second, so it is done at the first call."""
        raise NotImplementedError

    async def _post(self, path: str, body: Body) -> Sent:
        """Send `body` once. Raises `Fault`.

        The SDK's typed methods would walk through the body, and build objects of the answer: half of a call's time.
        """
        connections = next((each for each in self._connections if each.in_flight < AT_ONCE), None)
        if connections is None:
            self._connections.append(connections := _Connections(self._open()))
        from httpx2 import Response

        connections.in_flight += 1
        try:
            response: Response = await connections.client.post(path, body=body, cast_to=Response)
        except self._api_error() as error:
            raise sdk_fault(error, self.address) from None
        finally:
            connections.in_flight -= 1
        return Sent(parse_body(response.text), response.headers.get(self.REQUEST_ID, ""), response.headers)

    def _open(self) -> Any:
        """One more client; certificates are read once for all of them."""
        from httpx2 import create_ssl_context

        self._tls = self._tls or create_ssl_context()
        return self._connect(self._tls)

    def _api_error(self) -> type[Exception]:
        """What the SDK raises for a call that failed."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close connections."""
        for connections in self._connections:
            await connections.client.close()
