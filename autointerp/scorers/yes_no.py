"""What scorers of yes-or-no questions share: rates, average precision, and what a trial must have."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from autointerp import notation, statistics
from autointerp.records.explanation import Failure
from autointerp.records.trial import Influence, Item, Learnt, Measure, Prediction, Score, Trial, Undefined
from autointerp.records.unit import N_INTERVALS, Excerpt, Split, UnitRecord
from autointerp.scorers.resamples import NOT_GIVEN, average_precision, influence_of, measured, with_own

HEADLINE = "balanced_accuracy"
"""The measure that is reported first."""
NO_VIEW = "no_view"
"""Kind of failure by which a judge says that it cannot answer such questions at all."""
NOT_FITTED = Undefined("the explain split has no contexts of both kinds to fit it on")
"""Where an answer that needs no explanation could not be fitted."""
NOT_MARKED = Undefined("no token is marked")
"""What the place of marks reaches where there are none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One item with its truth."""

    excerpt: Excerpt
    """Where it comes from."""
    positive: bool
    """Whether yes is true."""
    group: str
    """Why it is asked."""
    weight: float
    """How many contexts of the split it stands for; 0 where that is not known."""
    marked: tuple[int, ...] = ()
    """Places that are marked."""


def firing(record: UnitRecord, excerpt: Excerpt) -> Bool[np.ndarray, " token"]:
    """On which tokens of the excerpt the unit fires."""
    return np.array(excerpt.activations) > record.threshold


def silent_or_few(record: UnitRecord, split: Split) -> Failure | None:
    """Why there is no trial where the unit never fires in the split."""
    if record.statistics[split].fired:
        return None
    return Failure("pose", f"silent_in_{split}", f"The unit never fires in the {split} documents.")


def trial_of(record: UnitRecord, asked: Sequence[Asked], explained: Sequence[Asked], seed: int) -> Trial:
    """The items in an order of the unit's own, so that the number of positives in a call is left to chance (P12).

    `explained` are such items of the explain split: on them, and not on those asked, are fitted the answers that need
    no explanation.
    """
    rng = np.random.default_rng([seed, zlib.crc32(record.unit.arm.encode()), record.unit.index])
    asked = [asked[i] for i in rng.permutation(len(asked))]
    excerpts = [each.excerpt for each in asked]
    learnt = learn(record, explained)
    cut = learnt.cut if learnt else 0.5
    unigram = _turned(_by_means(record, asked, [_token_means(record, each) for each in asked]), cut)
    bigram = None
    if all(each.bigram for each in excerpts):
        bigram = _turned(_by_means(record, asked, [each.bigram for each in excerpts]), cut)[:, None]
    return Trial(
        items=tuple(Item(each.excerpt.tokens, each.marked) for each in asked),
        ids=np.array([each.ids for each in excerpts], dtype=np.int32),
        truth=np.array([[float(each.positive)] for each in asked]),
        unigram=unigram[:, None],
        weights=np.array([each.weight for each in asked]),
        clusters=np.array([each.cluster for each in excerpts], dtype=np.int32),
        groups=tuple(each.group for each in asked),
        intervals=np.array([e.interval if e.group == "interval" else 0 for e in excerpts], dtype=np.int32),
        maximum=record.maximum,
        top_level=1,
        bigram=bigram,
        learnt=learnt,
    )


def _token_means(record: UnitRecord, asked: Asked) -> list[float]:
    return [record.token_means.get(id_, 0.0) for id_ in asked.excerpt.ids]


def _by_means(
    record: UnitRecord, asked: Sequence[Asked], means: Sequence[Sequence[float]]
) -> Float[np.ndarray, " item"]:
    """What mean activations answer, 0 to 1: that of each context's highest token, or those of the marked ones."""
    levels = np.array(means) * notation.STEPS / (record.maximum or 1.0)
    return np.array(
        [
            notation.marks_certainty(of, each.marked) if each.marked else notation.certainty(of.max())
            for of, each in zip(levels, asked, strict=True)
        ]
    )


def learn(record: UnitRecord, explained: Sequence[Asked]) -> Learnt | None:
    """What answers best without an explanation, by balanced accuracy on `explained`; None without both kinds."""
    positive = np.array([each.positive for each in explained], dtype=np.bool_)
    if positive.all() or not positive.any():
        return None
    says = _by_means(record, explained, [_token_means(record, each) for each in explained])
    if not explained[0].marked:
        return Learnt(best_cut(says, positive), None)
    marked = np.zeros((len(explained), len(explained[0].excerpt.ids)))
    for row, each in zip(marked, explained, strict=True):
        row[list(each.marked)] = 1.0
    return Learnt(best_cut(says, positive), int((marked[positive].mean(0) - marked[~positive].mean(0)).argmax()))


def best_cut(says: Float[np.ndarray, " item"], positive: Bool[np.ndarray, " item"]) -> float:
    """From which of the values in [0, 1) yes has the best balanced accuracy: the middle between two of them, the lowest
    of equally good ones; 1, which none reaches, where nothing beats answering no. Both kinds must be there."""
    values = np.unique(says)
    cuts = np.append((values[:-1] + values[1:]) / 2, 1.0)
    yes = says >= cuts[:, None]
    return float(cuts[(yes[:, positive].mean(1) - yes[:, ~positive].mean(1)).argmax()])


def _turned(says: Float[np.ndarray, " item"], cut: float) -> Float[np.ndarray, " item"]:
    """The same order with one half at `cut`, in (0, 1]."""
    odds = says * (1 - cut) / np.maximum((1 - says) * cut, 1e-300)
    return odds / (odds + 1) if cut < 1 else says / 2


