"""Our side of the throughput benchmark, in a process of its own; prints one line of JSON per measurement.

    python -m benchmarks.our_side units --url URL --records FILE --settings 1:16 32:128
    python -m benchmarks.our_side calls --url URL --records FILE --calls 600
    python -m benchmarks.our_side throttle --url URL --records FILE --seconds 90

``units``: whole units, a setting being the most calls in flight (and units at once) and the units in all. ``calls``:
`Client.answer` beside the bare SDK. ``throttle``: a run held to 4,000 requests per minute.
"""

import argparse
import asyncio
import gc
import json
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from autointerp.explain.llm import LlmExplainer
from autointerp.llm.anthropic import AnthropicProvider
from autointerp.llm.client import Client
from autointerp.llm.openai import OpenAIProvider
from autointerp.llm.provider import Provider
from autointerp.pipeline import Evaluation, Judges, admission_order, admit
from autointerp.prompts import load_prompt
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Score
from autointerp.records.unit import UnitRecord
from autointerp.seams import Model
from autointerp.simulate.llm import LlmSimulator, render_simulate
from autointerp.simulate.packs import packs
from benchmarks.llm_units import PROTOCOL, RECORDS, RecordSource

MODELS = {"openai": "openai/gpt-6-luna", "anthropic": "anthropic/claude-haiku-5-5"}
CONCURRENCIES = (64, 256)
PER_MINUTE = 4000
START = 30.0
"""Seconds before the steady minute: the throttle's and the connections' start-up is left out."""
_AMPLE = 10**15
"""Nano-dollars: a budget is kept, as in a real run, and never met."""


class Counting:
    """A model that counts the characters of what it passes on."""

    def __init__(self, model: Model) -> None:
        self._model, self.characters = model, 0

    async def answer(self, request: Request) -> Reply | Failure:
        """The model's answer."""
        self.characters += len(request.system) + len(request.user) + len(request.schema or "")
        return await self._model.answer(request)

    def reject(self, request: Request) -> None:
        """The model's ledger."""
        self._model.reject(request)


async def measure_units(url: str, setting: str, records: Sequence[UnitRecord]) -> dict[str, Any]:
    """Explain, simulate and score units, as the main path does."""
    concurrency, n = map(int, setting.split(":"))
    source, name = RecordSource(records[:n]), MODELS["openai"]
    provider, before = _provider("openai", url), _seen(url)["calls"]
    with tempfile.TemporaryDirectory() as folder:
        gc.collect()
        start, cpu = time.perf_counter(), time.process_time()
        async with _open(Path(folder), name, provider, concurrency) as client:
            model = Counting(client)
            judges = Judges(
                LlmExplainer(model, name, load_prompt("explain", "v1"), arm="features"),
                {"levels": LlmSimulator(model, name, load_prompt("simulate", "v1"), arm="features")},
            )
            evaluation = Evaluation(source, [PROTOCOL], {"features": judges})
            run = await admit(admission_order(source.units(), 0), evaluation.whole, at_once=concurrency)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "side": "ours",
        "work": "simulate",
        "at_once": concurrency,
        "units": n,
        "seconds": seconds,
        "cpu": cpu,
        "requests": _seen(url)["calls"] - before,
        "characters": model.characters,
        "unread": sum(each.result.missing if isinstance(each.result, Score) else 1 for each in run.outcomes),
    }


async def measure_calls(
    url: str, sdk: str, concurrency: int, requests: Sequence[Request], *, ours_first: bool
) -> list[dict[str, Any]]:
    """CPU of the same calls by the bare SDK and by the client; connections are made before the clock starts.

    The client begins with few calls at once and doubles them, so it takes thrice as many calls as are to be in flight
    until all of its connections are made; the bare SDK is given the same.
    """
    provider = _provider(sdk, url)
    bodies = {request: provider.render(request) for request in requests}

    async def bare(request: Request) -> object:
        if sdk == "openai":
            return await openai.chat.completions.create(**bodies[request])
        return await anthropic.messages.create(**bodies[request])

    async def timed(side: str, ask: Callable[[Request], Awaitable[object]]) -> dict[str, Any]:
        warm = [replace(request, replicate=turn) for turn in (1, 2, 3) for request in requests[:concurrency]]
        bodies.update({request: provider.render(request) for request in warm})
        await _drive(iter(warm), ask, concurrency)
        gc.collect()
        start, cpu = time.perf_counter(), time.process_time()
        await _drive(iter(requests), ask, concurrency)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return {"side": side, "sdk": sdk, "at_once": concurrency, "ms": 1000 * cpu / len(requests), "seconds": seconds}

    rows: list[dict[str, Any]] = []
    for side in ("ours", "bare") if ours_first else ("bare", "ours"):
        if side == "bare":
            async with (
                AsyncOpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0) as openai,
                AsyncAnthropic(api_key="none", base_url=url, max_retries=0) as anthropic,
            ):
                rows.append(await timed(side, bare))
        else:
            with tempfile.TemporaryDirectory() as folder:
                async with _open(Path(folder), requests[0].model, provider, concurrency) as client:
                    rows.append(await timed(side, client.answer))
    return rows


