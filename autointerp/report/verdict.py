"""What a comparison says, in words. Every interval is of 95 %."""

from collections.abc import Iterator

from autointerp.compare import ArmSummary, Comparison
from autointerp.contrast import Contrast, Discoveries
from autointerp.counted import BIGRAM_LIFT, LIFT
from autointerp.matching import Matched
from autointerp.records.trial import Undefined
from autointerp.statistics import Estimate

_ESTIMAND = "They speak of this dictionary on texts like this corpus, not of sparse autoencoders in general."


def verdict(comparison: Comparison) -> str:
    """What the numbers say, one line per baseline, then what limits them."""
    arms = {arm.info.label: arm for arm in comparison.arms}
    reference = arms[comparison.reference]
    chosen = [each for each in comparison.contrasts if arms[each.baseline].info.kind != "control"]
    sentences = [_verdict(comparison, reference, arms[each.baseline], each) for each in chosen]
    sentences += [line for each in chosen for line in _alike(comparison, each)]
    sentences += _control_sentence(comparison, reference)
    sentences += _discovered(comparison)
    sentences += _lift_sentence(comparison)
    sentences += [line for each in chosen for line in _paradox(comparison, arms[each.baseline], each)]
    asked = sum(arm.funnel.asked for arm in comparison.arms)
    counted = sum(arm.funnel.counted for arm in comparison.arms)
    if counted < asked:
        sentences.append(f"{counted} of {asked} units are counted, because the run ended early.")
    sentences.append(f"{_basis(comparison)} {_ESTIMAND}")
    if "lookup" in comparison.explainers:
        sentences.append(
            "The explainer was lookup: its explanations are token tables fitted on the evidence. These numbers say how "
            "well single tokens predict activations and claim nothing about explanations by language models."
        )
    return "\n".join(sentences)


def _verdict(comparison: Comparison, reference: ArmSummary, baseline: ArmSummary, contrast: Contrast) -> str:
    first, second, measure = reference.info.label, baseline.info.label, comparison.headline
    difference = contrast.differences[measure]
    gap, wins = difference.median, difference.superior
    if isinstance(gap, Undefined) or isinstance(wins, Undefined):
        reason = next(each.reason for each in (gap, wins) if isinstance(each, Undefined))
        return f"{_first(first)} and {second} cannot be compared: {reason}."
    where = ""
    if contrast.support and not isinstance(contrast.support, Undefined):
        where = f" at densities of {contrast.support.low:.2g} to {contrast.support.high:.2g}"
    if gap.low > 0 and wins.low > 1 / 2:
        claim = f"{_first(first)} score higher than {second}{where}"
    elif gap.high < 0 and wins.high < 1 / 2:
        claim = f"{_first(first)} do not beat {second}{where}: they score lower"
    else:
        claim = f"{_first(first)} do not beat {second}{where}: the difference is not clear of zero"
    return (
        f"{claim}. The median {measure} differs by {_signed(gap)}, and a unit drawn from {first} beats one "
        f"drawn from {second} with probability {wins.value:.2f} ({wins.low:.2f} to {wins.high:.2f}; n = "
        f"{difference.n[0]} and {difference.n[1]}).{_tests(contrast)}"
    )


def _tests(contrast: Contrast) -> str:
    if isinstance(contrast.p, Undefined) or isinstance(contrast.q, Undefined):
        return ""
    family = f", {contrast.q:.2g} adjusted for all comparisons" if contrast.q != contrast.p else ""
    said = f" Means: permutation p = {contrast.p:.2g}{family}"
    if isinstance(contrast.detectable, Undefined):
        return f"{said}."
    return f"{said}; so many units show a difference of {number(contrast.detectable)} with 80 % power."


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
    headline = comparison.headline
    known = [arm.measures[headline].documents for arm in comparison.arms if arm.measures[headline].n]
    if known and all(known):
        return "Intervals are 95 % bootstrap intervals over units and over the documents that units share."
    return (
        "Intervals are 95 % bootstrap intervals over units alone: what the documents that units share do to their "
        "scores is not in the table."
    )


def _control_sentence(comparison: Comparison, reference: ArmSummary) -> list[str]:
    """What the features score by explanations that are not theirs."""
    medians = [
        (arm.info.label.partition(":")[2], arm.measures[comparison.headline].median)
        for arm in comparison.arms
        if arm.info.kind == "control"
    ]
    known = [(what, median) for what, median in medians if isinstance(median, Estimate)]
    own = reference.measures[comparison.headline].median
    if not known or isinstance(own, Undefined):
        return []
    scores = ", ".join(f"{_interval(median)} by {what} ones" for what, median in known)
    said = f"By explanations that are not theirs, the median of the same features is {scores};"
    return [f"{said} {_interval(own)} by their own."]


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
    value, low, high = (number(each) for each in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def _signed(estimate: Estimate) -> str:
    value, low, high = (number(each, sign=True) for each in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def _first(label: str) -> str:
    return label[:1].upper() + label[1:]


def number(value: float, *, sign: bool = False) -> str:
    """`value` to three decimals; with `sign`, a plus before what is not negative."""
    return f"{round(value, 3) + 0.0:{'+' if sign else ''}.3f}"  # adding 0.0 takes the sign off zero
