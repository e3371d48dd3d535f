"""Unit activations as sparse numpy arrays, streamed window by window."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from sae.architectures.relu import ReluAutoencoder
from sae.corpus.windows import Windows
from sae.dictionary import Dictionary, encoded
from sae.sites import Site
from sae.subject import Subject

_SPREAD = 4
"""A sample comes from windows that hold this many times the tokens it needs, so that it is no few documents'."""


@dataclass(frozen=True, slots=True, eq=False)
class UnitBlock:
    """Every firing of a dictionary's units in a range of windows, sorted by window, position, unit."""

    window: Int32[np.ndarray, " firing"]
    """Row of the windows given, counted from 0."""
    position: Int32[np.ndarray, " firing"]
    """Position in the window; only positions that count, neither BOS nor padding."""
    unit: Int32[np.ndarray, " firing"]
    """Row of the dictionary."""
    value: Float32[np.ndarray, " firing"]
    """Activation, > 0."""


def stream_units(
    subject: Subject,
    places: Mapping[str, tuple[Site, Dictionary]],
    windows: Windows,
    *,
    units: Mapping[str, np.ndarray] | None = None,
    subjects: Mapping[str, Subject] | None = None,
    batch: int = 64,
) -> Iterator[tuple[range, Mapping[str, UnitBlock]]]:
    """Firings of every place's dictionary, `batch` windows at a time: (rows of `windows`, block by name of place).

    Places at the same site share one forward pass. `units` limits places to the rows of their dictionary given
    (rising); the whole dictionary is encoded first all the same, because units may compete. `subjects` names the
    places that lie in another subject with the same tokenizer. Raises `UserError` where a dictionary does not fit
    its site or activations are not finite.
    """
    of = {name: (subjects or {}).get(name, subject) for name in places}
    for name, (site, dictionary) in places.items():
        of[name].check_fits(site, dictionary.d_in, f"dictionary {name}")
    chosen = {
        name: np.asarray(index, dtype=np.int64)
        for name, index in (units or {}).items()
        if len(index) < places[name][1].n_units  # all of them need no gather, which costs as much as the encoding
    }
    distinct = {(of[name], site) for name, (site, _) in places.items()}
    for begin in range(0, len(windows), batch):
        rows = range(begin, min(begin + batch, len(windows)))
        part = windows.select(np.arange(rows.start, rows.stop))
        at = np.nonzero(part.counted())
        window, position = at[0].astype(np.int32) + np.int32(begin), at[1].astype(np.int32)
        values = {(of_place, site): of_place.rows(site, part) for of_place, site in distinct}
        yield (
            rows,
            {
                name: _block(dictionary, values[of[name], site], window, position, chosen.get(name))
                for name, (site, dictionary) in places.items()
            },
        )


def unit_activations(
    subject: Subject, site: Site, dictionary: Dictionary, unit: int, windows: Windows, batch: int = 64
) -> Float32[np.ndarray, "window position"]:
    """Activation of one unit at every position of `windows`; 0 at BOS and padding.

    Units of a ReLU autoencoder do not compete, so only the one is encoded: equal to encoding all but for rounding.
    """
    out = np.zeros(windows.tokens.shape, dtype=np.float32)
    if isinstance(dictionary, ReluAutoencoder):
        mine = slice(unit, unit + 1)
        weights = {name: getattr(dictionary, name)[mine] for name in ("W_enc", "b_enc", "W_dec")}
        dictionary, unit = replace(dictionary, **weights), 0
    place = {"": (site, dictionary)}
    for _, blocks in stream_units(subject, place, windows, units={"": np.array([unit])}, batch=batch):
        block = blocks[""]
        out[block.window, block.position] = block.value
    return out


def site_sample(
    subject: Subject, site: Site, windows: Windows, n: int, seed: int, batch: int = 64
) -> Float32[np.ndarray, "token width"]:
    """The site's activations at `n` positions that count, drawn without replacement; all of them where fewer.

    To read only a part of `windows`, the positions are drawn from as many random windows as hold 4 n of them.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(windows))
    held = np.cumsum(windows.length[order] - windows.first)
    kept = windows.select(np.sort(order[: np.searchsorted(held, _SPREAD * n) + 1]))
    picked = np.sort(rng.choice(kept.n_tokens, size=min(n, kept.n_tokens), replace=False))
    rows, before = [np.empty((0, site.width), dtype=np.float32)], 0
    for begin in range(0, len(kept), batch):
        part = kept.select(np.arange(begin, min(begin + batch, len(kept))))
        here = picked[(picked >= before) & (picked < before + part.n_tokens)] - before
        rows.append(subject.rows(site, part)[torch.from_numpy(here).to(subject.device)].cpu().numpy())
        before += part.n_tokens
    return np.concatenate(rows)


def firing_densities(
    subject: Subject, site: Site, dictionary: Dictionary, windows: Windows, *, batch: int = 64
) -> Float[np.ndarray, " unit"]:
    """Share of the positions that count on which each unit fires, 0 to 1."""
    counts = np.zeros(dictionary.n_units, dtype=np.int64)
    for begin in range(0, len(windows), batch):
        rows = subject.rows(site, windows.select(np.arange(begin, min(begin + batch, len(windows)))))
        for _, activations in encoded(dictionary, rows):
            counts += (activations > 0).sum(0).cpu().numpy()
    return counts / max(windows.n_tokens, 1)


def unit_sample(dictionary: Dictionary, rows: Float32[np.ndarray, "token width"]) -> Float32[np.ndarray, "token unit"]:
    """Activations of every unit on `rows` of the site, such as `site_sample` gives."""
    parts = [activations.float().cpu().numpy() for _, activations in encoded(dictionary, torch.from_numpy(rows))]
    return np.concatenate([np.empty((0, dictionary.n_units), dtype=np.float32), *parts])


def _block(
    dictionary: Dictionary,
    rows: Float[Tensor, "token d_in"],
    window: Int32[np.ndarray, " token"],
    position: Int32[np.ndarray, " token"],
    units: np.ndarray | None,
) -> UnitBlock:
    tokens, found, values = [], [], []
    for begin, activations in encoded(dictionary, rows):
        kept = activations if units is None else activations[:, torch.from_numpy(units).to(activations.device)]
        dense = kept.float().cpu().contiguous().numpy()
        flat = np.flatnonzero(dense > 0)
        token, unit = np.divmod(flat, dense.shape[1])
        tokens.append(token + begin)
        found.append(unit if units is None else units[unit])
        values.append(dense.reshape(-1)[flat])
    if not tokens:
        nothing = np.empty(0, dtype=np.int32)
        return UnitBlock(nothing, nothing, nothing, np.empty(0, dtype=np.float32))
    token = np.concatenate(tokens)
    return UnitBlock(window[token], position[token], np.concatenate(found).astype(np.int32), np.concatenate(values))
