"""Whether a unit is about one token: such units score well without anybody understanding anything."""

from collections import defaultdict

import numpy as np

from autointerp.records.unit import UnitRecord


def single_token(record: UnitRecord) -> bool | None:
    """Whether the token at the maximum is the same in all top excerpts of the explain split; None without excerpts.

    Source: Bricken et al. 2023, the section on randomised transformers, on the 20 examples of the top interval.
    """
    top = [excerpt for excerpt in record.excerpts["explain"] if excerpt.group == "top"]
    return len({excerpt.ids[excerpt.anchor] for excerpt in top}) == 1 if top else None


def token_entropy(record: UnitRecord) -> float | None:
    """Bits of entropy of the activation in those excerpts over token ids: 0 where one token has all of it.

    None where there is none. Source: Heap et al. 2025, "Sparse autoencoders can interpret randomly initialized
    transformers", token distribution entropy.
    """
    mass: defaultdict[int, float] = defaultdict(float)
    for excerpt in record.excerpts["explain"]:
        if excerpt.group == "top":
            for id_, activation in zip(excerpt.ids, excerpt.activations, strict=True):
                mass[id_] += activation
    shares = np.array([value for value in mass.values() if value > 0])
    if not len(shares):
        return None
    shares /= shares.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0
