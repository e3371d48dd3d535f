"""How well a dictionary stands for its site."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae.architectures.normalised import NormalisedAutoencoder
from sae.config import ULTRA_LOW, ULTRA_LOW_TOKENS
from sae.corpus.windows import Windows
from sae.dictionary import Dictionary, encoded
from sae.errors import UserError
from sae.sites import Site
from sae.subject import Subject

DENSITY_EDGES = tuple(-8 + i / 4 for i in range(33))
"""Edges of the density histogram as log10, a quarter of a decade each, -8 to 0."""
POSITIONS = "BOS and padding are left out of every statistic and are never replaced; BOS still predicts a token"
"""Which positions count."""


@dataclass(frozen=True, slots=True, eq=False)
class DictionaryMetrics:
    """A dictionary measured on held-out windows."""

    n_tokens: int
    """Positions measured."""
    positions: str
    """Which positions those are, in words."""
    l0: float
    """Mean number of units that fire per token."""
    fvu: float | None
    """Fraction of variance unexplained: squared error over the variance about the mean, both summed over tokens and
    dimensions; 0 is perfect, 1 is the mean. None where the site does not vary."""
    dead: int
    """Units that never fire in `n_tokens`."""
    ultra_low: int | None
    """Units that fire with a density below 1e-6; None where `n_tokens` is below 10 million, too few to tell."""
    density: Float[np.ndarray, " unit"]
    """Share of tokens on which each unit fires, 0 to 1."""
    density_counts: Int64[np.ndarray, " bin"]
    """Living units by log10 density between `DENSITY_EDGES`."""
    loss: float
    """Nats per token of the untouched model."""
    loss_zero_ablated: float
    """The same with the site set to 0."""
    loss_mean_ablated: float
    """The same with the site set to its mean over these windows."""
    loss_reconstructed: float
    """The same with the site replaced by the reconstruction."""
    recovered_zero: float | None
    """Share of the loss that ablation to 0 adds which the reconstruction recovers: 1 is perfect, 0 no better than the
    ablation. None where the ablation does no harm."""
    recovered_mean: float | None
    """The same against ablation to the mean."""
    loss_increase: float
    """Nats per token that the reconstruction adds."""


def evaluate_dictionary(
    subject: Subject, site: Site, dictionary: Dictionary, windows: Windows, *, batch: int = 32
) -> DictionaryMetrics:
    """Measure `dictionary` at `site` on `windows`; see `evaluate_dictionaries`."""
    return evaluate_dictionaries(subject, site, {"": dictionary}, windows, batch=batch)[""]


def evaluate_dictionaries(
    subject: Subject,
    site: Site,
    dictionaries: Mapping[str, Dictionary],
    windows: Windows,
    *,
    batch: int = 32,
    on_pass: Callable[[int], None] = lambda _: None,
) -> dict[str, DictionaryMetrics]:
    """Measure every one of `dictionaries` at `site` on `windows`: four passes of the model, and one more for each.

    `on_pass` gets the number of passes done. Sums are float64. Raises `UserError` where a dictionary does not fit the
    site or nothing can be measured.
    """
    for name, dictionary in dictionaries.items():
        subject.check_fits(site, dictionary.d_in, f"dictionary {name}".rstrip())
    if not windows.n_tokens:
        raise UserError("There are no tokens to measure the dictionary on.", do="Give a larger corpus.")
    sums = _sums(subject, site, dictionaries, windows, batch)
    on_pass(1)
    n = windows.n_tokens
    variance = sums.squares - float(sums.total.square().sum()) / n
    mean = (sums.total / n).float().to(subject.device)
    loss = subject.loss(windows, batch=batch)
    zero = subject.loss(windows, site, torch.zeros_like, batch)
    to_mean = subject.loss(windows, site, mean.expand_as, batch)
    on_pass(4)
    found = dict[str, DictionaryMetrics]()
    for number, (name, dictionary) in enumerate(dictionaries.items(), start=5):
        fired, error = sums.fired[name], sums.error[name]
        density = fired / n
        reconstructed = subject.loss(windows, site, partial(reconstruct, dictionary), batch)
        on_pass(number)
        found[name] = DictionaryMetrics(
            n_tokens=n,
            positions=POSITIONS,
            l0=float(fired.sum() / n),
            fvu=error / variance if variance > 0 else None,
            dead=int((fired == 0).sum()),
            ultra_low=int(((density > 0) & (density < ULTRA_LOW)).sum()) if n >= ULTRA_LOW_TOKENS else None,
            density=density,
            density_counts=np.histogram(np.log10(density[density > 0]), DENSITY_EDGES)[0],
            loss=loss,
            loss_zero_ablated=zero,
            loss_mean_ablated=to_mean,
            loss_reconstructed=reconstructed,
            recovered_zero=recovered(loss, zero, reconstructed),
            recovered_mean=recovered(loss, to_mean, reconstructed),
            loss_increase=reconstructed - loss,
        )
    return found


def recovered(loss: float, ablated: float, reconstructed: float) -> float | None:
    """(ablated - reconstructed) / (ablated - loss); None where the ablation does no harm."""
    return (ablated - reconstructed) / (ablated - loss) if ablated > loss else None


def reconstruct(dictionary: Dictionary, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_in"]:
    """What the dictionary makes of `x`, a chunk of tokens at a time."""
    parts = [_decoded(dictionary, found, x[at : at + len(found)]) for at, found in encoded(dictionary, x)]
    return torch.cat([x[:0], *parts])


def _decoded(dictionary: Dictionary, activations: Tensor, x: Tensor) -> Tensor:
    """The reconstruction of `x`, whose activations these are; some dictionaries need `x` itself for it."""
    return (
        dictionary.reconstruct(x) if isinstance(dictionary, NormalisedAutoencoder) else dictionary.decode(activations)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    fired: dict[str, Int64[np.ndarray, " unit"]]
    error: dict[str, float]
    total: Float[Tensor, " d_in"]
    squares: float


@torch.no_grad()
def _sums(subject: Subject, site: Site, dictionaries: Mapping[str, Dictionary], windows: Windows, batch: int) -> _Sums:
    fired = {name: np.zeros(dictionary.n_units, dtype=np.int64) for name, dictionary in dictionaries.items()}
    error = dict.fromkeys(dictionaries, 0.0)
    total = torch.zeros(site.width, dtype=torch.float64)
    squares = 0.0
    for begin in range(0, len(windows), batch):
        x = subject.rows(site, windows.select(np.arange(begin, min(begin + batch, len(windows)))))
        total += _exact(x).sum(0).cpu()
        squares += float(_exact(x).square().sum())
        for name, dictionary in dictionaries.items():
            for start, activations in encoded(dictionary, x):
                fired[name] += (activations > 0).sum(0).cpu().numpy()
                seen = x[start : start + len(activations)]
                missed = _decoded(dictionary, activations, seen) - seen
                error[name] += float(_exact(missed).square().sum())
    return _Sums(fired, error, total, squares)


def _exact(values: Tensor) -> Tensor:
    """In float64; on the processor where the device has none."""
    return (values.cpu() if values.device.type == "mps" else values).double()
