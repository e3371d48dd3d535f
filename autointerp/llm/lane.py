"""The way to one model: how many calls at once, and how fast. Providers limit each model apart."""

from collections.abc import Mapping

from autointerp.llm.concurrency import Slots
from autointerp.llm.faults import Fault
from autointerp.llm.limits import RateLimits, Ticket
from autointerp.records.call import Usage


class Lane:
    """The slots and rate limits of a model, and what each attempt teaches them."""

    def __init__(self, concurrency: int, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self.slots = Slots(concurrency)
        self.limits = RateLimits(requests_per_minute, tokens_per_minute)

    def answered(self, ticket: Ticket, headers: Mapping[str, str], usage: Usage | None) -> None:
        """An attempt was answered; `usage` None leaves the estimate of its tokens."""
        self.limits.learn(headers)
        if usage is not None:
            self.limits.settle(ticket, usage)
        self.slots.succeeded()

    def failed(self, ticket: Ticket, fault: Fault) -> None:
        """An attempt was not answered; where the provider turned it away, it took no tokens."""
        self.limits.learn(fault.headers)
        if not fault.billed:
            self.limits.settle(ticket, None)
        if fault.kind == "rate_limited":
            self.slots.limited(fault.retry_after)
        elif fault.overloaded:
            self.slots.overloaded(fault.retry_after)
        elif fault.kind not in ("bad_request", "too_long"):
            self.slots.troubled()
