"""A provider's rate limit: a sliding window, announced in headers."""

import math
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass
class RateLimit:
    """At most so many requests and tokens in any window."""

    requests: int | None = None
    """Requests per window; None for no limit."""
    tokens: int | None = None
    """Tokens per window, each call counting its input and its ``max_tokens``; None for no limit."""
    window: float = 60.0
    """Seconds."""
    _log: deque[tuple[float, int]] = field(default_factory=deque)
    _tokens: int = 0

    def admit(self, tokens: int) -> float:
        """Count a call and return 0; or leave it out, and return the seconds until it would fit."""
        now = time.monotonic()
        while self._log and self._log[0][0] <= now - self.window:
            self._tokens -= self._log.popleft()[1]
        full = self.requests is not None and len(self._log) >= self.requests
        if full or (self.tokens is not None and self._tokens + tokens > self.tokens):
            return max(0.001, (self._log[0][0] if self._log else now) + self.window - now)
        self._log.append((now, tokens))
        self._tokens += tokens
        return 0.0

    def headers(self, *, anthropic: bool, wait: float = 0.0) -> dict[str, str]:
        """What the provider says about the limit; with `wait`, when to come again."""
        reset = max(0.0, self._log[0][0] + self.window - time.monotonic()) if self._log else 0.0
        said = {"retry-after": str(math.ceil(wait))} if wait else {}
        for name, most, used in (("requests", self.requests, len(self._log)), ("tokens", self.tokens, self._tokens)):
            if most is None:
                continue
            left = max(0, most - used)
            if anthropic:
                when = datetime.fromtimestamp(time.time() + reset, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                kinds = ("requests",) if name == "requests" else ("tokens", "input-tokens", "output-tokens")
                for kind in kinds:
                    numbers = (("limit", most), ("remaining", left), ("reset", when))
                    said |= {f"anthropic-ratelimit-{kind}-{what}": str(value) for what, value in numbers}
            else:
                numbers = (("limit", most), ("remaining", left), ("reset", f"{reset:.3f}s"))
                said |= {f"x-ratelimit-{what}-{name}": str(value) for what, value in numbers}
        return said
