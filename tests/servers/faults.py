"""What befalls calls: by schedule, or by lot with given shares."""

import hashlib
from collections import Counter
from collections.abc import Mapping

REFUSALS = ("429", "429:1", "500", "502", "529")
"""Statuses; after the colon, the seconds of Retry-After."""
BROKEN = ("reset", "reset-billed", "cut", "slow", "malformed")
"""A connection reset before billing, after it, or amid the body; half a body late; a body that is no JSON."""
BAD_ANSWERS = ("empty", "truncated", "refusal", "wrong-length", "other-model")
"""Billed and well-formed."""
BAD_ITEMS = ("expired", "errored")
"""Of a batch, where an item meets one of `BAD_ANSWERS` or of these."""


def even(share: float, kinds: tuple[str, ...] = (*REFUSALS, *BROKEN, *BAD_ANSWERS)) -> dict[str, float]:
    """Each of `kinds` with the same part of `share`."""
    return {kind: share / len(kinds) for kind in kinds}


class Lots:
    """Draws faults. The same for the n-th time of the same request, in whatever order requests come."""

    def __init__(self, shares: Mapping[str, float], seed: int) -> None:
        if sum(shares.values()) > 1:
            raise ValueError(f"Shares above 1: {shares}")
        self._shares, self._seed = dict(shares), seed
        self._times: Counter[str] = Counter()

    def draw(self, name: str) -> str:
        """What befalls the request called `name` this time; ``ok`` where nothing does."""
        self._times[name] += 1
        digest = hashlib.sha256(f"{self._seed} {name} {self._times[name]}".encode()).digest()
        lot = int.from_bytes(digest[:8], "big") / 2**64
        for kind, share in self._shares.items():
            if lot < share:
                return kind
            lot -= share
        return "ok"
