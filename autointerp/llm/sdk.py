"""What both official SDKs share: they are made by the same generator."""

from typing import Any

from autointerp.llm.faults import sdk_fault
from autointerp.llm.provider import TIMEOUT, Body, Sent, address_of, parse_body


class SdkProvider:
    """Owns an SDK's client, with its own retries off, and sends bodies as they were rendered."""

    REQUEST_ID: str
    """Header with the provider's name for a call."""
    _client: Any
    """The SDK's client, made at the first call: importing an SDK takes a second."""

    def __init__(self, key: str | None, base_url: str, timeout: float = TIMEOUT) -> None:
        self.address = address_of(base_url)
        self._key, self._base_url, self._timeout = key, base_url, timeout

    async def _post(self, path: str, body: Body) -> Sent:
        """Send `body` once. Raises `Fault`.

        The SDK's typed methods would walk through the body, and build objects of the answer: half of a call's time.
        """
        from httpx2 import Response

        try:
            response: Response = await self._client.post(path, body=body, cast_to=Response)
        except self._api_error() as error:
            raise sdk_fault(error, self.address) from None
        return Sent(parse_body(response.text), response.headers.get(self.REQUEST_ID, ""), response.headers)

    def _api_error(self) -> type[Exception]:
        """What the SDK raises for a call that failed."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close connections."""
        if "_client" in self.__dict__:
            await self._client.close()
