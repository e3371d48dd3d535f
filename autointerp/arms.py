"""The arms of a run that have a dictionary of their own: features, and what they are compared with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from autointerp.config import EMBEDDED, RunConfig
from autointerp.records.outcome import ArmInfo
from autointerp.report import terminal
from autointerp.selection import resolve_features
from sae import PRETRAINED
from sae.baselines import (
    Neurons,
    RandomDirections,
    Thresholded,
    fire_thresholds,
    matched_thresholds,
    principal_components,
)
from sae.belonging import check_belongs, doubt
from sae.corpus.corpus import Corpus
from sae.corpus.windows import Windows
from sae.dictionary import Dictionary, as_tensor, on_device
from sae.errors import UserError, nearest
from sae.features import firing_densities, site_sample, unit_sample
from sae.formats import load_dictionary
from sae.formats.hub import locate
from sae.rows import train
from sae.shuffled import recipe_like, shuffled_subject
from sae.sites import Site
from sae.subject import Subject
from sae.trainee import TrainLog

FEATURES = "features"
SHUFFLED_SUBJECT = "shuffled-subject"
STANDARD = ("random", "pca", "neurons-matched")
"""Baselines that `--controls standard` adds: those that need no training."""
_BASELINES = (
    "neurons",
    "neurons-matched",
    "random",
    "pca",
    SHUFFLED_SUBJECT,
    "shuffled-subject:PATH",
    "sae:PATH",
    "none",
)
_CHECKED = 2048
"""Explain positions on which the reconstruction is checked against what the dictionary's files state."""
_SAMPLE = 50_000
"""Explain positions from which thresholds are fitted: densities down to 2e-5 can be matched."""


@dataclass(frozen=True, eq=False)
class Arm:
    """A dictionary at a site, and which of its units are asked."""

    info: ArmInfo
    """Label and kind, for the tables."""
    subject: Subject
    """The language model, or the one that a control has instead."""
    site: Site
    """Where in it the dictionary lies."""
    dictionary: Dictionary
    """What is laid over the site."""
    units: np.ndarray
    """Indices of the units asked, rising."""
    thresholds: np.ndarray
    """Activation above which each of them fires."""
    digest: str
    """Content hash of the dictionary."""


def make_arms(
    config: RunConfig, subject: Subject, corpus: Corpus, kept: Path, say: Callable[[str], None]
) -> tuple[Arm, ...]:
    """The features, then each baseline asked for once; what has to be trained is kept under `kept`."""
    path = sae_path(config.sae)
    site = subject.site(config.site)
    dictionary, info = load_dictionary(path)
    check_belongs(subject, site, info)
    dictionary = on_device(dictionary, subject.device)
    sample = site_sample(subject, site, explain_windows(corpus), _CHECKED, config.seed)
    if (note := doubt(dictionary, info, sample, subject.device)) is not None:
        say(note)

    @cache
    def densities() -> np.ndarray:
        return firing_densities(subject, site, dictionary, explain_windows(corpus), batch=config.windows_per_pass)

    units = np.sort(resolve_features(config.features, dictionary.n_units, densities, config.seed))
    about = ArmInfo(FEATURES, "features", len(units), config.sae)
    features = Arm(about, subject, site, dictionary, units, np.zeros(len(units)), info.digest)
    say(f"features {config.features}: {len(features.units):,} of {info.n_units:,}")
    arms = [features]

    more = STANDARD if "standard" in config.controls else ()
    for spec in dict.fromkeys([*config.baseline, *more]):
        if spec != "none":
            arms.append(_baseline(spec, config, features, corpus, kept, densities))
            say(f"{arms[-1].info.label}: {len(arms[-1].units):,} units, {arms[-1].info.description}")
    return tuple(arms)


def explain_windows(corpus: Corpus) -> Windows:
    """Windows of the explain split: all that anything may be fitted on."""
    return corpus.windows.select(corpus.splits.rows("explain"))


def sae_path(name: str) -> Path:
    """Directory of the embedded dictionary, or where `name` is: a path, or ``hf:ORG/REPO/PATH[@REVISION]``."""
    return PRETRAINED / "sae" if name == EMBEDDED else locate(name)


def _baseline(
    spec: str, config: RunConfig, features: Arm, corpus: Corpus, kept: Path, densities: Callable[[], np.ndarray]
) -> Arm:
    """The arm that `spec` means, with at most as many units as there are features, drawn by the seed.

    `densities` are those of the features' dictionary on the explain split.
    """
    n, seed, subject = len(features.units), config.seed, features.subject
    match spec.partition(":"):
        case ("neurons", "", ""):
            return _neurons(config, features, corpus)
        case ("neurons-matched", "", ""):
            return _matched_neurons(config, features, corpus, densities()[features.units])
        case ("random", "", ""):
            return _random(config, features, corpus, densities()[features.units])
        case ("pca", "", ""):
            return _principal_components(config, features, corpus)
        case ("shuffled-subject", _, path):
            return _shuffled(Path(path) if path else None, config, features, corpus, kept)
        case ("sae", ":", path):
            dictionary, loaded = load_dictionary(sae_path(path))
            check_belongs(subject, features.site, loaded)
            units = _draw(loaded.n_units, n, seed)
            info = ArmInfo(spec, "sae", len(units), "another autoencoder at the same site")
            placed = on_device(dictionary, subject.device)
            return Arm(info, features.subject, features.site, placed, units, np.zeros(len(units)), loaded.digest)
        case _:
            raise UserError(f"--baseline cannot be {spec!r}.", do=nearest(spec, _BASELINES), usage=True)


