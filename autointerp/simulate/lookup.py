"""Simulators that need no language model: they read a token table out of the explanation's text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autointerp import notation
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.simulate.judge import Judged


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


@dataclass(frozen=True, slots=True)
class LookupJudge:
    """Answers yes-or-no questions from the same table; of tokens to come it says nothing, and says so."""

    question: Judged
    """What is asked."""

    async def simulate(self, explanation: Explanation, items: Sequence[Item]) -> Sequence[Prediction | Failure]:
        """A certainty per item; one `Failure` (``unreadable``, or ``no_view`` of logits) per item where it has none."""
        if self.question == "logits":
            message = "lookup has no view on next tokens: a token table says on which tokens a unit fires"
            return [Failure("simulate", "no_view", message)] * len(items)
        levels = await LookupSimulator().simulate(explanation, items)
        return [
            each if isinstance(each, Failure) else Prediction((self._certainty(item, np.array(each.levels)),))
            for item, each in zip(items, levels, strict=True)
        ]

    def _certainty(self, item: Item, levels: np.ndarray) -> float:
        return notation.marks_certainty(levels, item.marked) if item.marked else notation.certainty(levels.max())
