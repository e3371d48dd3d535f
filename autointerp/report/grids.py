"""A comparison as tables for people."""

from autointerp.compare import Comparison, has_intervals
from autointerp.contrast import Contrast, Support
from autointerp.counted import lower_limit
from autointerp.matching import Matched
from autointerp.records.trial import Undefined
from autointerp.report.grid import Grid
from autointerp.report.ladder import cell, ladder_grid, token_grids
from autointerp.report.verdict import number
from autointerp.statistics import Estimate


def grids(comparison: Comparison) -> tuple[Grid, ...]:
    """All tables: floors, references and differences first, because they are the result.

    What differs between the features and a control of theirs is in the first table.
    """
    chosen = [contrast for contrast in comparison.contrasts if not contrast.paired]
    contrasts = [(contrast, _contrast_title(comparison, contrast)) for contrast in chosen]
    return (
        ladder_grid(comparison),
        *(_difference_grid(contrast, title) for contrast, title in contrasts),
        _alike_grid(comparison),
        *(_test_grid(contrast, f"Mann-Whitney: {title}") for contrast, title in contrasts),
        _score_grid(comparison),
        *token_grids(comparison),
        *(_interval_grid(comparison, contrast) for contrast in chosen if has_intervals(comparison)),
        _bounds_grid(comparison),
        _funnel_grid(comparison),
    )


def _contrast_title(comparison: Comparison, contrast: Contrast) -> str:
    title = f"{comparison.reference} - {contrast.baseline}"
    match contrast.support, contrast.differences[comparison.headline].median:
        case _, Undefined(reason):
            return f"{title} ({reason})"
        case Support(low, high, kept, lost), _:
            counts = f"kept {kept[0]} and {kept[1]} units, left out {lost[0]} and {lost[1]}"
            return f"{title} (densities {low:.2g} to {high:.2g}: {counts})"
        case _:
            return title


def _difference_grid(contrast: Contrast, title: str) -> Grid:
    columns = ("measure", "n", "difference of medians", "difference of means", "P(higher)")
    rows = [
        (
            measure,
            f"{difference.n[0]}, {difference.n[1]}",
            *(cell(difference.median, sign=True), cell(difference.mean, sign=True), cell(difference.superior)),
        )
        for measure, difference in contrast.differences.items()
        if not isinstance(difference.median, Undefined)
    ]
    return Grid(title, columns, tuple(rows))


def _test_grid(contrast: Contrast, title: str) -> Grid:
    tests = {measure: difference.test for measure, difference in contrast.differences.items()}
    rows = [
        (measure, f"{test.u:.0f}", f"{test.p:.2g}", number(test.effect, sign=True))
        for measure, test in tests.items()
        if not isinstance(test, Undefined)
    ]
    return Grid(title, ("measure", "U", "p", "rank-biserial effect"), tuple(rows))


def _alike_grid(comparison: Comparison) -> Grid:
    """All ways to take the headline's difference of means, with the test and what could have been seen."""
    rows: list[tuple[str, ...]] = []
    for contrast in comparison.contrasts:
        arms = f"{comparison.reference} - {contrast.baseline}"
        whole = contrast.differences[comparison.headline]
        tests = f"{_short(contrast.p)} ({_short(contrast.q)})", _short(contrast.detectable)
        what, n = ("pairs", str(whole.n[0])) if contrast.paired else ("all units", f"{whole.n[0]}, {whole.n[1]}")
        rows.append((f"{arms}: {what}", n, "", cell(whole.mean, sign=True), *tests))
        for what, matched in (("density", contrast.density), ("evidence", contrast.evidence)):
            if isinstance(matched, Matched) and isinstance(matched.mean, Estimate):
                counts = (f"{n[0]}, {n[1]}" for n in (matched.kept, matched.lost))
                rows.append((f"{arms}: equal {what}", *counts, cell(matched.mean, sign=True), "", ""))
        if not isinstance(length := contrast.length, Undefined):
            words = f"{length.words[0]:.0f}, {length.words[1]:.0f} words"
            rows.append((f"{arms}: equal length ({words})", "", "", cell(length.mean, sign=True), "", ""))
    columns = ("arms", "n", "left out", "difference of means", "permutation p (adjusted)", "detectable")
    return Grid(f"Mean {comparison.headline}, among all units and among those that are alike", columns, tuple(rows))


def _short(value: float | Undefined) -> str:
    return "-" if isinstance(value, Undefined) else f"{value:.2g}"


def _score_grid(comparison: Comparison) -> Grid:
    rows = [
        (
            f"{arm.info.label}: {measure}",
            str(averages.n),
            *(cell(averages.median), cell(averages.mean), _short(averages.sd)),
        )
        for arm in comparison.arms
        for measure, averages in arm.measures.items()
    ]
    return Grid("Scores", ("arm: measure", "n", "median", "mean", "SD"), tuple(rows))


def _interval_grid(comparison: Comparison, contrast: Contrast) -> Grid:
    arms = {arm.info.label: arm for arm in comparison.arms}
    sides = arms[comparison.reference], arms[contrast.baseline]
    rows = [
        (
            str(i),
            *(text for each in means for text in (str(each.n), cell(each.mean))),
            cell(difference, sign=True),
        )
        for i, (difference, *means) in enumerate(
            zip(contrast.intervals, *(side.intervals for side in sides), strict=True), start=1
        )
    ]
    columns = [name for side in sides for name in ("n", f"mean of {side.info.label}")]
    title = f"{comparison.headline} by activation interval (1 weakest): {comparison.reference} - {contrast.baseline}"
    return Grid(title, ("interval", *columns, "difference"), tuple(rows))


def _bounds_grid(comparison: Comparison) -> Grid:
    rows = [
        (
            f"{comparison.reference} - {contrast.baseline}",
            f"{bounds.missing[0]}, {bounds.missing[1]}",
            *(number(end, sign=True) for end in (bounds.low, bounds.high)),
        )
        for contrast in comparison.contrasts
        if not isinstance(bounds := contrast.bounds, Undefined)
    ]
    range_ = f"{lower_limit(comparison.headline):.0f} to 1"
    title = f"Difference of mean {comparison.headline}, whatever the units without it would have scored ({range_})"
    return Grid(title, ("arms", "units without it", "lowest", "highest"), tuple(rows))


def _funnel_grid(comparison: Comparison) -> Grid:
    kinds = list(dict.fromkeys(kind for arm in comparison.arms for kind in arm.funnel.failed))
    rows = [
        (
            arm.info.label,
            *(
                str(n)
                for n in (arm.funnel.asked, arm.funnel.counted, *(arm.funnel.failed.get(kind, 0) for kind in kinds))
            ),
            *(str(n) for n in (arm.funnel.undefined, arm.funnel.scored)),
            *(_percent(share) for share in (arm.constant_share, arm.missing_share)),
        )
        for arm in comparison.arms
    ]
    columns = ("arm", "asked", "counted", *kinds, "undefined", "scored", "constant prediction", "items missing")
    return Grid("Units", columns, tuple(rows))


def _percent(share: float | Undefined) -> str:
    return "-" if isinstance(share, Undefined) else f"{share:.1%}"
