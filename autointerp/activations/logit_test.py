"""Which tokens are asked about in the logit-weight test: promoted ones, and two kinds of others."""

import numpy as np
from jaxtyping import Int, Int32

SHOWN = 10
"""Most promoted tokens, which the explainer was shown and which are not asked about."""
_NEAR = 10
"""Neighbours by frequency, on either side, among which a matched token is drawn first."""


def distractors(
    promoted: Int32[np.ndarray, "unit rank"], counts: Int[np.ndarray, " token"], rng: np.random.Generator
) -> tuple[Int32[np.ndarray, "unit asked"], Int32[np.ndarray, "unit asked"]]:
    """Per unit, uniformly random tokens, and tokens as frequent in the corpus as the promoted ones.

    `promoted` holds each unit's highest tokens, falling, of which those after the first `SHOWN` are asked about;
    `counts` how often the corpus has each token. None of a unit's promoted tokens is among its others, and none twice.
    Matching takes away what frequency alone could tell (P23).
    """
    order = np.lexsort((rng.permutation(len(counts)), counts))
    place = np.empty(len(counts), dtype=np.int64)
    place[order] = np.arange(len(counts))
    asked = promoted.shape[1] - SHOWN
    random = np.empty((len(promoted), asked), dtype=np.int32)
    matched = np.empty((len(promoted), asked), dtype=np.int32)
    for unit, own in enumerate(promoted):
        taken = set(own.tolist())
        # More than are needed, by as many as may be promoted.
        drawn = rng.choice(len(counts), size=min(len(counts), asked + len(own)), replace=False)
        random[unit] = [token for token in drawn.tolist() if token not in taken][:asked]
        for i, token in enumerate(own[SHOWN:].tolist()):
            matched[unit, i] = other = _near(int(place[token]), order, taken, rng)
            taken.add(other)
    return random, matched


def _near(at: int, order: np.ndarray, taken: set[int], rng: np.random.Generator) -> int:
    """A token at most `_NEAR` places from `at`, drawn at random; the nearest beyond where all of these are taken."""
    free: list[int] = []
    for distance in range(1, len(order)):
        both = (at - distance, at + distance)
        free += [other for i in both if 0 <= i < len(order) and (other := int(order[i])) not in taken]
        if free and distance >= _NEAR:
            break
    return free[int(rng.integers(len(free)))]
