"""From configuration to objects, by exhaustive match."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from autointerp.activations.plan import HarvestSizes
from autointerp.arms import Arm, make_arms
from autointerp.config import EMBEDDED, RunConfig, parse_count
from autointerp.controls import Explained, base, kinds
from autointerp.explain.llm import LlmExplainer
from autointerp.explain.lookup import LookupExplainer
from autointerp.llm.catalog import SLOT_PROVIDERS
from autointerp.manifest import content_key
from autointerp.pipeline import Judges
from autointerp.prompts import load_prompt
from autointerp.protocols.catalog import make_presets
from autointerp.protocols.preset import Preset
from autointerp.records.unit import Unit
from autointerp.seams import Explainer, Model, Simulator, Source
from autointerp.simulate.llm import LlmSimulator
from autointerp.simulate.logprob import SlotSimulator
from autointerp.simulate.lookup import LookupSimulator
from sae import PRETRAINED
from sae.corpus.corpus import Corpus, load_corpus
from sae.corpus.windows import Windows
from sae.errors import UserError
from sae.features import unit_activations
from sae.subject import Subject, devices, load_subject

LOOKUP = "lookup"


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
        return unit_activations(arm.subject, arm.site, arm.dictionary, unit.index, chosen, self.config.windows_per_pass)


def load_setting(config: RunConfig, cache: Path, say: Callable[[str], None]) -> Setting:
    """Load and check subject, dictionary, corpus and arms; what a baseline has to train is kept under `cache`.

    Every fault is a `UserError` before anything is computed.
    """
    presets(config)
    kinds(config)
    device = choose_device(config.device)
    subject = load_subject(subject_path(config.subject), device=device, dtype=config.dtype)
    site = subject.site(config.site)
    say(f"subject {config.subject}, site {site.name}, {site.width} wide, on {device}")
    corpus = load_corpus(
        config.corpus, config.text_column, parse_count(config.tokens), subject.tokenizer, config.context, config.seed
    )
    say_corpus(corpus, say)
    return Setting(config, subject, corpus, make_arms(config, subject, corpus, cache, say))


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
    """Per arm, who explains and who simulates; the arm's label only reaches the ledger.

    What a control's explanations cost is the features', whose they are.
    """
    return {
        arm: Judges(_explainer(config, base(arm), model), {"levels": _simulator(config, arm, model)}) for arm in arms
    }


def explained_as(config: RunConfig, source: Source) -> Explained:
    """Whose explanation each unit is judged by: its own but for controls."""
    return Explained(source, presets(config)[0], config.simulator == LOOKUP, config.seed)


def _explainer(config: RunConfig, arm: str, model: Model | None) -> Explainer:
    if config.explainer == LOOKUP or model is None:
        return LookupExplainer()
    return LlmExplainer(model, config.explainer, load_prompt("explain", "v1"), config.draws, arm)


def _simulator(config: RunConfig, arm: str, model: Model | None) -> Simulator:
    if config.simulator == LOOKUP or model is None:
        return LookupSimulator()
    if reads_slots(config.simulator):
        return SlotSimulator(model, config.simulator, load_prompt("slots", "v1"), config.draws, arm=arm)
    return LlmSimulator(model, config.simulator, load_prompt("simulate", "v1"), config.draws, arm=arm)
