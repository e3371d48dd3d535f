"""Where a run's calls stand."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of this session, money of all sessions."""

    in_flight: int
    """Different requests waiting, being sent or being retried."""
    done: int
    """Requests answered or failed."""
    cached: int
    """Of these, how many cost nothing."""
    spent: int
    """Nano-dollars settled, by all sessions of this run; unknown bills count at their bound."""
    reserved: int
    """Nano-dollars held by requests under way."""
    cap: int | None
    """The budget in nano-dollars; None for no limit."""
    retries: Mapping[str, int]
    """Repeated attempts, by kind of fault."""
    failed: Mapping[str, int]
    """Failures returned, by kind."""
