"""Where each arm stands between what needs no explanation and the truth in whole levels, a reference and no bound."""

from autointerp.compare import ArmSummary, Comparison
from autointerp.counted import ABOVE_FLOOR, BIGRAM_LIFT, FLOOR, LIFT, OF_CEILING
from autointerp.records.trial import Undefined
from autointerp.report.grid import Grid
from autointerp.report.verdict import ALONE, number
from autointerp.statistics import Estimate


def ladder_grid(comparison: Comparison) -> Grid:
    """Medians over the units of each arm: the score between floor and truth, and what it adds to token tables."""
    headline = comparison.headline
    columns = {
        headline: headline,
        FLOOR: "floor",
        f"unigram_{headline}": "unigram",
        f"bigram_{headline}": "bigram",
        f"quantised_oracle_{headline}": "truth in levels",
        ABOVE_FLOOR: "above floor",
        OF_CEILING: "floor to truth",
        LIFT: "above unigram",
        BIGRAM_LIFT: "above bigram",
    }
    known = {name: title for name, title in columns.items() if any(name in arm.measures for arm in comparison.arms)}
    rows = [
        (
            arm.info.label,
            str(arm.funnel.scored),
            *(_median(arm, name) for name in known),
            "-" if arm.above_levels is None else str(arm.above_levels),
        )
        for arm in comparison.arms
    ]
    title = "Floors, the truth in levels and lifts: medians over units (intervals are under Scores)"
    return Grid(title, ("arm", "n", *known.values(), "units above the truth in levels"), tuple(rows))


def token_grids(comparison: Comparison) -> tuple[Grid, ...]:
    """Single-token and multi-token units of each arm, and the reference against each among the latter."""
    splits = [split for split in comparison.tokens if sum(split.n)]
    if not splits:
        return ()
    names = {comparison.headline: comparison.headline, LIFT: "above unigram", BIGRAM_LIFT: "above bigram"}
    known = {name: title for name, title in names.items() if name in splits[0].multi}
    rows = [
        (
            split.arm,
            f"{split.n[0]} ({split.n[0] / sum(split.n):.0%})",
            str(split.n[1]),
            _plain(split.entropy),
            *(_plain(side[name]) for name in known for side in (split.single, split.multi)),
        )
        for split in splits
    ]
    pairs = (f"{title}, {kind}" for title in known.values() for kind in ("single", "multi"))
    whole = Grid(
        "Single-token units (one token at the maximum of all top excerpts) and multi-token units: medians",
        ("arm", "single", "multi", "token entropy, bits", *pairs),
        tuple(rows),
    )
    apart = [split for split in splits if split.differences]
    among = Grid(
        "Difference of medians among multi-token units alone",
        ("arms", "n", *known.values()),
        tuple(
            (
                f"{comparison.reference} - {split.arm}",
                f"{splits[0].n[1]}, {split.n[1]}",
                *(cell(split.differences[name], sign=True) for name in known),
            )
            for split in apart
        ),
    )
    return (whole, among) if apart else (whole,)


def _median(arm: ArmSummary, measure: str) -> str:
    return _plain(arm.measures[measure].median) if measure in arm.measures else "-"


def _plain(value: Estimate | Undefined) -> str:
    return "-" if isinstance(value, Undefined) else number(value.value)


def cell(value: Estimate | Undefined, *, sign: bool = False) -> str:
    """An estimate with its interval, marked where that is over units alone."""
    if isinstance(value, Undefined):
        return "-"
    mark = "" if value.documents else ALONE
    return f"{number(value.value, sign=sign)} [{number(value.low)}, {number(value.high)}]{mark}"