async def measure_throttle(url: str, seconds: float, requests: Iterator[Request]) -> dict[str, Any]:
    """How much of the limit a run uses in its last minute; the server keeps a true window of 60 seconds."""
    provider, ends = _provider("openai", url), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"requests_per_minute": PER_MINUTE}
        async with _open(Path(folder), MODELS["openai"], provider, CONCURRENCIES[0], **settings) as client:
            start = time.perf_counter()

            async def ask(request: Request) -> None:
                if not isinstance(await client.answer(request), Failure):
                    ends.append(time.perf_counter() - start)

            def until_end() -> Iterator[Request]:
                while time.perf_counter() - start < seconds:
                    yield next(requests)

            await _drive(until_end(), ask, CONCURRENCIES[0])
    steady = sum(START <= end < seconds for end in ends)
    possible = PER_MINUTE * (seconds - START) / 60
    seen = _seen(url)
    whole = sum(end < seconds for end in ends) / (PER_MINUTE * seconds / 60)
    return {"seconds": seconds, "start": START, "share": steady / possible, "whole": whole, **seen}


async def _drive(requests: Iterator[Request], ask: Callable[[Request], Awaitable[object]], at_once: int) -> None:
    """Ask everything, `at_once` at a time."""

    async def work() -> None:
        for request in requests:
            await ask(request)

    await asyncio.gather(*(work() for _ in range(at_once)))


def simulations(records: Sequence[UnitRecord], sdk: str) -> Iterator[Request]:
    """Requests of a simulator, without end and each another: the calls that a run makes most of."""
    source, scorer, prompt = RecordSource(records), PROTOCOL.scorer(), load_prompt("simulate", "v1")
    for turn in count():
        explanation = Explanation(f"words of the made-up language, turn {turn}", MODELS[sdk])
        for record in records:
            trial = scorer.pose(record, explanation, source)
            assert not isinstance(trial, Failure)
            for items in packs(trial.items):
                yield render_simulate(explanation, items, MODELS[sdk], prompt)


def _provider(sdk: str, url: str) -> Provider:
    return OpenAIProvider("none", f"{url}/v1") if sdk == "openai" else AnthropicProvider("none", url)


def _open(folder: Path, name: str, provider: Provider, concurrency: int, **more: Any) -> Any:
    store = folder / "answers.sqlite"
    return Client.open(store, run="run", cap_nano=_AMPLE, providers={name: provider}, concurrency=concurrency, **more)


def _seen(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/loopback") as reply:
        return json.load(reply)


def main() -> None:
    """One of the three measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("units", "calls", "throttle"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--settings", nargs="*", default=[])
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--ours-first", action="store_true")
    parser.add_argument("--seconds", type=float, default=START + 60)
    given = parser.parse_args()
    records = RECORDS.validate_json(given.records.read_bytes())
    rows: list[dict[str, Any]] = []
    match given.step:
        case "units":
            asyncio.run(measure_units(given.url, "2:2", records))  # imports, and the price table
            rows += [asyncio.run(measure_units(given.url, setting, records)) for setting in given.settings]
        case "calls":
            for sdk in MODELS:
                requests = list(islice(simulations(records, sdk), given.calls))
                first = given.ours_first
                asyncio.run(measure_calls(given.url, sdk, 2, requests[:4], ours_first=first))
                for at_once in CONCURRENCIES:
                    rows += asyncio.run(measure_calls(given.url, sdk, at_once, requests, ours_first=first))
        case _:
            rows.append(asyncio.run(measure_throttle(given.url, given.seconds, simulations(records, "openai"))))
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
