"""From configuration to objects, by exhaustive match."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from autointerp.activations.plan import HarvestSizes
from autointerp.config import EMBEDDED, RunConfig, parse_count
from autointerp.explain.llm import LlmExplainer
from autointerp.explain.lookup import LookupExplainer
from autointerp.llm.catalog import SLOT_PROVIDERS
from autointerp.manifest import content_key
from autointerp.pipeline import Judges
from autointerp.prompts import load_prompt
from autointerp.protocols.catalog import make_presets
from autointerp.protocols.preset import Preset
from autointerp.records.outcome import ArmInfo
from autointerp.records.unit import Unit
from autointerp.seams import Explainer, Model, Simulator
from autointerp.selection import resolve_features
from autointerp.simulate.llm import LlmSimulator
from autointerp.simulate.logprob import SlotSimulator
from autointerp.simulate.lookup import LookupSimulator
from sae import PRETRAINED
from sae.baselines import Neurons, RandomDirections, Thresholded, fire_thresholds, matched_thresholds
from sae.belonging import check_belongs, doubt
from sae.corpus.corpus import Corpus, load_corpus
from sae.corpus.windows import Windows
from sae.dictionary import Dictionary, as_tensor, on_device
from sae.errors import UserError, nearest
from sae.features import firing_densities, site_sample, unit_activations, unit_sample
from sae.formats import load_dictionary
from sae.formats.hub import locate
from sae.sites import Site
from sae.subject import Subject, devices, load_subject

LOOKUP = "lookup"
FEATURES = "features"
_BASELINES = ("neurons", "neurons-matched", "random", "sae:PATH", "none")
_CHECKED = 2048
"""Explain positions on which the reconstruction is checked against what the dictionary's files state."""
_SAMPLE = 50_000
"""Explain positions from which neurons' thresholds are fitted: densities down to 2e-5 can be matched."""


@dataclass(frozen=True, eq=False)
class Arm:
    """A dictionary at a site, and which of its units are asked."""

    info: ArmInfo
    """Label and kind, for the tables."""
    site: Site
    """Where it lies."""
    dictionary: Dictionary
    """What is laid over the site."""
    units: np.ndarray
    """Indices of the units asked, rising."""
    thresholds: np.ndarray
    """Activation above which each of them fires."""
    digest: str
    """Content hash of the dictionary."""


@dataclass(frozen=True, eq=False)
class Setting:
    """Everything that a run needs of the world, loaded and checked."""

    config: RunConfig
    """What was asked."""
    subject: Subject
    """The language model."""
    corpus: Corpus
    """Windows and their splits."""
    arms: tuple[Arm, ...]
    """Features first."""

    @cached_property
    def key(self) -> str:
        """Content key of the harvest: the same key means the same numbers."""
        return content_key(
            {
                "subject": self.subject.digest,
                "corpus": self.corpus.digest,
                "context": self.config.context,
                "dtype": self.config.dtype,
                "seed": self.config.seed,
                "sizes": asdict(harvest_sizes(self.config)),
                "arms": [(arm.info.label, arm.site.name, arm.digest, arm.units.tolist()) for arm in self.arms],
            }
        )

    def recompute(self, unit: Unit, windows: Sequence[int]) -> np.ndarray:
        """A unit's activations on whole windows, of shape (window, position)."""
        arm = next(arm for arm in self.arms if arm.info.label == unit.arm)
        chosen = self.corpus.windows.select(np.asarray(windows, dtype=np.int64))
        return unit_activations(
            self.subject, arm.site, arm.dictionary, unit.index, chosen, self.config.windows_per_pass
        )


