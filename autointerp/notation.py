r"""How tokens and activations are written for a judge and read back: every writer has its reader beside it.

A token is bytes. On a line it is *displayed*: readable UTF-8 as it is, anything else as an escape (``\n``, ``\xe2``),
so that a token that is half a character can be shown, and found again exactly.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int64

STEPS = 10
"""Equal steps into which levels cut the range from 0 to the maximum."""
SEPARATOR = "│"
"""Between the tokens of a line; a token that contains it is displayed with its bytes escaped."""
TAB = "\t"
"""Between a token and its level where each token has a line; no displayed token contains it."""
HIDDEN = "?"
"""Stands on such a line for a level that is not shown."""
_DIGITS = "0123456789A"
"""One character per level; ``A`` is level 10."""
_NAMED = {0x5C: "\\\\", 0x0A: "\\n", 0x09: "\\t", 0x0D: "\\r"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|([\\ntr]))|([^\\]+)")
_NAMED_BYTES = {text[1]: bytes([byte]) for byte, text in _NAMED.items()}


def quantise(activations: Float[np.ndarray, "*shape"], maximum: float, top_level: int) -> Int64[np.ndarray, "*shape"]:
    """Levels of `activations`: floor(10 * activation / maximum), clipped to [0, top_level].

    All zeros where `maximum` is not positive. With a top level of 9 the maximum itself shares level 9 with the tenth
    step; with 10 it has a level of its own.
    """
    if maximum <= 0:
        return np.zeros(np.shape(activations), dtype=np.int64)
    scaled = np.floor(STEPS * np.asarray(activations, dtype=np.float64) / maximum)
    return np.clip(scaled, 0, top_level).astype(np.int64)


def certainty(level: float) -> float:
    """Certainty, 0 to 1, that a unit fires where its expected level is `level`: one half at level 1, rising with it."""
    return float(level / (level + 1.0))


def marks_certainty(levels: Float[np.ndarray, " token"], marked: Sequence[int]) -> float:
    """Certainty that the `marked` tokens are those that fire, from a level for each: the mean of theirs."""
    return float((levels / (levels + 1.0))[list(marked)].mean())


def display(token: bytes) -> str:
    """`token` as one line of readable text that never contains `SEPARATOR`; `parse` inverts it."""
    return "".join(_displayed(token))


def _displayed(token: bytes) -> Iterator[str]:
    for char in token.decode("utf-8", errors="surrogateescape"):
        if char.isprintable() and char not in ("\\", SEPARATOR):
            yield char
        else:
            for byte in char.encode("utf-8", errors="surrogateescape"):
                yield _NAMED.get(byte, f"\\x{byte:02x}")


def parse(text: str) -> bytes:
    """The token that `text` displays. Raises `ValueError` where `text` displays none."""
    token, end = b"", 0
    while end < len(text):
        match = _ESCAPE.match(text, end)
        if match is None:
            raise ValueError(f"{text!r} has an unknown escape at character {end}.")
        hexadecimal, named, plain = match.groups()
        token += bytes.fromhex(hexadecimal) if hexadecimal else _NAMED_BYTES[named] if named else plain.encode()
        end = match.end()
    return token


def join(tokens: Sequence[str]) -> str:
    """One or more displayed tokens as one line. Raises `ValueError` where a token contains the separator."""
    if not tokens or any(SEPARATOR in token for token in tokens):
        raise ValueError(f"A line has one or more tokens, none of which contains {SEPARATOR!r}: {tokens!r}.")
    return SEPARATOR.join(tokens)


def split(line: str) -> tuple[str, ...]:
    """The displayed tokens of a line that `join` wrote."""
    return tuple(line.split(SEPARATOR))


def write_levels(levels: Iterable[int]) -> str:
    """One character per level: its digit, or ``A`` for level 10."""
    return "".join(_DIGITS[level] for level in levels)


def read_levels(text: str, n: int, top_level: int) -> tuple[int, ...] | None:
    """The `n` levels that `text` writes, or None where it is anything else, be it by one space."""
    allowed = _DIGITS[: top_level + 1]
    if len(text) != n or any(char not in allowed for char in text):
        return None
    return tuple(allowed.index(char) for char in text)


_LEVEL = r"([0-9]+(?:\.[0-9])?)"
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_ENTRY = re.compile(f"{_QUOTED} at {_LEVEL}")
_TABLE = re.compile(rf"Fires on ({_ENTRY.pattern}(?:, {_ENTRY.pattern})*); on any other token at {_LEVEL}\.")


def write_table(entries: Sequence[tuple[str, float]], default: float) -> str:
    """A table of levels per displayed token as a sentence: ``Fires on " the" at 9; on any other token at 0.``

    Levels are written to one decimal. Raises `ValueError` without entries.
    """
    if not entries:
        raise ValueError("A table has at least one entry.")
    listed = ", ".join(f"{_quote(token)} at {_write_level(level)}" for token, level in entries)
    return f"Fires on {listed}; on any other token at {_write_level(default)}."


def read_table(text: str) -> tuple[tuple[tuple[str, float], ...], float] | None:
    """Entries and default of a sentence that `write_table` wrote, or None where it is anything else."""
    match = _TABLE.fullmatch(text)
    if match is None:
        return None
    entries = tuple((_unquote(token), float(level)) for token, level in _ENTRY.findall(match[1]))
    return entries, float(match[match.re.groups])


def _quote(token: str) -> str:
    return '"' + token.replace('"', '\\"') + '"'


def _unquote(quoted: str) -> str:
    # A displayed token's own backslashes come in whole escapes, so pairs are read from the left.
    return re.sub(r"\\(.)", lambda pair: '"' if pair[1] == '"' else pair[0], quoted)


def _write_level(level: float) -> str:
    return f"{level:.1f}".removesuffix(".0")
