"""Single-token and multi-token units apart: on the former every score is high, and says least."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from autointerp.counted import BIGRAM_LIFT, LIFT, Counted
from autointerp.inference import Sample, average, difference
from autointerp.records.outcome import ArmInfo, Outcome
from autointerp.records.trial import Undefined
from autointerp.statistics import Estimate

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class TokenSplit:
    """One arm's scored units, apart by `selectivity.single_token`."""

    arm: str
    """Label of the arm."""
    n: tuple[int, int]
    """Single-token and multi-token units with a headline score."""
    entropy: Estimate | Undefined
    """Median token entropy of both together, in bits."""
    single: Mapping[str, Estimate | Undefined]
    """Median over the single-token units of the headline and of its lifts."""
    multi: Mapping[str, Estimate | Undefined]
    """The same over the multi-token units."""
    differences: Mapping[str, Estimate | Undefined]
    """Median over the reference's multi-token units less that over this arm's, or of a control the median of the
    differences unit by unit; empty for the reference itself."""


def token_split(table: Counted, reference: str, arm: ArmInfo) -> TokenSplit:
    """`arm` apart by single and multi-token units, and `reference` less `arm` among the latter."""
    measures = [name for name in (table.headline, LIFT, BIGRAM_LIFT) if name in table.main]
    kinds = {kind: [table.sample(arm.label, name, _of(single=kind)) for name in measures] for kind in (True, False)}
    scored = [each for each in table.arms.get(arm.label, []) if table.value(each, table.headline) is not None]
    entropies = [each.statistics.token_entropy for each in scored if each.statistics.token_entropy is not None]
    entropy = average(
        Sample.of(np.array(entropies, dtype=np.float64)), ("median",), table.rng(arm.label, "token entropy"), _RESAMPLES
    )["median"]
    medians: dict[bool, dict[str, Estimate | Undefined]] = {}
    for kind, samples in kinds.items():
        rng = table.rng(arm.label, "single" if kind else "multi")
        medians[kind] = {
            name: average(sample, ("median",), rng, _RESAMPLES)["median"]
            for name, sample in zip(measures, samples, strict=True)
        }
    differences: dict[str, Estimate | Undefined] = {}
    if arm.label != reference:
        rng = table.rng(reference, arm.label, "multi")
        for name, sample in zip(measures, kinds[False], strict=True):
            if arm.kind == "control":
                pairs = table.paired(reference, arm.label, name, _of(single=False))
                differences[name] = average(pairs, ("median",), rng, _RESAMPLES)["median"]
                continue
            own = table.sample(reference, name, _of(single=False))
            differences[name] = difference(own, sample, ("median",), rng, _RESAMPLES)["median"]
    n = len(kinds[True][0]), len(kinds[False][0])
    return TokenSplit(arm.label, n, entropy, medians[True], medians[False], differences)


def _of(*, single: bool) -> Callable[[Outcome], bool]:
    return lambda outcome: outcome.statistics.single_token is single
