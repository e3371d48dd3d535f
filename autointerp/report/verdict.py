"""What a comparison says, in words. Every interval is of 95 %."""

from autointerp.compare import ArmSummary, Comparison
from autointerp.contrast import Contrast
from autointerp.counted import LIFT
from autointerp.records.trial import Undefined
from autointerp.statistics import Estimate


def verdict(comparison: Comparison) -> str:
    """What the numbers say, one line per baseline, then what limits them."""
    arms = {arm.info.label: arm for arm in comparison.arms}
    reference = arms[comparison.reference]
    sentences = [_verdict(comparison, reference, arms[each.baseline], each) for each in comparison.contrasts]
    sentences += _lift_sentence(comparison)
    asked = sum(arm.funnel.asked for arm in comparison.arms)
    counted = sum(arm.funnel.counted for arm in comparison.arms)
    if counted < asked:
        sentences.append(f"{counted} of {asked} units are counted, because the run ended early.")
    sentences.append("Intervals are 95 % bootstrap intervals over units.")
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
        f"{difference.n[0]} and {difference.n[1]})."
    )


def _lift_sentence(comparison: Comparison) -> list[str]:
    medians = [(arm.info.label, arm.measures[LIFT].median) for arm in comparison.arms if LIFT in arm.measures]
    gains = [f"{_signed(median)} in {label}" for label, median in medians if not isinstance(median, Undefined)]
    if not gains:
        return []
    return [f"Above unigram, the mean activation per token, the median unit gains {', '.join(gains)}."]


def _signed(estimate: Estimate) -> str:
    value, low, high = (number(each, sign=True) for each in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def _first(label: str) -> str:
    return label[:1].upper() + label[1:]


def number(value: float, *, sign: bool = False) -> str:
    """`value` to three decimals; with `sign`, a plus before what is not negative."""
    return f"{round(value, 3) + 0.0:{'+' if sign else ''}.3f}"  # adding 0.0 takes the sign off zero