def score_trial(trial: Trial, predictions: Sequence[Prediction | Failure], answered: float, seed: int) -> Score:
    """Every measure of a yes-or-no trial; all `Undefined` where too few items have an answer."""
    kept = np.array([isinstance(p, Prediction) for _, p in zip(trial.items, predictions, strict=True)])
    certain = np.array([p.levels[0] for p in predictions if isinstance(p, Prediction)], dtype=np.float64)
    missing, influence = int((~kept).sum()), None
    measures: Mapping[str, Measure | Undefined]
    if len(certain) < answered * len(kept):
        measures = dict.fromkeys(MEASURES, Undefined(why_missing(predictions)))
    else:
        measures = _measures(trial, kept, certain, np.random.default_rng(seed))
        influence = _influence(trial, kept, certain)
    constant = bool(len(certain)) and bool(certain.min() == certain.max())
    return Score(measures, HEADLINE, len(kept), missing, constant, influence)


def why_missing(predictions: Sequence[Prediction | Failure]) -> str:
    """What to say where too few items have an answer: the judge's own reason where it has no view at all."""
    failures = [each for each in predictions if isinstance(each, Failure)]
    if failures and all(each.kind == NO_VIEW for each in failures):
        return failures[0].message
    return f"incomplete: {len(predictions) - len(failures)} of {len(predictions)} items have an answer"


MEASURES = (
    HEADLINE,
    "recall",
    "specificity",
    "specificity_random",
    "specificity_hard",
    "f1",
    "auprc",
    *(f"{predictor}_{measure}" for predictor in ("unigram", "bigram") for measure in (HEADLINE, "auprc")),
    f"anchor_{HEADLINE}",
    f"constant_{HEADLINE}",
    f"quantised_oracle_{HEADLINE}",
    *(f"{HEADLINE}_interval_{interval}" for interval in range(1, N_INTERVALS + 1)),
)
"""Every measure of a score; among them what token tables, the place of the marks alone, the same answer to everything,
and the truth reach."""


def _measures(
    trial: Trial, kept: np.ndarray, certain: np.ndarray, rng: np.random.Generator
) -> dict[str, Measure | Undefined]:
    positive, groups = trial.truth[kept, 0] > 0.5, np.array(trial.groups)[kept]
    draws = statistics.draw_clusters(trial.clusters[kept], rng)
    times, intervals, weights = with_own(draws), trial.intervals[kept], trial.weights[kept]
    yes = certain >= 0.5

    def rate(right: np.ndarray, of: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (times @ (right & of)) / (times @ of)

    def defined(values: np.ndarray, what: str) -> Measure | Undefined:
        return measured(values, draws, 0.0, f"the trial has no {what}")

    def balanced(said: np.ndarray) -> Measure | Undefined:
        return defined((rate(said, positive) + rate(~said, ~positive)) / 2, "positive item, or no negative one")

    recall, specificity = rate(yes, positive), rate(~yes, ~positive)
    with np.errstate(divide="ignore", invalid="ignore"):
        both = times @ (yes & positive)
        f1 = 2 * both / (times @ yes + times @ positive)
    found = {
        HEADLINE: balanced(yes),
        "recall": defined(recall, "positive item"),
        "specificity": defined(specificity, "negative item"),
        "specificity_random": defined(rate(~yes, ~positive & (groups == "random")), "random negative item"),
        "specificity_hard": defined(rate(~yes, ~positive & (groups != "random")), "hard negative item"),
        "f1": defined(np.where(positive.any(), f1, np.nan), "positive item"),
        "auprc": defined(average_precision(certain, positive, times * weights), "weighed positive item"),
    }
    for name, table in (("unigram", trial.unigram), ("bigram", trial.bigram)):
        if table is None:
            found |= dict.fromkeys((f"{name}_{HEADLINE}", f"{name}_auprc"), NOT_GIVEN)
            continue
        certainty = table[kept, 0]
        found[f"{name}_{HEADLINE}"] = balanced(certainty >= 0.5) if trial.learnt else NOT_FITTED
        precision = average_precision(certainty, positive, times * weights)
        found[f"{name}_auprc"] = defined(precision, "weighed positive item")
    found[f"anchor_{HEADLINE}"] = NOT_FITTED if trial.learnt is None else NOT_MARKED
    if trial.learnt is not None and (place := trial.learnt.place) is not None:
        at_place = np.array([place in each.marked for each in trial.items])[kept]
        found[f"anchor_{HEADLINE}"] = balanced(at_place)
    found[f"constant_{HEADLINE}"] = balanced(np.ones(len(yes), dtype=np.bool_))
    found[f"quantised_oracle_{HEADLINE}"] = balanced(positive)
    for interval in range(1, N_INTERVALS + 1):
        here = (rate(yes, positive & (intervals == interval)) + specificity) / 2
        found[f"{HEADLINE}_interval_{interval}"] = defined(here, "item of this interval, or no negative one")
    return found


def _influence(trial: Trial, kept: np.ndarray, certain: np.ndarray) -> Influence | None:
    """Of the balanced accuracy and of the token tables that its lifts are taken from."""
    positive = trial.truth[kept, 0] > 0.5
    if positive.all() or not positive.any():
        return None

    def of(yes: np.ndarray) -> np.ndarray:
        right = (yes == positive).astype(np.float64)
        out = np.zeros(len(right))
        for side in (positive, ~positive):
            out[side] = (right[side] - right[side].mean()) / (2 * side.sum())
        return out

    tables = {"unigram": trial.unigram, "bigram": trial.bigram} if trial.learnt else {}
    by_table = {f"{name}_{HEADLINE}": of(each[kept, 0] >= 0.5) for name, each in tables.items() if each is not None}
    return influence_of(trial.clusters[kept], {HEADLINE: of(certain >= 0.5), **by_table})
