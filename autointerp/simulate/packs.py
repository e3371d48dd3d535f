"""Items in packs: one call for many, smaller ones for those that it left without a prediction."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from autointerp.prompts import ASKED_AGAIN, DRAWS, Prompt
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.seams import Model

T = TypeVar("T")
Results: TypeAlias = list[Prediction | Failure]
"""One per item, in order."""
Ask: TypeAlias = Callable[[Sequence[Item], int], Awaitable[Results]]
"""Asks for some items in one call; the number tells repeated draws apart."""

ITEMS_PER_CALL = 20
"""More would save little, since the shared prefix is cached, and would show the simulator more of the base rate."""


@dataclass(frozen=True, slots=True)
class PackSimulator(ABC):
    """Asks a language model about many items at a time; it sees the explanation and the items, nothing else."""

    model: Model
    """Who answers."""
    name: str
    """``provider/model``."""
    prompt: Prompt
    """Version of the prompt."""
    draws: int = DRAWS
    """Most answers asked for where none can be read; one that is always the same is another for a smaller pack."""
    items_per_call: int = ITEMS_PER_CALL
    """Most items in one call: what the model reads first is paid for once per call."""
    arm: str = ""
    """The arm that pays, for the ledger."""

    def requests(self, explanation: Explanation, items: Sequence[Item]) -> list[Request]:
        """What is asked first, if every answer can be read."""
        return [self._render(explanation, some, 0) for some in packs(items, self.items_per_call)]

    async def simulate(self, explanation: Explanation, items: Sequence[Item]) -> Sequence[Prediction | Failure]:
        """One result per item, in order, from concurrent calls (`ask_in_packs`)."""
        return await ask_in_packs(
            lambda some, draw: self._ask(explanation, some, draw),
            items,
            draws=self.draws,
            items_per_call=self.items_per_call,
        )

    async def _ask(self, explanation: Explanation, items: Sequence[Item], replicate: int) -> Results:
        """One result per item of one call; an answer in which any of them cannot be read is rejected."""
        request = self._render(explanation, items, replicate)
        reply = await self.model.answer(request)
        if isinstance(reply, Failure):
            return [replace(reply, stage="simulate")] * len(items)
        results = self._read(reply, items)
        if any(isinstance(each, Failure) for each in results):
            self.model.reject(request)
        return results

    @abstractmethod
    def _render(self, explanation: Explanation, items: Sequence[Item], replicate: int) -> Request: ...

    @abstractmethod
    def _read(self, reply: Reply, items: Sequence[Item]) -> Results: ...


def packs(items: Sequence[Item], items_per_call: int = ITEMS_PER_CALL) -> list[Sequence[Item]]:
    """The items of each call, in order."""
    return [items[start : start + items_per_call] for start in range(0, len(items), items_per_call)]


async def ask_in_packs(ask: Ask, items: Sequence[Item], *, draws: int, items_per_call: int = ITEMS_PER_CALL) -> Results:
    """One result per item, in order, from concurrent calls.

    A pack that is too long for the model is asked in halves, down to single items: providers do not bill it. Items
    whose answer cannot be read are asked for again, by themselves, in one of `draws` at most. Where nothing of a pack
    could be read, or its answer was cut off, it is asked again in halves: that costs one prefix more than the same pack
    again, and an item at which the model lost its way then spoils only its half.
    """
    return _joined(await together(_settle(ask, pack, 0, draws) for pack in packs(items, items_per_call)))


def invalid(message: str) -> Failure:
    """An answer that was paid for and cannot be read."""
    return Failure("simulate", "invalid", message)


def read_numbered(answers: Sequence[tuple[int, T]], n: int, read: Callable[[int, T], Prediction | Failure]) -> Results:
    """One result per item from answers that name items by their number, from 1.

    An item that is missing or answered twice is a `Failure` (``invalid``). A number that was not asked makes one of
    all items: where one number is wrong, the others may be shifted.
    """
    times = Counter(number for number, _ in answers)
    if unknown := sorted(times.keys() - set(range(1, n + 1))):
        return [invalid(f"Items 1 to {n} were asked, not {unknown[0]}.")] * n
    said = dict(answers)
    return [
        read(number, said[number])
        if times[number] == 1
        else invalid(f"Item {number} was answered {times[number]} times.")
        for number in range(1, n + 1)
    ]


async def together(calls: Iterable[Awaitable[T]]) -> list[T]:
    """The results of concurrent `calls`; raises what the first of them raised, after all have ended.

    Calls beside one that stops the run are paid for, so they are let through to the store of answers first.
    """
    results: list[T] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results


async def _settle(ask: Ask, items: Sequence[Item], draw: int, draws: int) -> Results:
    """Ask for `items`, then again for those that this leaves open."""
    results = await ask(items, draw)
    again, draw = _open(results, draw)
    if draw < draws:
        answers = _joined(await together(_settle(ask, [items[i] for i in part], draw, draws) for part in again))
        for i, answer in zip((i for part in again for i in part), answers, strict=True):
            results[i] = answer
    return results


def _open(results: Results, draw: int) -> tuple[list[list[int]], int]:
    """Places of the items to be asked for again, call by call, and which draw that is."""
    too_long = len(results) > 1 and all(isinstance(each, Failure) and each.kind == "too_long" for each in results)
    again = [
        i for i, each in enumerate(results) if isinstance(each, Failure) and (too_long or each.kind in ASKED_AGAIN)
    ]
    half = (len(again) + 1) // 2
    parts = [again[:half], again[half:]] if len(again) == len(results) else [again]
    return [part for part in parts if part], draw + (not too_long)


def _joined(parts: Iterable[Results]) -> Results:
    return [result for part in parts for result in part]
