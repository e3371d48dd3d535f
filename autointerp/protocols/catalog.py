"""Every protocol by its name."""

from collections.abc import Callable, Mapping, Sequence

from autointerp.protocols.bills_2023 import Bills2023
from autointerp.protocols.contexts import Detection2025, Fuzzing2025
from autointerp.protocols.logits_2023 import Logits2023
from autointerp.protocols.monosemanticity_2023 import Monosemanticity2023
from autointerp.protocols.population import Population
from autointerp.protocols.preset import Preset
from sae.errors import UserError, nearest

PRESETS: Mapping[str, Callable[[int], Preset]] = {
    "monosemanticity-2023": lambda seed: Monosemanticity2023(seed=seed),
    "population": lambda seed: Population(seed=seed),
    "logits-2023": lambda seed: Logits2023(seed=seed),
    "bills-2023": lambda seed: Bills2023(seed=seed),
    "detection": lambda seed: Detection2025(seed=seed),
    "fuzzing": lambda seed: Fuzzing2025(seed=seed),
}
"""How each is made from a run's seed."""


def make_presets(names: Sequence[str], seed: int) -> tuple[Preset, ...]:
    """The protocols called `names`, each once; `UserError` with the nearest name where there is none."""
    for name in names:
        if name not in PRESETS:
            raise UserError(f"--protocol cannot be {name!r}.", do=nearest(name, PRESETS), usage=True)
    if not names:
        raise UserError("No --protocol is given.", do=f"There are {', '.join(PRESETS)}.", usage=True)
    return tuple(PRESETS[name](seed) for name in dict.fromkeys(names))