def _neurons(config: RunConfig, features: Arm, corpus: Corpus) -> Arm:
    subject = features.subject
    site = subject.neurons_site(features.site)
    neurons = Neurons(site.width, site.signed)
    units = _draw(neurons.n_units, len(features.units), config.seed)
    rows = site_sample(subject, site, explain_windows(corpus), _SAMPLE, config.seed)
    thresholds = fire_thresholds(unit_sample(neurons, rows), signed=site.signed)
    info = ArmInfo("neurons", "neurons", len(units), _neurons_of(site))
    return Arm(info, subject, site, neurons, units, thresholds[units], "neurons")


def _matched_neurons(config: RunConfig, features: Arm, corpus: Corpus, densities: np.ndarray) -> Arm:
    site = features.subject.neurons_site(features.site)
    neurons = Neurons(site.width, site.signed)
    info = ArmInfo("neurons-matched", "neurons-matched", neurons.n_units, _neurons_of(site))
    return _at_matched_density(info, site, neurons, "neurons-matched", config, features, corpus, densities)


def _random(config: RunConfig, features: Arm, corpus: Corpus, densities: np.ndarray) -> Arm:
    n, site = min(len(features.units), features.site.width), features.site
    directions = RandomDirections(site.width, n, config.seed, features.subject.device)
    info = ArmInfo("random", "random", n, f"random directions at {site.name}")
    return _at_matched_density(info, site, directions, f"random:{config.seed}", config, features, corpus, densities)


def _at_matched_density(
    info: ArmInfo,
    site: Site,
    inner: Dictionary,
    digest: str,
    config: RunConfig,
    features: Arm,
    corpus: Corpus,
    densities: np.ndarray,
) -> Arm:
    """Units of `inner`, each silenced below the threshold that gives it the density of a feature drawn at random."""
    subject = features.subject
    rows = site_sample(subject, site, explain_windows(corpus), _SAMPLE, config.seed)
    thresholds = matched_thresholds(unit_sample(inner, rows), densities[densities > 0], config.seed)
    units = _draw(inner.n_units, len(features.units), config.seed)
    what = f"{info.description}, silenced below thresholds: densities can only fall to the features'"
    dictionary = Thresholded(inner, as_tensor(thresholds, subject.device))
    info = replace(info, n_units=len(units), description=what)
    return Arm(info, subject, site, dictionary, units, np.zeros(len(units)), digest)


def _neurons_of(site: Site) -> str:
    return f"{'both tails of ' if site.signed else ''}the neurons at {site.name}"


def _principal_components(config: RunConfig, features: Arm, corpus: Corpus) -> Arm:
    subject, site = features.subject, features.site
    rows = site_sample(subject, site, explain_windows(corpus), _SAMPLE, config.seed)
    dictionary = on_device(principal_components(rows), subject.device)
    units = _draw(dictionary.n_units, len(features.units), config.seed)
    thresholds = fire_thresholds(unit_sample(dictionary, rows), signed=True)
    info = ArmInfo("pca", "pca", len(units), f"both tails of the principal components at {site.name}")
    return Arm(info, subject, site, dictionary, units, thresholds[units], f"pca:{config.seed}")


def _shuffled(path: Path | None, config: RunConfig, features: Arm, corpus: Corpus, kept: Path) -> Arm:
    """A dictionary of the features' width and recipe, trained on a subject whose weights are shuffled by the seed."""
    subject = shuffled_subject(features.subject, config.seed)
    site, folder = subject.site(config.site), path or kept / SHUFFLED_SUBJECT
    if path is None and not (folder / "cfg.json").exists():
        _train_shuffled(subject, site, folder, config, features, corpus)
    dictionary, loaded = load_dictionary(folder)
    subject.check_fits(site, loaded.d_in, "SAE")
    if loaded.subject != subject.name:
        raise UserError(
            f"The dictionary in {folder} does not fit the subject shuffled by seed {config.seed}.",
            f"It says {loaded.subject}; this one would say {subject.name}.",
            "Use --baseline shuffled-subject, which trains one.",
        )
    units = _draw(loaded.n_units, len(features.units), config.seed)
    what = "an autoencoder of the subject with its weights shuffled"
    info = ArmInfo(SHUFFLED_SUBJECT, "shuffled-subject", len(units), what)
    placed = on_device(dictionary, subject.device)
    return Arm(info, subject, site, placed, units, np.zeros(len(units)), f"{subject.digest}:{loaded.digest}")


def _train_shuffled(
    subject: Subject, site: Site, folder: Path, config: RunConfig, features: Arm, corpus: Corpus
) -> None:
    recipe = recipe_like(sae_path(config.sae), features.dictionary.n_units, config.seed)
    terminal.say(
        f"{SHUFFLED_SUBJECT}: training {recipe.d_sae:,} features on {recipe.tokens:,} tokens, once, into {folder}; "
        f"expect 3 to 4 minutes per million tokens at 4,096 features of 512 neurons on 2 CPU cores"
    )
    with terminal.stage("train", recipe.tokens, "tokens") as advance:

        def on_log(log: TrainLog) -> None:
            advance(log.tokens, f"loss {log.loss:.4g}  L0 {log.l0:.1f}  FVU {log.fvu:.3f}  dead {log.dead}")

        train(subject, site, explain_windows(corpus), recipe, folder, on_log=on_log)


def _draw(n_units: int, most: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(n_units, size=min(most, n_units), replace=False))