def load_setting(config: RunConfig, say: Callable[[str], None]) -> Setting:
    """Load and check subject, dictionary, corpus and arms; every fault is a `UserError` before anything is computed."""
    presets(config)
    device = choose_device(config.device)
    subject = load_subject(subject_path(config.subject), device=device, dtype=config.dtype)
    site = subject.site(config.site)
    dictionary, info = load_dictionary(sae_path(config.sae))
    check_belongs(subject, site, info)
    dictionary = on_device(dictionary, device)
    say(f"subject {config.subject}, site {site.name}, {site.width} wide, on {device}")
    corpus = load_corpus(
        config.corpus, config.text_column, parse_count(config.tokens), subject.tokenizer, config.context, config.seed
    )
    say_corpus(corpus, say)
    sample = site_sample(subject, site, explain_windows(corpus), _CHECKED, config.seed)
    if (note := doubt(dictionary, info, sample, device)) is not None:
        say(note)
    features = _features(config, subject, site, dictionary, info.digest, corpus)
    say(f"features {config.features}: {len(features.units):,} of {info.n_units:,}")
    arms = [features]
    for spec in dict.fromkeys(config.baseline):
        if spec != "none":
            arms.append(_baseline(spec, config, subject, features, corpus))
            say(f"{arms[-1].info.label}: {len(arms[-1].units):,} units, {arms[-1].info.description}")
    return Setting(config, subject, corpus, tuple(arms))


def explain_windows(corpus: Corpus) -> Windows:
    """Windows of the explain split: all that anything may be fitted on."""
    return corpus.windows.select(corpus.splits.rows("explain"))


