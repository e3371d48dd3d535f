"""From configuration to objects, by exhaustive match."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from autointerp.activations.plan import HarvestSizes
from autointerp.arms import Arm, make_arms
from autointerp.config import EMBEDDED, RunConfig, parse_count
from autointerp.controls import Explained, kinds
from autointerp.judges import LOOKUP, presets
from autointerp.manifest import content_key
from autointerp.records.unit import Unit
from autointerp.seams import Source
from sae import PRETRAINED
from sae.corpus.corpus import Corpus, load_corpus
from sae.corpus.windows import Windows
from sae.errors import UserError
from sae.features import unit_activations
from sae.subject import Subject, devices, load_subject


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
    _check_width(config, corpus)
    return Setting(config, subject, corpus, make_arms(config, subject, corpus, cache, say))


def _check_width(config: RunConfig, corpus: Corpus) -> None:
    room = corpus.windows.context - corpus.windows.first
    for preset in presets(config):
        widest = preset.harvest.widths[-1].excerpt_tokens
        if widest > room:
            raise UserError(
                f"{preset.name} needs excerpts of {widest} tokens.",
                f"With --context {config.context} a window holds {room}.",
                f"Give --context {config.context + widest - room} or more, or another --protocol.",
                usage=True,
            )


def score_windows(corpus: Corpus, tokens: int, seed: int) -> Windows:
    """Random windows of the score split, of about `tokens` tokens."""
    held_out = corpus.windows.select(corpus.splits.rows("score"))
    order = np.random.default_rng(seed).permutation(len(held_out))
    return held_out.select(np.sort(order[: max(1, tokens // corpus.windows.context)]))


def say_corpus(corpus: Corpus, say: Callable[[str], None]) -> None:
    """What a corpus is made of, in a few lines."""
    parts = ", ".join(f"{each.tokens:,} from {each.source}" for each in corpus.sources)
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


def harvest_sizes(config: RunConfig) -> HarvestSizes:
    """What the protocols need of every unit; nothing of the select split where nothing is selected."""
    needed = HarvestSizes.union([preset.harvest for preset in presets(config)])
    return needed if config.explanations > 1 else needed.without("select")


def explained_as(config: RunConfig, source: Source) -> Explained:
    """Whose explanation each unit is judged by: its own but for controls."""
    return Explained(source, presets(config)[0], config.simulator == LOOKUP, config.seed)
