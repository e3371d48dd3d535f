"""An explainer that needs no language model: a table of levels per token, written out in words."""

from collections import defaultdict
from dataclasses import dataclass

from autointerp import notation
from autointerp.records.explanation import Evidence, Explanation, Failure

NAME = "lookup"
"""Who the explanation says wrote it."""


@dataclass(frozen=True, slots=True)
class LookupExplainer:
    """Writes down the mean level of the tokens that matter most in the evidence.

    The table is the whole explanation: the same evidence as a language model gets, with no understanding of context.
    """

    max_entries: int = 20
    """Tokens in the table: those with the highest count times squared mean level, so that the table leaves the least
    squared error. On held-out activations of neurons it predicted better than ranking by the total or by the mean."""

    async def explain(self, evidence: Evidence, draw: int = 0) -> Explanation | Failure:  # noqa: ARG002
        """The table in words, the same at every draw.

        A `Failure` (``constant``, ``silent``) where the evidence has nothing to tell apart.
        """
        return token_table(evidence, self.max_entries)


def token_table(evidence: Evidence, max_entries: int = 20) -> Explanation | Failure:
    """What `LookupExplainer` says of `evidence`."""
    seen: defaultdict[str, list[int]] = defaultdict(list)
    for excerpt in evidence.excerpts:
        for token, level in zip(excerpt.tokens, excerpt.levels, strict=True):
            seen[token].append(level)
    levels = {level for token in seen.values() for level in token}
    if len(levels) < 2:
        return Failure("explain", "constant", f"All levels of the evidence are the same: {sorted(levels)}.")
    largest = sorted(seen, key=lambda token: (-(sum(seen[token]) ** 2) / len(seen[token]), token))
    means = ((token, round(sum(seen[token]) / len(seen[token]), 1)) for token in largest[:max_entries])
    entries = sorted((entry for entry in means if entry[1] > 0), key=lambda entry: -entry[1])
    if not entries:
        return Failure("explain", "silent", "No token of the evidence has a mean level that rounds above 0.")
    return Explanation(notation.write_table(entries, default=0.0), NAME)
