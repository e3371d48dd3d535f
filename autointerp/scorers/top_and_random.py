"""Simulation scoring on whole windows: the windows with the highest activations, and uniformly random ones."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from autointerp import notation, statistics
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Measure, Prediction, Score, Trial, Undefined
from autointerp.records.unit import Excerpt, Split, UnitRecord
from autointerp.scorers.resamples import NOT_GIVEN, correlations, influence_of, measured, with_own
from autointerp.seams import Source

HEADLINE = "ev_correlation"
"""The measure that is reported first: on top and random windows together."""
Rescale = Callable[[np.ndarray], np.ndarray]
_SETS = {"": ("top", "random"), "_random": ("random",), "_top": ("top",)}
CALIBRATED = {"linear": ("r2", "absolute"), "percentile": ("correlation", "r2", "absolute")}
"""After each calibration: variance explained and absolute deviation explained, both against predicting 0; and the
correlation, which a line does not change."""
MEASURES = (
    *(f"{HEADLINE}{name}" for name in _SETS),
    f"unigram_{HEADLINE}",
    f"bigram_{HEADLINE}",
    f"quantised_oracle_{HEADLINE}",
    *(f"{how}_{what}" for how, measures in CALIBRATED.items() for what in measures),
)
"""Every measure of a score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopAndRandomScorer:
    """Poses top and random windows and correlates predicted with real activations over all their tokens pooled.

    Predictions are also rescaled to activations by a linear fit and by matching percentiles, both fitted on windows of
    the calibrate split, which no measure looks at. Truth is raw. Windows without a prediction are left out and counted,
    never taken as zeros. Source: Bills et al. 2023, and the calibrated simulators of its code.
    """

    tokens: int
    """Tokens of a window."""
    of_each: int
    """Top windows, and as many random ones."""
    top_level: int
    """Highest level that a simulator predicts."""
    answered: float = 0.9
    """Share of the windows that must have a prediction for any measure to be defined."""
    seed: int = 0
    """Of the windows' order and of the resamples."""
    split: Split = "score"
    """Whose windows are scored."""

    def pose(self, record: UnitRecord, explanation: Explanation, source: Source) -> Trial | Failure:  # noqa: ARG002
        """A trial from the record's windows, in an order of the unit's own.

        A `Failure` (``silent_in_score``, ``too_few_excerpts``) where the unit never fires there or has too few top
        windows. Too few windows to calibrate on leave the calibrated measures undefined.
        """
        if not record.statistics[self.split].fired:
            message = f"The unit never fires in the {self.split} documents."
            return Failure("pose", f"silent_in_{self.split}", message)
        scored = deal(record.excerpts_of(self.tokens, self.split), self.of_each)
        tops = sum(each.group == "top" for each in scored)
        if tops < self.of_each:
            return Failure("pose", "too_few_excerpts", f"{tops} top windows; {self.of_each} are needed.")
        fitted = deal(record.excerpts_of(self.tokens, "calibrate"), self.of_each) if self.split == "score" else []
        chosen = [(each, False) for each in scored] + [(each, True) for each in fitted]
        rng = np.random.default_rng([self.seed, zlib.crc32(record.unit.arm.encode()), record.unit.index])
        chosen = [chosen[i] for i in rng.permutation(len(chosen))]
        excerpts = [each for each, _ in chosen]
        return Trial(
            items=tuple(Item(each.tokens) for each in excerpts),
            ids=np.array([each.ids for each in excerpts], dtype=np.int32),
            truth=np.array([each.activations for each in excerpts], dtype=np.float64),
            unigram=np.array([[record.token_means.get(id_, 0.0) for id_ in each.ids] for each in excerpts]),
            weights=np.ones(len(chosen)),
            clusters=np.array([each.cluster for each in excerpts], dtype=np.int32),
            groups=tuple(each.group for each in excerpts),
            intervals=np.zeros(len(chosen), dtype=np.int32),
            maximum=record.maximum,
            top_level=self.top_level,
            bigram=np.array([each.bigram for each in excerpts]) if all(each.bigram for each in excerpts) else None,
            fitted=np.array([is_fitted for _, is_fitted in chosen]),
        )

    def score(self, trial: Trial, predictions: Sequence[Prediction | Failure]) -> Score:
        """Every measure of `MEASURES`; all `Undefined` where too few windows have a prediction."""
        fitted = np.zeros(len(trial.items), dtype=np.bool_) if trial.fitted is None else trial.fitted
        given = np.array([isinstance(p, Prediction) for _, p in zip(trial.items, predictions, strict=True)])
        predicted = np.zeros(trial.truth.shape)
        for i, each in enumerate(predictions):
            if isinstance(each, Prediction):
                predicted[i] = each.levels
        kept, asked = given & ~fitted, int((~fitted).sum())
        constant = bool(kept.any()) and bool(predicted[kept].min() == predicted[kept].max())
        missing, influence = len(given) - int(given.sum()), None
        if kept.sum() < self.answered * asked:
            reason = Undefined(f"incomplete: {int(kept.sum())} of {asked} windows have a prediction")
            measures: Mapping[str, Measure | Undefined] = dict.fromkeys(MEASURES, reason)
        else:
            rng = np.random.default_rng(self.seed)
            measures = _measures(trial, kept, given & fitted, predicted, rng)
            read = {HEADLINE: predicted, f"unigram_{HEADLINE}": trial.unigram, f"bigram_{HEADLINE}": trial.bigram}
            by_item = {
                name: statistics.pearson_influence(trial.truth[kept], each[kept]).sum(1)
                for name, each in read.items()
                if each is not None
            }
            influence = influence_of(trial.clusters[kept], by_item)
        return Score(measures, HEADLINE, len(given), missing, constant, influence)


