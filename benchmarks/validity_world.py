"""Synthetic units with known rules over a text: truth and predictions at every anchor, so that nothing is estimated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from autointerp import statistics
from autointerp.proposal import TextIndex
from autointerp.records.anchors import Text

WIDTH = 9
LEVELS = 9
RULES = ("token", "token in context", "script", "polysemantic", "noisy", "dense", "rare")
FLAWS = ("true", "missing", "extra named", "extra partly named", "extra hidden")
NAMED = 12
"""Tokens that an explanation names, at most."""


@dataclass(frozen=True, eq=False)
class World:
    """A text in two halves: the second is scored, the first only gives unigram tables."""

    name: str
    index: TextIndex
    """Of the scored half."""
    seen: np.ndarray
    """Token ids of the other half's anchors."""
    cluster: np.ndarray
    """Document cluster of every scored anchor."""

    @property
    def token(self) -> np.ndarray:
        return self.index.token

    @property
    def n(self) -> int:
        return len(self.index.token)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Anchors of every window."""
        return np.bincount(self.index.window)

    @cached_property
    def ends(self) -> np.ndarray:
        """Anchors up to the end of every window."""
        return np.cumsum(self.lengths)


@dataclass(frozen=True, eq=False)
class SyntheticUnit:
    """Truth at every anchor, and what explanations of it make a simulator predict there."""

    rule: str
    truth: np.ndarray
    """Activation at every scored anchor."""
    unigram: np.ndarray
    """Mean activation per token id over the other half."""
    explanations: Mapping[str, str] = field(default_factory=dict)
    """Text by flaw: only the proposal reads it."""
    predictions: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Level at every scored anchor by flaw."""

    @cached_property
    def fires(self) -> np.ndarray:
        return self.truth > 0

    @cached_property
    def ranks(self) -> np.ndarray:
        """Of the activations, ties averaged."""
        return statistics.ranks(self.truth)


def corpus_world(tokens: int, seed: int, sources: Sequence[str] = ("local", "generated")) -> World:
    """The project's own text, cut and split as a run does it."""
    from autointerp.notation import display
    from autointerp.wiring import subject_path
    from sae.corpus.corpus import load_corpus
    from sae.subject import load_subject

    subject = load_subject(subject_path("embedded"), device="cpu", dtype="float32")
    corpus = load_corpus(tuple(sources), "text", tokens, subject.tokenizer, 128, seed)
    vocabulary = tuple(display(token) for token in subject.token_bytes())
    parts = []
    for name in ("explain", "score"):
        rows = corpus.splits.rows(name)
        windows = corpus.windows.select(rows)
        clusters = corpus.splits.cluster[rows]
        parts.append(Text(rows.astype(np.int32), windows.tokens, windows.length, clusters, windows.first, vocabulary))
    return _world(" and ".join(sources), parts[0], parts[1])


