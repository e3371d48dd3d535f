"""Mistakes that a user can mend."""

import difflib
from collections.abc import Iterable
from typing import Any

_MOST_SHOWN = 40
"""Valid values that a message can list."""


class UserError(Exception):
    """What is wrong, why, and what to do; shown without a traceback.

    Commands print the message and exit with 1 (2 for a fault in the command line or the configuration).
    """

    def __init__(self, what: str, why: str = "", do: str = "", *, usage: bool = False) -> None:
        super().__init__("\n".join(part for part in (what, why, do) if part))
        self.usage = usage


def nearest(wrong: str, valid: Iterable[str]) -> str:
    """`` Did you mean X?`` for the valid value nearest to `wrong`, or the valid values where none is near."""
    choices = sorted(valid)
    close = difflib.get_close_matches(wrong, choices, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]}?"
    if len(choices) > _MOST_SHOWN:
        return f"There are {len(choices):,} valid ones, such as {', '.join(choices[:3])}."
    return f"Valid: {', '.join(choices)}." if choices else ""


def differences(then: Any, now: Any, name: str = "") -> list[str]:
    """What two JSON values differ in, such as ``recipe seed was 0, now 1``."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = sorted({*then, *now})
        return [line for key in keys for line in differences(then.get(key), now.get(key), f"{name} {key}".strip())]
    return [] if then == now else [f"{name} was {then}, now {now}"]