def deal(excerpts: Sequence[Excerpt], of_each: int) -> list[Excerpt]:
    """Every second of the highest windows, and the first random ones of other windows, `of_each` of each at most.

    The published design deals the 20 highest of the corpus out to four splits in turn. Documents, not ranks, are split
    here, and every split has its own highest; passing over every second reaches as deep into them.
    """
    distinct = {each.ids: each for each in reversed(excerpts) if each.group == "top"}
    ranked = [each for each in excerpts if each.group == "top" and distinct[each.ids] is each]
    tops = ranked[::2][:of_each]
    taken = {each.window for each in tops}
    others = [each for each in excerpts if each.group == "random" and each.window not in taken]
    return [*tops, *others[:of_each]]


def linear_fit(prediction: np.ndarray, truth: np.ndarray) -> Rescale:
    """Least squares of the truth on the prediction; the mean truth where the prediction is constant."""
    x, y = prediction.ravel(), truth.ravel()
    spread = ((x - x.mean()) ** 2).sum()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else 0.0
    return lambda values: y.mean() + slope * (values - x.mean())


def percentile_fit(prediction: np.ndarray, truth: np.ndarray) -> Rescale:
    """The n-th percentile of the predictions becomes the n-th of the truth: a predicted value's ranks have their mean
    truth, between such values lie straight lines, beyond them the ends."""
    values, place = np.unique(np.sort(prediction.ravel()), return_inverse=True)
    means = np.bincount(place, np.sort(truth.ravel())) / np.bincount(place)
    return lambda asked: np.interp(asked, values, means)


def _measures(
    trial: Trial, kept: np.ndarray, fitted: np.ndarray, predicted: np.ndarray, rng: np.random.Generator
) -> dict[str, Measure | Undefined]:
    truth, own = trial.truth[kept], predicted[kept]
    draws = statistics.draw_clusters(trial.clusters[kept], rng)
    groups = np.array(trial.groups)[kept]
    oracle = notation.quantise(truth, trial.maximum, trial.top_level).astype(np.float64)

    def correlation(prediction: np.ndarray, of: Sequence[str] = ("top", "random")) -> Measure | Undefined:
        chosen = np.isin(groups, of)
        if not chosen.any():
            return Undefined("no window of this kind has a prediction")
        some = draws.at(chosen)
        values = correlations(truth[chosen], prediction[chosen], with_own(some))
        return measured(values, some, -1.0, "the truth is constant")

    measures = {f"{HEADLINE}{name}": correlation(own, of) for name, of in _SETS.items()}
    measures[f"unigram_{HEADLINE}"] = correlation(trial.unigram[kept])
    measures[f"bigram_{HEADLINE}"] = NOT_GIVEN if trial.bigram is None else correlation(trial.bigram[kept])
    measures[f"quantised_oracle_{HEADLINE}"] = correlation(oracle)
    for how, fit in (("linear", linear_fit), ("percentile", percentile_fit)):
        if not fitted.any() or not trial.truth[fitted].any():
            silent = Undefined("the unit has no window to calibrate on, or is silent in all of them")
            measures |= dict.fromkeys((f"{how}_{what}" for what in CALIBRATED[how]), silent)
            continue
        rescaled = fit(predicted[fitted], trial.truth[fitted])(own)
        if how == "percentile":
            measures[f"{how}_correlation"] = correlation(rescaled)
        measures[f"{how}_r2"] = _explained((truth - rescaled) ** 2, truth**2, draws)
        measures[f"{how}_absolute"] = _explained(np.abs(truth - rescaled), np.abs(truth), draws)
    return measures


def _explained(
    left: Float[np.ndarray, "item token"], whole: Float[np.ndarray, "item token"], draws: statistics.ClusterDraws
) -> Measure | Undefined:
    """One less the sum of `left` over that of `whole`: what predictions explain beyond predicting 0 everywhere."""
    times = with_own(draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = 1 - (times @ left.sum(1)) / (times @ whole.sum(1))
    return measured(values, draws, -1.0, "the unit is silent in all windows")
