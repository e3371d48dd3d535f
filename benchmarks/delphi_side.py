"""delphi's side of the throughput benchmark: its classes, used as its command line uses them.

Runs in an environment of its own, which `benchmarks.llm_throughput` makes, and prints one line of JSON per setting:

    DELPHI_PYTHON benchmarks/delphi_side.py --url URL --records FILE --settings classify:1:8 simulate:10:16

A setting is the scorers (``classify``: detection and fuzzing; ``simulate``: the simulation scorer, whose answers are
JSON, since its log-probability form needs vLLM in the process), the units at once, and the units in all.
"""

import argparse
import asyncio
import importlib.abc
import importlib.util
import json
import logging
import sys
import tempfile
import time
import types
import urllib.request
from pathlib import Path

STUBBED = ("vllm", "faiss", "sentence_transformers", "sparsify", "blobfile")
"""Imported by the package, never called on the paths that are measured."""
MODEL = "gpt-6-luna"
EXAMPLES_PER_PROMPT = 5
"""`RunConfig.num_examples_per_scorer_prompt` of its command line."""


class _Stub(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):  # noqa: ARG002
        return importlib.util.spec_from_loader(name, self) if name.partition(".")[0] in STUBBED else None

    def create_module(self, spec):
        return _Stub(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(_Stubs())

import orjson  # noqa: E402
import torch  # noqa: E402
from delphi.clients import OpenRouter  # noqa: E402
from delphi.explainers import DefaultExplainer  # noqa: E402
from delphi.latents import ActivatingExample, Latent, LatentRecord, NonActivatingExample  # noqa: E402
from delphi.pipeline import Pipe, Pipeline, process_wrapper  # noqa: E402
from delphi.scorers import DetectionScorer, FuzzingScorer, OpenAISimulator  # noqa: E402


class CountingRouter(OpenRouter):
    """Its client for OpenAI-compatible endpoints, counting the characters of prompts."""

    characters = 0

    async def generate(self, prompt, **kwargs):
        self.characters += sum(len(message["content"]) for message in prompt)
        return await super().generate(prompt, **kwargs)


class Tokenizer:
    """As much of a tokenizer as the simulation scorer calls."""

    def __init__(self, words):
        self.words = words

    def batch_decode(self, ids):
        return [self.words[int(number)] for number in ids]


def read_record(row):
    """A unit of the benchmark as delphi's record: what is shown to an explainer, and what is to be told apart."""
    maximum = row["statistics"]["explain"]["maximum"]
    record = LatentRecord(Latent("features", row["unit"]["index"]))
    record.train = [_activating(excerpt, maximum) for excerpt in row["excerpts"]["explain"]]
    for excerpt in row["excerpts"]["score"]:
        if max(excerpt["activations"]) > 0:
            record.test.append(_activating(excerpt, maximum))
        else:
            record.not_active.append(NonActivatingExample(*_tensors(excerpt), str_tokens=excerpt["tokens"]))
    record.examples = record.train
    return record


def _tensors(excerpt):
    return torch.tensor(excerpt["ids"]), torch.tensor(excerpt["activations"])


def _activating(excerpt, maximum):
    ids, activations = _tensors(excerpt)
    levels = (activations * 10 / maximum).ceil().clamp(0, 10).int()
    return ActivatingExample(ids, activations, levels, excerpt["tokens"], quantile=excerpt["interval"])


def build(client, scorers, records, words, folder):
    """The pipeline of its `__main__`, with its files of explanations and scores."""

    def keep_explanation(result):
        (folder / f"{result.record.latent}.txt").write_bytes(orjson.dumps(result.explanation))
        return result

    def give_explanation(result):
        record = result[0].record
        record.explanation = result[0].explanation
        record.extra_examples = record.not_active
        return record

    def keep_score(name):
        def keep(result):
            (folder / f"{result.record.latent}-{name}.txt").write_bytes(orjson.dumps(result.score))
            return result

        return keep

    used = {
        "classify": [DetectionScorer, FuzzingScorer],
        "simulate": [lambda client, **_: OpenAISimulator(client, tokenizer=Tokenizer(words), all_at_once=False)],
    }[scorers]
    made = [scorer(client, n_examples_shown=EXAMPLES_PER_PROMPT, verbose=False, log_prob=False) for scorer in used]
    explain = process_wrapper(DefaultExplainer(client, threshold=0.3, verbose=False), postprocess=keep_explanation)
    score = [process_wrapper(each, preprocess=give_explanation, postprocess=keep_score(each.name)) for each in made]
    return Pipeline(lambda: iter(records), Pipe(explain), Pipe(*score))


def unread(results):
    """Items whose answer came to nothing: no prediction, or the zeros that the simulator puts for a failure."""
    lost = 0
    for unit in results:
        for result in unit:
            for score in result.score:
                if hasattr(score, "prediction"):
                    lost += score.prediction is None
                elif score.distance == 0:  # the group of all sequences; the others repeat parts of it
                    sequences = score.scored_sequence_simulations
                    lost += sum(not any(each.simulation.expected_activations) for each in sequences)
    return lost


def server_calls(url):
    """Requests that the server has received so far."""
    with urllib.request.urlopen(f"{url}/loopback") as reply:
        return json.load(reply)["calls"]


async def measure(url, setting, rows):
    """One line of the benchmark."""
    scorers, at_once, n = setting.split(":")
    records = [read_record(row) for row in rows[: int(n)]]
    words = {i: t for row in rows for e in row["excerpts"]["score"] for i, t in zip(e["ids"], e["tokens"], strict=True)}
    client = CountingRouter(MODEL, api_key="none", base_url=f"{url}/v1/chat/completions")
    before = server_calls(url)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = build(client, scorers, records, words, Path(folder))
        start, cpu = time.perf_counter(), time.process_time()
        results = await pipeline.run(int(at_once))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    await client.client.aclose()
    return {
        "side": "delphi",
        "work": scorers,
        "at_once": int(at_once),
        "units": len(records),
        "seconds": seconds,
        "cpu": cpu,
        "requests": server_calls(url) - before,
        "characters": client.characters,
        "unread": unread(results),
    }


def main():
    """Measure every setting, after one unit that warms the process up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--settings", nargs="+", required=True)
    given = parser.parse_args()
    logging.disable(logging.INFO)
    rows = json.loads(given.records.read_text("utf-8"))
    for scorers in sorted({setting.partition(":")[0] for setting in given.settings}):
        asyncio.run(measure(given.url, f"{scorers}:1:1", rows))
    for setting in given.settings:
        print(json.dumps(asyncio.run(measure(given.url, setting, rows))), flush=True)


if __name__ == "__main__":
    main()
