"""Vectors made from a planted dictionary: sums of known directions with known activations."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from itertools import count
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.architectures.initial import unit_rows
from sae.errors import UserError, nearest
from sae.pool import Rows
from sae.ranks import ALONE, Ranks

PREFIX = "synthetic:"
Kind = Literal["independent", "zipf", "correlated", "hierarchical"]
_FORM = f"Give {PREFIX}KIND or {PREFIX}KIND:d=64,features=128,active=4, KIND being {', '.join(get_args(Kind))}."

_PIECE = 4096
"""Vectors made at one time."""
_SMALLEST, _LARGEST = 0.5, 1.5
"""Range of the activations, uniform."""
_NOISE = 0.01
"""Standard deviation of the noise on every number of a vector."""
_MOST = 0.5
"""Most that a feature fires."""
_GROUP, _CORRELATION = 8, 0.7
"""Features that share a cause, and the correlation of what decides their firing."""
_CHILDREN, _CHILD = 4, 0.8
"""Children of a parent, and the probability that one of them, never two, fires with it."""
_TRAIN, _HELD_OUT = 0, 1


@dataclass(frozen=True, slots=True)
class Planting:
    """What is planted."""

    kind: Kind
    """How features fire. ``independent``: all as often. ``zipf``: feature i as often as 1 / (i + 1). ``correlated``:
    in groups of 8 that share a cause. ``hierarchical``: a child only with its parent, and without its siblings."""
    d: int = 64
    """Width of the vectors."""
    features: int = 128
    """Directions planted, random on the sphere."""
    active: float = 4.0
    """Features that fire in a vector, on average."""

    def __post_init__(self) -> None:
        if self.d < 1 or self.features < 1 or not 0 < self.active <= _MOST * self.features:
            raise UserError(
                f"d is {self.d}, features {self.features} and active {self.active:g}.",
                do=f"The first two must be at least 1, the last above 0 and at most {_MOST:g} of the features.",
            )


@dataclass(frozen=True, eq=False, slots=True)
class Planted:
    """A planted dictionary: directions, and how often and how together they fire."""

    planting: Planting
    """What was asked."""
    directions: Float[Tensor, "feature d"]
    """Of norm 1."""
    seed: int
    """Of the directions and of all vectors."""

    def rows(self, device: str = "cpu", ranks: Ranks = ALONE) -> Rows:
        """An endless stream of vectors on `device` to train on; see `sae.pool.Rows`. Ranks take its pieces in turn."""
        return partial(self._stream, device, ranks)

    def held_out(self, n: int) -> Iterator[tuple[Float[Tensor, "token d"], Float[Tensor, "token feature"]]]:
        """`n` vectors that `rows` never gives, with the activations that they were made of, piece by piece."""
        for number in range(-(-n // _PIECE)):
            x, truth = self._piece(_HELD_OUT, number)
            left = n - number * _PIECE
            yield x[:left], truth[:left]

    def _stream(self, device: str, ranks: Ranks, start: int) -> Iterator[Float[Tensor, "token d"]]:
        for number in count(start * ranks.count + ranks.rank, ranks.count):
            yield self._piece(_TRAIN, number)[0].to(device)

    def _piece(self, split: int, number: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, split, number])
        fires = firing(self.planting, _PIECE, rng)
        sizes = rng.random(fires.shape, dtype=np.float32) * (_LARGEST - _SMALLEST) + _SMALLEST
        truth = torch.from_numpy(sizes * fires)
        noise = torch.from_numpy(rng.standard_normal((_PIECE, self.planting.d), dtype=np.float32))
        return torch.addmm(noise, truth, self.directions, beta=_NOISE), truth


def is_synthetic(subject: str) -> bool:
    """Whether `subject` asks for planted vectors."""
    return subject.startswith(PREFIX)


def parse(subject: str) -> Planting:
    """``synthetic:KIND`` or ``synthetic:KIND:d=64,features=128,active=4``. Raises `UserError` for anything else."""
    kind, _, rest = subject.removeprefix(PREFIX).partition(":")
    if kind not in get_args(Kind):
        raise UserError(f"There are no planted vectors {kind!r}. {nearest(kind, get_args(Kind))}", do=_FORM, usage=True)
    numbers = {field.name: field.type for field in fields(Planting) if field.name != "kind"}
    given: dict[str, float] = {}
    for part in rest.split(",") if rest else []:
        name, _, value = part.partition("=")
        if name not in numbers:
            raise UserError(f"{subject} sets {name!r}. {nearest(name, numbers)}", do=_FORM, usage=True)
        try:
            given[name] = float(value) if name == "active" else int(value)
        except ValueError:
            raise UserError(f"{subject} sets {name} to {value!r}.", do=_FORM, usage=True) from None
    return Planting(kind, **given)  # type: ignore[arg-type]


def plant(planting: Planting, seed: int) -> Planted:
    """Random directions, drawn by `seed`."""
    rng = np.random.default_rng([seed, 2])
    drawn = rng.standard_normal((planting.features, planting.d), dtype=np.float32)
    return Planted(planting, unit_rows(torch.from_numpy(drawn)), seed)


def rates(planting: Planting) -> Float[np.ndarray, " feature"]:
    """How often each feature fires, 0 to 0.5; they sum to `active`, or to less where no parent can fire more often."""
    n = planting.features
    match planting.kind:
        case "independent" | "correlated":
            return np.full(n, planting.active / n)
        case "zipf":
            weights = 1 / np.arange(1, n + 1)
            capped = 0  # the most frequent ones, whose share goes to the others
            scale = planting.active / weights.sum()
            while scale * weights[capped] > _MOST:
                capped += 1
                scale = (planting.active - capped * _MOST) / weights[capped:].sum()
            return np.minimum(scale * weights, _MOST)
        case "hierarchical":
            trees = n // (1 + _CHILDREN)
            parents = n - trees * _CHILDREN
            parent = min(planting.active / (parents + trees * _CHILD), _MOST)
            return np.concatenate([np.full(parents, parent), np.full(n - parents, parent * _CHILD / _CHILDREN)])


def firing(planting: Planting, n: int, rng: np.random.Generator) -> Bool[np.ndarray, "token feature"]:
    """Which features fire in each of `n` vectors. Parents come before all children, a parent's children in a row."""
    rate = rates(planting)
    match planting.kind:
        case "independent" | "zipf":
            return rng.random((n, planting.features), dtype=np.float32) < rate
        case "correlated":
            groups = -(-planting.features // _GROUP)
            cause = rng.standard_normal((n, groups), dtype=np.float32).repeat(_GROUP, axis=1)[:, : planting.features]
            own = rng.standard_normal((n, planting.features), dtype=np.float32)
            return math.sqrt(_CORRELATION) * cause + math.sqrt(1 - _CORRELATION) * own > _threshold(rate[0])
        case "hierarchical":
            trees = planting.features // (1 + _CHILDREN)
            parents = rng.random((n, planting.features - trees * _CHILDREN), dtype=np.float32) < rate[0]
            which = np.floor(rng.random((n, trees), dtype=np.float32) * (_CHILDREN / _CHILD)).astype(np.int64)
            chosen = (which[:, :, None] == np.arange(_CHILDREN)) & parents[:, :trees, None]
            return np.concatenate([parents, chosen.reshape(n, -1)], axis=1)


def _threshold(rate: float) -> float:
    """What a standard normal number exceeds with probability `rate`."""
    return float(torch.special.ndtri(torch.tensor(1 - rate, dtype=torch.float64)))
