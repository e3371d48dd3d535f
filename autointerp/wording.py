"""How explanations are worded: long ones, and ones that repeat what they were shown, may win for that alone."""

import re

from autointerp.records.explanation import Evidence

_WORD = re.compile(r"\w+")


def n_words(text: str) -> int:
    """Words of an explanation: runs of letters, digits and underscores."""
    return len(_WORD.findall(text))


def literal_overlap(text: str, evidence: Evidence) -> float:
    """Share of the explanation's words that occur in tokens on which the unit fired in its evidence, 0 to 1.

    Case does not count; 0 for an explanation without words.
    """
    shown = {
        word
        for excerpt in evidence.excerpts
        for token, level in zip(excerpt.tokens, excerpt.levels, strict=True)
        if level > 0
        for word in _WORD.findall(token.lower())
    }
    words = _WORD.findall(text.lower())
    return sum(word in shown for word in words) / len(words) if words else 0.0
