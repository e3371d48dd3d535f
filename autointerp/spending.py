"""Language models for a run: opened within its budget, or only counted."""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from autointerp.config import RunConfig
from autointerp.controls import base
from autointerp.explain.llm import LONGEST, LlmExplainer
from autointerp.judges import judges, language_models
from autointerp.llm.catalog import make_batch_providers, make_providers
from autointerp.llm.client import Client
from autointerp.llm.estimate import Estimate, estimate
from autointerp.llm.ledger import LedgerRow
from autointerp.llm.prices import NANO, Prices, parse_dollars, parse_price
from autointerp.llm.provider import Provider
from autointerp.llm.store import StoreReader
from autointerp.llm.tables import Budget
from autointerp.protocols.preset import Preset
from autointerp.records.call import Request
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.unit import Split, Unit
from autointerp.seams import Overrun, Source
from autointerp.simulate.packs import PackSimulator
from autointerp.wiring import choose_device

STAGES = ("explain", "simulate")
"""What language models are asked for."""
PILOT = 20
"""Explained units after which the estimate is held against what was paid."""
OVERRUN = 1.25
"""Times the estimate above which a projection is worth a word."""


def answers_path(config: RunConfig, directory: Path) -> Path:
    """The store of answers: beside the results directory, so that its neighbours share it."""
    return config.answers or directory.resolve().parent / "answers.sqlite"


def check_models(config: RunConfig) -> None:
    """Raise `UserError` for a model that could not be called, before anything is computed: name, key, price, budget."""
    models = language_models(config)
    _providers(config, offline=config.dry_run)
    for model in models:
        _prices(config).require(model)
    if config.max_cost is not None:
        parse_dollars(config.max_cost.removeprefix("+"))


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a session was expected to cost, to be held against what its calls really cost."""

    rows: tuple[Estimate, ...]
    """By stage and model, of the calls that the store does not answer."""

    @property
    def expected(self) -> int:
        """Nano-dollars, as estimated before anything was sent."""
        return sum(row.expected for row in self.rows)

    def projected(self, ledger: Sequence[LedgerRow]) -> int:
        """Nano-dollars for the same calls at the mean cost that the `ledger`'s calls of their stage and model had."""
        return sum(_projected(row, ledger) for row in self.rows)

    def check(self, ledger: Sequence[LedgerRow], *, may_go_on: bool) -> str:
        """What to say of the projection, empty where it is near the estimate; raises `Overrun` unless `may_go_on`."""
        projected = self.projected(ledger)
        if projected <= OVERRUN * self.expected:
            return ""
        said = (
            f"This run is heading for ${projected / NANO:.2f}: its first {PILOT} units cost"
            f" {projected / max(self.expected, 1):.1f} times what was estimated (${self.expected / NANO:.2f})."
        )
        if not may_go_on:
            raise Overrun(f"{said} Give --max-cost to go on within a limit.")
        return said


def _projected(row: Estimate, ledger: Sequence[LedgerRow]) -> int:
    measured = [each for each in ledger if (each.stage, each.model) == (row.stage, row.model)]
    calls, settled = sum(each.calls for each in measured), sum(each.settled for each in measured)
    return row.calls * settled // calls if calls else row.expected


@asynccontextmanager
async def open_client(config: RunConfig, directory: Path, run: str) -> AsyncGenerator[Client | None]:
    """The client of a run within its budget; None where no language model is asked.

    Raises `UserError` for a missing key, a model without a price, or a store in use by another process.
    """
    models = language_models(config)
    if not models:
        yield None
        return
    async with Client.open(
        answers_path(config, directory),
        run=run,
        cap_nano=_cap(config, directory, run),
        providers=_providers(config),
        concurrency=config.concurrency,
        requests_per_minute=config.requests_per_minute,
        tokens_per_minute=config.tokens_per_minute,
        prices=_prices(config),
        retry_failed=config.retry_failed,
        batch_providers=make_batch_providers(models, config.base_url) if config.batch else None,
    ) as client:
        yield client


