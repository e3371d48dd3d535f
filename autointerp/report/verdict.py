"""What a comparison says, in words. Every interval is of 95 %."""

from collections.abc import Iterator

from autointerp.compare import ArmSummary, Comparison
from autointerp.contrast import Contrast, Discoveries
from autointerp.counted import BIGRAM_LIFT, LIFT
from autointerp.matching import Matched
from autointerp.power import LEVEL
from autointerp.records.trial import Undefined
from autointerp.statistics import Estimate

ALONE = "†"
"""Marks an interval over units alone: what the documents that units share do to it is not known."""
_ESTIMAND = "They speak of this dictionary on texts like this corpus, not of sparse autoencoders in general."


def verdict(comparison: Comparison) -> str:
    """What the numbers say, one line per baseline, then what limits them."""
    arms = {arm.info.label: arm for arm in comparison.arms}
    reference = arms[comparison.reference]
    chosen = [each for each in comparison.contrasts if not each.paired]
    sentences = [_verdict(comparison, reference, arms[each.baseline], each) for each in chosen]
    sentences += [line for each in chosen for line in _alike(comparison, each)]
    sentences += _control_sentence(comparison)
    sentences += _discovered(comparison)
    sentences += _lift_sentence(comparison)
    sentences += [line for each in chosen for line in _paradox(comparison, arms[each.baseline], each)]
    asked = sum(arm.funnel.asked for arm in comparison.arms)
    counted = sum(arm.funnel.counted for arm in comparison.arms)
    if counted < asked:
        sentences.append(f"{counted} of {asked} units are counted, because the run ended early.")
    sentences.append(f"{_basis(comparison)} {_ESTIMAND}")
    sentences += _unseen(comparison)
    if "lookup" in comparison.explainers and any(arm.funnel.scored for arm in comparison.arms):
        sentences.append(
            "The explainer was lookup: its explanations are token tables fitted on the evidence. These numbers say how "
            "well single tokens predict activations and claim nothing about explanations by language models."
        )
    return "\n".join(sentences)


def _verdict(comparison: Comparison, reference: ArmSummary, baseline: ArmSummary, contrast: Contrast) -> str:
    """One claim, and the difference, interval, test and power that are all of the same number: the means."""
    first, second, measure = reference.info.label, baseline.info.label, comparison.headline
    difference = contrast.differences[measure]
    if isinstance(difference.mean, Undefined):
        unscored = [arm.funnel.why for arm in (reference, baseline) if not arm.funnel.scored]
        reason = next((why for why in unscored if why), difference.mean.reason)
        return f"{_first(first)} and {second} cannot be compared: {reason.rstrip('.')}."
    where = ""
    if contrast.support and not isinstance(contrast.support, Undefined):
        where = f" at densities of {contrast.support.low:.2g} to {contrast.support.high:.2g}"
    n = f"{difference.n[0]} and {difference.n[1]} units"
    beside = ""
    if isinstance(gap := difference.median, Estimate) and isinstance(wins := difference.superior, Estimate):
        beside = (
            f" The median differs by {_signed(gap)}, and a unit drawn from {first} is higher than one drawn from "
            f"{second} with probability {_interval(wins)}."
        )
    claim = _claim(first, second, contrast, difference.mean)
    return f"{claim}{where}. The mean {measure} of {n} differs by {_signed(difference.mean)}{_test(contrast)}.{beside}"


def _claim(first: str, second: str, contrast: Contrast, mean: Estimate) -> str:
    """Who is higher, said only where the interval and the adjusted test both say so."""
    if not _told(contrast, mean):
        return f"Whether {first} beat {second} cannot be told"
    return f"{_first(first)} {'beat' if mean.value > 0 else 'are beaten by'} {second}"


def _told(contrast: Contrast, mean: Estimate) -> bool:
    return (mean.low > 0 or mean.high < 0) and not isinstance(contrast.q, Undefined) and contrast.q <= LEVEL


def _test(contrast: Contrast) -> str:
    if isinstance(contrast.p, Undefined) or isinstance(contrast.q, Undefined):
        return ""
    family = f", {contrast.q:.2g} adjusted for all comparisons" if contrast.q != contrast.p else ""
    said = f", permutation p = {contrast.p:.2g}{family}"
    if isinstance(contrast.detectable, Undefined):
        return said
    return f"{said}; so many units show a difference of {number(contrast.detectable)} with 80 % power"


def _alike(comparison: Comparison, contrast: Contrast) -> Iterator[str]:
    """The difference of means among units that are alike, one line each; nothing where there are too few."""
    which = f"the mean {comparison.headline} of {comparison.reference} less {contrast.baseline}"
    for what, matched in (("density", contrast.density), ("evidence", contrast.evidence)):
        if isinstance(matched, Matched) and isinstance(matched.mean, Estimate):
            yield (
                f"At equal {what}, {which} is {_signed(matched.mean)}: {matched.kept[0]} and {matched.kept[1]} units "
                f"in {matched.strata} strata, {matched.lost[0]} and {matched.lost[1]} have no counterpart."
            )
    if not isinstance(length := contrast.length, Undefined):
        overlap = ""
        if length.overlaps is not None:
            shares = f"{length.overlaps[0]:.0%} and {length.overlaps[1]:.0%}"
            overlap = f" and equal share of words that were shown ({shares})"
        yield (
            f"At equal length of the explanations ({length.words[0]:.0f} and {length.words[1]:.0f} words){overlap}, "
            f"{which} is {_signed(length.mean)}."
        )