def score_windows(corpus: Corpus, tokens: int, seed: int) -> Windows:
    """Random windows of the score split, of about `tokens` tokens."""
    held_out = corpus.windows.select(corpus.splits.rows("score"))
    order = np.random.default_rng(seed).permutation(len(held_out))
    return held_out.select(np.sort(order[: max(1, tokens // corpus.windows.context)]))


def say_corpus(corpus: Corpus, say: Callable[[str], None]) -> None:
    """What a corpus is made of, in a few lines."""
    parts = ", ".join(f"{each.tokens:,} {each.source}" for each in corpus.sources)
    say(f"corpus {corpus.windows.n_tokens:,} tokens ({parts}), {len(corpus.documents):,} documents")
    for note in corpus.notes:
        say(note)


def choose_device(device: str) -> str:
    """`auto` is the GPU where there is one; a device that is missing is a `UserError`."""
    available = devices()
    if device == "auto":
        return available[-1]
    if device not in available:
        raise UserError(f"There is no {device} device here.", do=f"Use --device {available[-1]}.", usage=True)
    return device


def subject_path(name: str) -> str:
    """Directory of the embedded subject, or `name` itself."""
    return str(PRETRAINED / "subject") if name == EMBEDDED else name


def sae_path(name: str) -> Path:
    """Directory of the embedded dictionary, or where `name` is: a path, or ``hf:ORG/REPO/PATH[@REVISION]``."""
    return PRETRAINED / "sae" if name == EMBEDDED else locate(name)


def presets(config: RunConfig) -> tuple[Preset, ...]:
    """The protocols asked for, the headline first."""
    return make_presets(config.protocol, config.seed)


def harvest_sizes(config: RunConfig) -> HarvestSizes:
    """What the protocols need of every unit; nothing of the select split where nothing is selected."""
    return replace(HarvestSizes.union([preset.harvest for preset in presets(config)]), select=None)


def language_models(config: RunConfig) -> list[str]:
    """The `provider/model` names that a run calls; empty where `lookup` does everything."""
    if reads_slots(config.explainer):
        raise UserError(
            f"{config.explainer} cannot explain.",
            "Models of slots/ and local/ write nothing: they only simulate.",
            "Give --explainer lookup or provider/model.",
            usage=True,
        )
    if config.batch and reads_slots(config.simulator):
        raise UserError(f"{config.simulator} has no batch API.", do="Leave --batch out.", usage=True)
    if config.explainer != LOOKUP and config.simulator == LOOKUP:
        raise UserError(
            f"The simulator {LOOKUP} reads token tables, which {config.explainer} does not write.",
            do="Give --simulator provider/model too.",
            usage=True,
        )
    return sorted({name for name in (config.explainer, config.simulator) if name != LOOKUP})


def reads_slots(name: str) -> bool:
    """Whether `name` is a simulator's model that gives its distribution at every level of an item at once."""
    return name.partition("/")[0] in SLOT_PROVIDERS


def judges(config: RunConfig, arms: Sequence[str], model: Model | None) -> dict[str, Judges]:
    """Per arm, who explains and who simulates; the arm's label only reaches the ledger."""
    return {arm: Judges(_explainer(config, arm, model), {"levels": _simulator(config, arm, model)}) for arm in arms}


def _explainer(config: RunConfig, arm: str, model: Model | None) -> Explainer:
    if config.explainer == LOOKUP or model is None:
        return LookupExplainer()
    return LlmExplainer(model, config.explainer, load_prompt("explain", "v1"), config.draws, arm)


def _simulator(config: RunConfig, arm: str, model: Model | None) -> Simulator:
    if config.simulator == LOOKUP or model is None:
        return LookupSimulator()
    if reads_slots(config.simulator):
        return SlotSimulator(model, config.simulator, load_prompt("slots", "v1"), arm=arm)
    return LlmSimulator(model, config.simulator, load_prompt("simulate", "v1"), config.draws, arm=arm)


def _features(
    config: RunConfig, subject: Subject, site: Site, dictionary: Dictionary, digest: str, corpus: Corpus
) -> Arm:
    def densities() -> np.ndarray:
        return firing_densities(subject, site, dictionary, explain_windows(corpus), batch=config.windows_per_pass)

    units = np.sort(resolve_features(config.features, dictionary.n_units, densities, config.seed))
    info = ArmInfo(FEATURES, "features", len(units), config.sae)
    return Arm(info, site, dictionary, units, np.zeros(len(units)), digest)


def _baseline(spec: str, config: RunConfig, subject: Subject, features: Arm, corpus: Corpus) -> Arm:
    """The arm that `spec` means, with at most as many units as there are features, drawn by the seed."""
    n, seed = len(features.units), config.seed
    match spec.partition(":"):
        case ("neurons" | "neurons-matched" as kind, "", ""):
            return _neurons(kind == "neurons-matched", config, subject, features, corpus)
        case ("random", "", ""):
            dictionary = RandomDirections(features.site.width, min(n, features.site.width), seed, subject.device)
            units = np.arange(dictionary.n_units)
            info = ArmInfo("random", "random", len(units), "random directions at the same site")
            return Arm(info, features.site, dictionary, units, np.zeros(len(units)), f"random:{seed}")
        case ("sae", ":", path):
            dictionary, loaded = load_dictionary(sae_path(path))
            check_belongs(subject, features.site, loaded)
            units = _draw(loaded.n_units, n, seed)
            info = ArmInfo(spec, "sae", len(units), "another autoencoder at the same site")
            placed = on_device(dictionary, subject.device)
            return Arm(info, features.site, placed, units, np.zeros(len(units)), loaded.digest)
        case _:
            raise UserError(f"--baseline cannot be {spec!r}.", do=nearest(spec, _BASELINES), usage=True)


def _neurons(matched: bool, config: RunConfig, subject: Subject, features: Arm, corpus: Corpus) -> Arm:
    site, seed = subject.neurons_site(features.site), config.seed
    neurons = Neurons(site.width, site.signed)
    units = _draw(neurons.n_units, len(features.units), seed)
    what = f"{'both tails of ' if site.signed else ''}the neurons at {site.name}"
    explain = explain_windows(corpus)
    sample = unit_sample(neurons, site_sample(subject, site, explain, _SAMPLE, seed))
    if not matched:
        thresholds = fire_thresholds(sample, signed=site.signed)
        info = ArmInfo("neurons", "neurons", len(units), what)
        return Arm(info, site, neurons, units, thresholds[units], "neurons")
    densities = firing_densities(subject, features.site, features.dictionary, explain, batch=config.windows_per_pass)
    densities = densities[features.units]
    thresholds = matched_thresholds(sample, densities[densities > 0], seed)
    info = ArmInfo(
        "neurons-matched",
        "neurons-matched",
        len(units),
        f"{what}, silenced below thresholds: densities can only fall to the features'",
    )
    dictionary = Thresholded(neurons, as_tensor(thresholds, subject.device))
    return Arm(info, site, dictionary, units, np.zeros(len(units)), "neurons-matched")


def _draw(n_units: int, most: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(n_units, size=min(most, n_units), replace=False))
