"""The features once more, judged by explanations that are not theirs: what a score is worth without the right one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int64

from autointerp.arms import FEATURES
from autointerp.config import RunConfig
from autointerp.explain.lookup import token_table
from autointerp.protocols.preset import Preset
from autointerp.records.anchors import Activations, Pool, Text
from autointerp.records.explanation import Evidence, Explanation
from autointerp.records.outcome import ArmInfo
from autointerp.records.unit import Split, Unit, UnitRecord
from autointerp.seams import Source
from sae.errors import UserError, nearest

WHAT = {
    "shuffled": "the features, each by the explanation of another one of about its density",
    "empty": "the features by the empty explanation",
    "generic": "the features by one explanation that is the same for all",
}
"""The kinds of control, and what each is."""
GENERIC = "Fires on words and parts of words that matter for the meaning of a text."
"""Said of every feature to a language model; `lookup`, which reads token tables only, gets one of many features."""
_POOLED = 64
"""Features whose evidence makes the generic table."""
_BINS = 10
"""Density bins, of equally many features, within which explanations are shuffled."""


def kinds(config: RunConfig) -> tuple[str, ...]:
    """The controls asked for, each once; `UserError` with the nearest name where there is none."""
    chosen: dict[str, None] = {}
    for name in config.controls:
        if name not in (*WHAT, "standard", "none"):
            known = (*WHAT, "standard", "none")
            raise UserError(f"--controls cannot be {name!r}.", do=nearest(name, known), usage=True)
        chosen |= dict.fromkeys(WHAT if name == "standard" else [name])
    return tuple(name for name in chosen if name != "none")


def arm_infos(config: RunConfig, arms: Sequence[ArmInfo]) -> list[ArmInfo]:
    """The `arms`, and after them those that the controls add."""
    features = next(arm for arm in arms if arm.label == FEATURES)
    return [*arms, *(ArmInfo(label(kind), "control", features.n_units, WHAT[kind]) for kind in kinds(config))]


def label(kind: str) -> str:
    """Label of a control's arm, such as ``features:shuffled``."""
    return f"{FEATURES}:{kind}"


def base(arm: str) -> str:
    """Label of the arm whose units `arm` has: itself but for a control."""
    return arm.split(":")[0] if arm.startswith(f"{FEATURES}:") else arm


def deranged(densities: Float[np.ndarray, " unit"], rng: np.random.Generator) -> Int64[np.ndarray, " unit"]:
    """For each unit another one of about its density: a permutation within each bin that leaves none in its place.

    Bins are equally many units of neighbouring density, `_BINS` of them where each can have two. Within a bin the
    permutation is one random cycle (Sattolo 1986). A single unit is left to itself.
    """
    n = len(densities)
    out = np.arange(n)
    order = np.argsort(densities, kind="stable")
    for members in np.array_split(order, max(1, min(_BINS, n // 2))):
        cycle = members[rng.permutation(len(members))]
        out[cycle] = np.roll(cycle, 1)
    return out


@dataclass(frozen=True, eq=False)
class ControlledSource:
    """A source that has the features once more for every control, under an arm of their own."""

    inner: Source
    """Where they come from."""
    kinds: tuple[str, ...]
    """Which controls."""

    def units(self) -> Sequence[Unit]:
        """The source's units, then those of each control."""
        own = self.inner.units()
        again = [replace(unit, arm=label(kind)) for kind in self.kinds for unit in own if unit.arm == FEATURES]
        return [*own, *again]

    def record(self, unit: Unit) -> UnitRecord:
        """What the harvest knows of `unit`, under the name it has here."""
        return replace(self.inner.record(_base(unit)), unit=unit)

    def activations(self, unit: Unit, windows: Sequence[int]) -> Activations:
        """The source's, of the unit itself."""
        return self.inner.activations(_base(unit), windows)

    def text(self, split: Split) -> Text:
        """The source's."""
        return self.inner.text(split)

    def pool(self, split: Split) -> Pool:
        """The source's."""
        return self.inner.pool(split)


@dataclass(frozen=True, eq=False)
class Explained:
    """Whose explanation a unit is judged by: its own, another's, or a text that is nobody's.

    A feature without evidence has no control either, and its explanation goes to nobody.
    """

    source: Source
    """Units and their evidence."""
    preset: Preset
    """The protocol that decides which features have evidence."""
    by_lookup: bool
    """Whether the simulator reads token tables only."""
    seed: int
    """Of the derangement, and of the features behind the generic table."""

    def __call__(self, unit: Unit) -> Unit | Explanation:
        """Another unit whose explanation it is, or the explanation itself; `unit` where it is its own."""
        match unit.arm.removeprefix(base(unit.arm)):
            case ":shuffled":
                return self._donors.get(unit.index, _base(unit))
            case ":empty":
                return Explanation("", "control:empty")
            case ":generic":
                return self._generic
            case _:
                return unit

    @cached_property
    def _evidence(self) -> Mapping[Unit, Evidence]:
        shown = {unit: self.preset.evidence(self.source.record(unit)) for unit in self._features}
        return {unit: each for unit, each in shown.items() if isinstance(each, Evidence)}

    @cached_property
    def _features(self) -> list[Unit]:
        return [unit for unit in self.source.units() if unit.arm == FEATURES]

    @cached_property
    def _donors(self) -> Mapping[int, Unit]:
        able = list(self._evidence)
        densities = np.array([self.source.record(unit).statistics["explain"].density for unit in able])
        donors = deranged(densities, np.random.default_rng(self.seed))
        return {unit.index: able[donor] for unit, donor in zip(able, donors.tolist(), strict=True)}

    @cached_property
    def _generic(self) -> Explanation:
        if not self.by_lookup:
            return Explanation(GENERIC, "control:generic")
        able = list(self._evidence.values())
        drawn = np.random.default_rng(self.seed).permutation(len(able))[:_POOLED]
        pooled = tuple(excerpt for i in sorted(drawn.tolist()) for excerpt in able[i].excerpts)
        table = token_table(Evidence(pooled, (), (), able[0].top_level)) if able else None
        return Explanation(table.text if isinstance(table, Explanation) else GENERIC, "control:generic")


def _base(unit: Unit) -> Unit:
    return replace(unit, arm=base(unit.arm))


def controlled(config: RunConfig, source: Source) -> Source:
    """The source with the controls that `config` asks for."""
    return ControlledSource(source, chosen) if (chosen := kinds(config)) else source