def ledger(config: RunConfig, directory: Path, run: str) -> list[LedgerRow]:
    """What the run's calls cost so far, by stage, model and arm; empty where nothing was ever called."""
    path = answers_path(config, directory)
    if not path.is_file() or not language_models(config):
        return []
    with closing(StoreReader.open(path)) as reader:
        return reader.ledger(run)


def budget(config: RunConfig, directory: Path, run: str) -> Budget | None:
    """The run's money, or None for a run that never called."""
    path = answers_path(config, directory)
    if not path.is_file():
        return None
    with closing(StoreReader.open(path)) as reader:
        return reader.budget(run)


def open_batches(config: RunConfig, directory: Path, run: str) -> int:
    """Batches of the run whose results are still at the provider."""
    path = answers_path(config, directory)
    if not path.is_file() or not language_models(config):
        return 0
    with closing(StoreReader.open(path)) as reader:
        return reader.open_batches(run)


def count_calls(
    config: RunConfig,
    directory: Path,
    order: Sequence[Unit],
    source: Source,
    presets: Sequence[Preset],
    stages: Sequence[str] = STAGES,
) -> list[Estimate]:
    """Calls, tokens and money of a run's `stages`, from the requests that it would really render; nothing is sent.

    An explanation that does not exist yet stands in the simulator's request at its longest, in spaces.
    """
    if not language_models(config):
        return []
    providers = _providers(config, offline=True)
    requests = _requests(config, order, source, presets, stages)
    return estimate(requests, _prices(config), providers, answers_path(config, directory), batch=config.batch)


def _requests(
    config: RunConfig, order: Sequence[Unit], source: Source, presets: Sequence[Preset], stages: Sequence[str]
) -> Iterator[Request]:
    judged = judges(config, sorted({unit.arm for unit in order}), None)
    for record, preset in ((record, preset) for record in map(source.record, order) for preset in presets):
        unit, evidence = record.unit, preset.evidence(record)
        if isinstance(evidence, Failure):
            continue
        explainer = judged[unit.arm].explainer
        is_own = unit.arm == base(unit.arm)  # controls share the explanations of others
        if isinstance(explainer, LlmExplainer) and "explain" in stages and is_own:
            yield from explainer.requests(evidence, config.explanations)
        simulator = judged[unit.arm].simulators[preset.question]
        if not isinstance(simulator, PackSimulator) or "simulate" not in stages:
            continue
        drawn = config.explanations if isinstance(explainer, LlmExplainer) and is_own else 1
        posed: list[tuple[Split, int]] = [("select", draw) for draw in range(drawn)] if drawn > 1 else []
        posed.append(("score", 0))
        for split, draw in posed:
            # Named, since units whose explanations differ share items, and identical requests would count once.
            stand_in = Explanation(f"{unit.arm} {unit.name} {draw or ''}".ljust(LONGEST), config.explainer)
            trial = preset.scorer(split).pose(record, stand_in, source)
            if not isinstance(trial, Failure):
                yield from simulator.requests(stand_in, trial.items)


def fixed(config: RunConfig, directory: Path, run: str) -> RunConfig:
    """The configuration as it is saved: ``+5`` as the limit that it means now, the store of answers where it lies."""
    changes: dict[str, object] = {}
    if config.max_cost is not None and config.max_cost.startswith("+"):
        cap = _cap(config, directory, run) or 0
        changes["max_cost"] = f"{cap // NANO}.{cap % NANO:09d}"
    if config.answers is not None:
        changes["answers"] = config.answers.resolve()
    return config.model_copy(update=changes)


def _providers(config: RunConfig, *, offline: bool = False) -> Mapping[str, Provider]:
    device = choose_device(config.device)
    return make_providers(language_models(config), config.base_url, offline=offline, device=device)


def _prices(config: RunConfig) -> Prices:
    return Prices(parse_price(config.price) if config.price else None)


def _cap(config: RunConfig, directory: Path, run: str) -> int | None:
    """The budget in nano-dollars; ``+5`` is five dollars more than the run has committed."""
    if config.max_cost is None:
        return None
    if not config.max_cost.startswith("+"):
        return parse_dollars(config.max_cost)
    spent = budget(config, directory, run)
    return (spent.committed if spent else 0) + parse_dollars(config.max_cost[1:])
