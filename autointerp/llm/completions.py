"""Servers that return the log-probabilities of a prompt: vLLM's ``/v1/completions`` and its like."""

from typing import Any

from autointerp.llm.faults import malformed
from autointerp.llm.openai import OpenAISdk
from autointerp.llm.provider import Answer, Body, Sent, error_inside, model_name
from autointerp.llm.slots import Slot, keep_digits, read_reduced, reduced, slot_text, slot_tokens
from autointerp.llm.usage import reported_usage
from autointerp.records.call import Request

TOP = 20
"""Likeliest tokens asked for per position: the most that vLLM gives unless it is started with more."""


class CompletionsProvider(OpenAISdk):
    """Sends one text, asks for no output, and keeps of the echo only what is likely at each hidden level."""

    def render(self, request: Request) -> Body:
        """Everything that is sent and can change the answer."""
        prompt = slot_text(request)
        return {"model": model_name(request), "prompt": prompt, "echo": True, "logprobs": TOP, "max_tokens": 0}

    async def send(self, request: Request) -> Sent:
        """Send once. Raises `Fault`.

        The body is reduced before it is stored: an echo has `TOP` log-probabilities for every token of the
        instructions too, a thousand times what is asked. What is kept is a digit's log-probability at each slot.
        """
        sent = await self._post("/completions", self.render(request))
        if fault := error_inside(sent.body):
            raise fault
        slots = _slots(request, sent.body)
        body = reduced(slots, sent.body.get("usage"), str(sent.body.get("model", "")))
        return Sent(body, sent.request_id, sent.headers)

    def read(self, body: Body) -> Answer:
        """What a reduced `body` says. Raises `Fault` where it says nothing."""
        return read_reduced(body, reported_usage(body, "openai", "chat"))


def _slots(request: Request, body: Body) -> list[Slot]:
    """What is likely at each slot; None where the server does not say."""
    choices = body.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise malformed("no choices")
    said: dict[str, Any] = choices[0].get("logprobs") or {}
    tokens, likely = said.get("tokens") or [], said.get("top_logprobs") or []
    if len(tokens) != len(likely):
        raise malformed("tokens and log-probabilities do not match")
    found = slot_tokens(slot_text(request), len(request.system), tokens)
    return [None if index is None else keep_digits(likely[index]) for index in found]
