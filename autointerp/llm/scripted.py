"""A provider whose answers come from a function: for tests and trials without a network."""

from collections.abc import Awaitable, Callable

from autointerp.llm.provider import Answer, Body, Sent, Status
from autointerp.records.call import Request, Usage


class ScriptedProvider:
    """Answers with what `reply` returns; `reply` raises `Fault` for a call that fails."""

    def __init__(
        self,
        reply: Callable[[Request], Awaitable[str]],
        *,
        status: Status = "answered",
        tokens: tuple[int, int] = (10, 5),
    ) -> None:
        self.address = "scripted"
        self._reply, self._status, self._tokens = reply, status, tokens

    def render(self, request: Request) -> Body:
        """Everything that can change the answer."""
        return {
            "system": request.system,
            "user": request.user,
            "schema": request.schema,
            "max_tokens": request.max_tokens,
            "thinking": request.thinking,
        }

    async def send(self, request: Request) -> Sent:
        """Ask the function once."""
        text = await self._reply(request)
        status = self._status if text else "empty"
        return Sent({"text": text, "status": status, "tokens": self._tokens, "model": request.model}, "")

    def read(self, body: Body) -> Answer:
        """What the function said."""
        read, written = body["tokens"]
        return Answer(body["status"], body["text"], Usage(read, 0, 0, written), body["model"])

    async def aclose(self) -> None:
        """Nothing to close."""