def zipf_world(n_windows: int, seed: int, context: int = 64) -> World:
    """Generated text: words of a Zipf vocabulary in documents that repeat some of their words."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    made = {"".join(rng.choice(letters, size=rng.integers(3, 9))) for _ in range(2500)}
    scripts = [chr(0x0430 + i) + chr(0x0430 + j) for i in range(12) for j in range(12)]
    vocabulary = tuple(" " + word for word in sorted(made)) + tuple(scripts)
    rank = rng.permutation(len(vocabulary)) + 2.7
    probability = rank**-1.05 / (rank**-1.05).sum()
    parts = []
    for _ in range(2):
        tokens = rng.choice(len(vocabulary), size=(n_windows, context), p=probability)
        topical = rng.choice(len(vocabulary), size=(n_windows, 4), p=probability)
        replaced = rng.random(tokens.shape) < 0.15
        chosen = np.take_along_axis(topical, rng.integers(4, size=tokens.shape), axis=1)
        tokens = np.where(replaced, chosen, tokens).astype(np.int32)
        rows = np.arange(n_windows, dtype=np.int32)
        length = np.full(n_windows, context, dtype=np.int32)
        parts.append(Text(rows, tokens, length, rows // 4, 0, vocabulary))
    return _world("generated words", parts[0], parts[1])


def _world(name: str, explain: Text, score: Text) -> World:
    index = TextIndex(score, WIDTH)
    return World(name, index, TextIndex(explain, WIDTH).token, score.cluster[index.window])


def make_unit(world: World, rule: str, rng: np.random.Generator) -> SyntheticUnit:
    """A random unit of the rule, with its true and its flawed explanations."""
    total = {"dense": 0.15, "rare": 5e-5, "script": 0.02}.get(rule, 10 ** rng.uniform(-3.3, -2))
    tokens = _tokens(world, rule, total, rng)
    strength = np.zeros(len(world.index.count))
    strength[tokens] = rng.uniform(0.4, 1.0, len(tokens))
    shape = 6.0
    noise = rng.gamma(shape, 1 / shape, world.n)
    active = strength[world.token] > 0
    if rule == "token in context":
        active &= _in_context(world.token, rng)
    truth = np.where(active, strength[world.token] * noise, 0.0)
    if rule == "noisy":  # like a neuron: weakly active nearly everywhere, beside its token
        weak = rng.random(world.n) < 0.4
        truth = np.where(active, truth, np.where(weak, rng.exponential(0.03, world.n), 0.0))
    unigram = _unigram(world, strength, share=float(active.sum()) / max((strength[world.token] > 0).sum(), 1))
    return explain(world, SyntheticUnit(rule, truth, unigram), tokens, rng)


def explain(world: World, unit: SyntheticUnit, tokens: np.ndarray, rng: np.random.Generator) -> SyntheticUnit:
    """The unit with predictions of a simulator of the true explanation and of three flawed ones.

    ``missing`` half of the predicted anchors are 0; ``extra named`` as many more are predicted, on a dozen other tokens
    which the explanation names too; ``extra partly named`` on many tokens of which it names a dozen; ``extra hidden``
    at random anchors that nothing in the explanation names.
    """
    quantised = np.clip(np.floor(10 * unit.truth / max(unit.truth.max(), 1e-9)), 0, LEVELS)
    blurred = np.clip(np.round(quantised + rng.normal(0, 1, world.n)), 1, LEVELS)
    true = np.where((quantised > 0) & (rng.random(world.n) > 0.1), blurred, 0.0)
    positive = np.flatnonzero(true)
    missing = true.copy()
    missing[positive[rng.random(len(positive)) < 0.5]] = 0
    spare = np.setdiff1d(np.flatnonzero(world.index.count > 0), np.union1d(tokens, np.unique(world.token[positive])))
    few, many = (_fill(world, rng.permutation(spare), len(positive), most) for most in (NAMED, None))
    on_few, on_many = (
        rng.permutation(np.flatnonzero(np.isin(world.token, wrong) & (true == 0)))[: len(positive)]
        for wrong in (few, many)
    )
    hidden = rng.choice(np.flatnonzero(true == 0), size=min(len(positive), world.n - len(positive)), replace=False)
    drawn = {"true": true, "missing": missing}
    for name, at in (("extra named", on_few), ("extra partly named", on_many), ("extra hidden", hidden)):
        more = true.copy()
        more[at] = rng.choice(true[positive], size=len(at)) if len(positive) else 5
        drawn[name] = more
    text = words(world, tokens)
    more_words = {
        "extra named": f"{text} {words(world, few)}",
        "extra partly named": f"{text} {words(world, many)}",
    }
    drawn = {name: levels.astype(np.float32) for name, levels in drawn.items()}
    texts = {**dict.fromkeys(FLAWS, text), **more_words}
    return SyntheticUnit(unit.rule, unit.truth, unit.unigram, texts, drawn)


def flawed_unit(
    world: World, density: float, precision: float, *, findable: bool, rng: np.random.Generator
) -> SyntheticUnit | None:
    """A unit of the density whose explanation predicts 1 / precision times as many anchors as fire.

    ``findable``: it fires in some contexts of its tokens and the explanation names the tokens alone; otherwise it fires
    on its tokens always and the false predictions are anywhere. None where the density leaves no room.
    """
    predicted = density / precision
    if predicted > 0.65 or density * world.n < 8:
        return None
    able, held = (
        rng.permutation(np.flatnonzero(world.index.count > 0)),
        int(world.n * (predicted if findable else density)),
    )
    tokens = _fill(world, able, held, NAMED)
    inside = np.isin(world.token, tokens)
    active = inside & (rng.random(world.n) < (precision if findable else 1.0))
    truth = np.where(active, rng.gamma(2.0, 0.5, world.n) + 0.05, 0.0)
    level = np.clip(np.floor(10 * truth / truth.max()), 1, LEVELS)
    false = inside & ~active if findable else ~inside & (rng.random(world.n) < predicted - density)
    levels = np.where(active, level, 0.0)
    levels[false] = rng.choice(level[active], size=int(false.sum()))
    strength = np.zeros(len(world.index.count))
    strength[tokens] = 1.0
    unigram = _unigram(world, strength, share=precision if findable else 1.0)
    return SyntheticUnit(
        f"flawed {density:g}", truth, unigram, {"flawed": words(world, tokens)}, {"flawed": levels.astype(np.float32)}
    )


def words(world: World, tokens: np.ndarray) -> str:
    """An explanation that names the commonest dozen of the tokens."""
    known = tokens[np.argsort(-world.index.count[tokens], kind="stable")][:NAMED]
    return "Fires on " + ", ".join(
        '"' + world.index.text.vocabulary[token].replace('"', '\\"') + '"' for token in known
    )


def _tokens(world: World, rule: str, total: float, rng: np.random.Generator) -> np.ndarray:
    count, vocabulary = world.index.count, world.index.text.vocabulary
    able = np.flatnonzero(count > 0)
    if rule == "script":
        kind = np.array([_script(vocabulary[token]) for token in able])
        names, held = np.unique(kind[kind > 0], return_inverse=True)
        mass = np.bincount(held, count[able[kind > 0]])
        fit = names[(mass > 20) & (mass < 0.2 * world.n)]
        if len(fit):
            return able[kind == rng.choice(fit)]
    target = max(int(total * world.n), 12)
    if rule in ("token", "token in context", "noisy"):
        near = able[np.argsort(np.abs(np.log(count[able] / target)), kind="stable")[:12]]
        return near[rng.integers(len(near), size=1)]
    return _fill(world, rng.permutation(able), target)


def _script(token: str) -> int:
    plain = token.strip()
    return ord(plain[0]) // 256 if plain and ord(plain[0]) >= 0x370 else 0


def _fill(world: World, tokens: np.ndarray, target: int, most: int | None = None) -> np.ndarray:
    """Tokens, in order, whose occurrences come to about `target` together; at most `most`, as common as needed."""
    count = world.index.count[tokens]
    if most is not None:
        tokens = tokens[count >= min(target / most, np.sort(count)[-most:].min())]
        count = world.index.count[tokens]
    small = tokens[count <= max(0.5 * target, count.min(initial=1))]
    ends = np.cumsum(world.index.count[small])
    return small[: max(1, int(np.searchsorted(ends, target * 1.02, side="right")))][:most]


def _in_context(token: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether the token before, by a hash of its id, is one of a random third."""
    third = rng.random(int(token.max()) + 1) < 1 / 3
    return third[np.roll(token, 1)]


def _unigram(world: World, strength: np.ndarray, share: float) -> np.ndarray:
    """Mean activation per token of the other half: tokens that do not occur there have none."""
    there = np.bincount(world.seen, minlength=len(strength)) > 0
    return strength * share * there