def _discovered(comparison: Comparison) -> list[str]:
    return [
        f"{found.units:,} of {found.of:,} {comparison.reference} score above what explanations of others score at "
        f"about their density, at a false discovery rate of {found.rate:.0%}."
        for found in (contrast.found for contrast in comparison.contrasts)
        if isinstance(found, Discoveries)
    ]


def _basis(comparison: Comparison) -> str:
    means = [arm.measures[comparison.headline].mean for arm in comparison.arms]
    known = [each.documents for each in means if isinstance(each, Estimate)]
    if known and all(known):
        return (
            "Intervals are 95 % bootstrap intervals over units and over the documents that units share; those marked "
            f"{ALONE} are over units alone."
        )
    return (
        f"Intervals marked {ALONE} are 95 % bootstrap intervals over units alone: what the documents that units share "
        "do to their scores is not in them."
    )


def _unseen(comparison: Comparison) -> list[str]:
    """What bounds an arm's mean where its interval takes it that no false prediction lies where none was drawn."""
    bounds = {arm.info.label: arm.lower_bound for arm in comparison.arms}
    known = [f"{number(bound)} in {label}" for label, bound in bounds.items() if isinstance(bound, float)]
    if not known:
        return []
    said = (
        "Intervals of arms and of differences take it that there are no false predictions but such as were drawn. "
        "Those of single units allow for more; the mean of their lower ends, a lower bound on the arm's mean, is "
    )
    return [f"{said}{', '.join(known)}. Differences have no such bound."]


def _control_sentence(comparison: Comparison) -> list[str]:
    """What the features gain by their own explanations over others, unit by unit."""
    gains: list[str] = []
    for contrast in comparison.contrasts:
        difference = contrast.differences[comparison.headline]
        if contrast.paired and isinstance(mean := difference.mean, Estimate):
            told = "" if _told(contrast, mean) else ", which cannot be told from 0"
            what = contrast.baseline.partition(":")[2]
            gains.append(f"{_signed(mean)} over {what} ones ({difference.n[0]} pairs{told})")
    if not gains:
        return []
    own = f"By their own explanations the same {comparison.reference}"
    return [f"{own} gain a mean {comparison.headline} of {', '.join(gains)}."]


def _lift_sentence(comparison: Comparison) -> list[str]:
    sentences: list[str] = []
    for lift, what in ((LIFT, "unigram, the mean activation per token"), (BIGRAM_LIFT, "bigram, per pair of tokens")):
        medians = [
            (arm.info.label, arm.measures[lift].median)
            for arm in comparison.arms
            if lift in arm.measures and arm.info.kind != "control"
        ]
        gains = [f"{_signed(median)} in {label}" for label, median in medians if not isinstance(median, Undefined)]
        if gains:
            sentences.append(f"Above {what}, the median unit gains {', '.join(gains)}.")
    return sentences


def _paradox(comparison: Comparison, baseline: ArmSummary, contrast: Contrast) -> Iterator[str]:
    """Whether a subject that has learnt nothing scores higher, and whether lifts and token splits see through it."""
    if baseline.info.kind != "shuffled-subject":
        return
    headline = comparison.headline
    gaps = {
        name: contrast.differences[name].median
        for name in (headline, LIFT, BIGRAM_LIFT)
        if name in contrast.differences
    }
    raw = gaps[headline]
    if isinstance(raw, Undefined):
        return
    appears = "appears here" if raw.high < 0 else "does not appear here" if raw.low > 0 else "cannot be told here"
    lifts = [
        f"above {what} {_signed(gap)}, {_sides(gap)}"
        for what, name in (("unigram", LIFT), ("bigram", BIGRAM_LIFT))
        if isinstance(gap := gaps.get(name), Estimate)
    ]
    yield (
        "The paradox of the randomised transformer (Bricken et al. 2023: it scores higher than the trained one) "
        f"{appears}: the median {headline} of the trained less the shuffled subject is {_signed(raw)}; "
        f"{'; '.join(lifts)}."
    )
    split = next((each for each in comparison.tokens if each.arm == baseline.info.label), None)
    if split and isinstance(gap := split.differences.get(headline), Estimate):
        yield f"Among multi-token units alone the same difference of {headline} is {_signed(gap)}, {_sides(gap)}."


def _sides(gap: Estimate) -> str:
    if gap.low > 0:
        return "in favour of the trained one"
    return "in favour of the shuffled one" if gap.high < 0 else "not clear of zero"


def _interval(estimate: Estimate) -> str:
    return _said(estimate, sign=False)


def _signed(estimate: Estimate) -> str:
    return _said(estimate, sign=True)


def _said(estimate: Estimate, *, sign: bool) -> str:
    value, low, high = (number(each, sign=sign) for each in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high}){'' if estimate.documents else ALONE}"


def _first(label: str) -> str:
    return label[:1].upper() + label[1:]


def number(value: float, *, sign: bool = False) -> str:
    """`value` to three decimals; with `sign`, a plus before what is not negative."""
    return f"{round(value, 3) + 0.0:{'+' if sign else ''}.3f}"  # adding 0.0 takes the sign off zero
