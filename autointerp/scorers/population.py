"""The whole score split's Pearson correlation and average precision, estimated from few simulated excerpts."""

from collections.abc import Mapping
from dataclasses import dataclass

from autointerp import estimation

HEADLINE = "pearson"
"""The measure that is reported first."""
_ESTIMATORS: Mapping[str, estimation.Estimator] = {
    HEADLINE: estimation.pearson,
    "auprc": estimation.auprc,
    "f1": estimation.f1,
}
MEASURES = (
    *_ESTIMATORS,
    "pearson_seen",
    "unigram_pearson",
    "unigram_auprc",
    "quantised_oracle_pearson",
    "quantised_oracle_auprc",
    "effective_sample",
)
"""Every measure of a score. ``pearson_seen`` is the headline with an interval for false predictions such as were drawn;
the headline's own interval holds those too that may lie where none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """How many anchors are drawn from which strata."""

    top: int = 8
    """Highest firing anchors of different windows: a stratum that is taken whole."""
    strata: int = 6
    """Strata of the other firing anchors: pairs of neighbouring activation intervals."""
    firing: int = 48
    """Firing anchors in all, at most."""
    silent: int = 72
    """Anchors drawn in search of false predictions, at most; those that fire are not simulated."""
    proposed: int = 5
    """Strata of tokens that the explanation or the unigram table makes likely."""
    uniform: float = 0.3
    """Share of the silent draws that are uniform over all anchors."""
    fewest: int = 4
    """Draws in every stratum that has as many."""


ALLOCATION = Allocation()
"""120 excerpts."""
