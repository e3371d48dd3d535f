"""Language models for a run: opened within its budget, or only counted."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from autointerp.config import RunConfig
from autointerp.explain.llm import LONGEST, render_explain
from autointerp.llm.catalog import make_providers
from autointerp.llm.client import Client
from autointerp.llm.estimate import Estimate, estimate
from autointerp.llm.ledger import LedgerRow
from autointerp.llm.prices import NANO, Prices, parse_dollars, parse_price
from autointerp.llm.store import StoreReader
from autointerp.pipeline import Method
from autointerp.prompts import load_prompt
from autointerp.records.call import Request
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.unit import Unit
from autointerp.seams import Source
from autointerp.simulate.llm import ITEMS_PER_CALL, packs, render_simulate
from autointerp.wiring import LOOKUP, language_models


def answers_path(config: RunConfig, directory: Path) -> Path:
    """The store of answers: beside the results directory, so that its neighbours share it."""
    return config.answers or directory.resolve().parent / "answers.sqlite"


def check_models(config: RunConfig) -> None:
    """Raise `UserError` for a model that could not be called, before anything is computed: name, key, price, budget."""
    models = language_models(config)
    make_providers(models, config.base_url, offline=config.dry_run)
    for model in models:
        _prices(config).require(model)
    if config.max_cost is not None:
        parse_dollars(config.max_cost.removeprefix("+"))


@asynccontextmanager
async def open_client(config: RunConfig, directory: Path, run: str) -> AsyncGenerator[Client | None]:
    """The client of a run within its budget; None where no language model is asked.

    Raises `UserError` for a missing key, a model without a price, or a store in use by another process.
    """
    models = language_models(config)
    if not models:
        yield None
        return
    path = answers_path(config, directory)
    async with Client.open(
        path,
        run=run,
        cap_nano=_cap(config.max_cost, path, run),
        providers=make_providers(models, config.base_url),
        concurrency=config.concurrency,
        requests_per_minute=config.requests_per_minute,
        prices=_prices(config),
    ) as client:
        yield client


def ledger(config: RunConfig, directory: Path, run: str) -> list[LedgerRow]:
    """What the run's calls cost so far, by stage, model and arm; empty where nothing was ever called."""
    path = answers_path(config, directory)
    if not path.is_file() or not language_models(config):
        return []
    reader = StoreReader.open(path)
    try:
        return reader.ledger(run)
    finally:
        reader.close()


def count_calls(
    config: RunConfig, directory: Path, order: Sequence[Unit], source: Source, method: Method
) -> list[Estimate]:
    """Calls, tokens and money of a run, from the requests that it would really render; nothing is sent.

    An explanation that does not exist yet stands in the simulator's request at its longest, as spaces.
    """
    models = language_models(config)
    if not models:
        return []
    providers = make_providers(models, config.base_url, offline=True)
    requests = _requests(config, order, source, method)
    return estimate(requests, _prices(config), providers, answers_path(config, directory))


def _requests(config: RunConfig, order: Sequence[Unit], source: Source, method: Method) -> Iterator[Request]:
    explain, simulate = load_prompt("explain", "v1"), load_prompt("simulate", "v1")
    stand_in = Explanation(" " * LONGEST, config.explainer)
    for unit in order:
        record = source.record(unit)
        evidence = method.evidence(record)
        if isinstance(evidence, Failure):
            continue
        if config.explainer != LOOKUP:
            yield render_explain(evidence, config.explainer, explain, arm=unit.arm)
        trial = method.scorer.pose(record, stand_in, source)
        if isinstance(trial, Failure) or config.simulator == LOOKUP:
            continue
        for items in packs(trial.items, ITEMS_PER_CALL):
            yield render_simulate(stand_in, items, config.simulator, simulate, arm=unit.arm)


def fixed(config: RunConfig, directory: Path, run: str) -> RunConfig:
    """The configuration as it is saved: ``+5`` as the limit that it means now, the store of answers where it lies."""
    changes: dict[str, object] = {}
    if config.max_cost is not None and config.max_cost.startswith("+"):
        cap = _cap(config.max_cost, answers_path(config, directory), run) or 0
        changes["max_cost"] = f"{cap // NANO}.{cap % NANO:09d}"
    if config.answers is not None:
        changes["answers"] = config.answers.resolve()
    return config.model_copy(update=changes)


def _prices(config: RunConfig) -> Prices:
    return Prices(parse_price(config.price) if config.price else None)


def _cap(max_cost: str | None, path: Path, run: str) -> int | None:
    """The budget in nano-dollars; ``+5`` is five dollars more than the run has committed."""
    if max_cost is None:
        return None
    if not max_cost.startswith("+"):
        return parse_dollars(max_cost)
    spent = 0
    if path.is_file():
        reader = StoreReader.open(path)
        try:
            budget = reader.budget(run)
        finally:
            reader.close()
        spent = budget.committed if budget else 0
    return spent + parse_dollars(max_cost[1:])
