"""A simulator that needs no language model: it reads a token table out of the explanation's text."""

from collections.abc import Sequence
from dataclasses import dataclass

from autointerp import notation
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Prediction


@dataclass(frozen=True, slots=True)
class LookupSimulator:
    """Predicts each token's level from the table that the text writes (`notation.write_table`)."""

    async def simulate(self, explanation: Explanation, items: Sequence[Item]) -> Sequence[Prediction | Failure]:
        """One prediction per item, or one `Failure` (``unreadable``) per item where the text is no table.

        The empty text is a table without entries: it predicts 0 everywhere.
        """
        table = notation.read_table(explanation.text) if explanation.text else ((), 0.0)
        if table is None:
            failure = Failure("simulate", "unreadable", f"Not a token table: {explanation.text[:80]!r}")
            return [failure] * len(items)
        entries, default = table
        levels = dict(entries)
        return [Prediction(tuple(levels.get(token, default) for token in item.tokens)) for item in items]
