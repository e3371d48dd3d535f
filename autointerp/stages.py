"""The stages as commands run them: each reads and writes one results directory."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from autointerp.activations.store import Store
from autointerp.arms import FEATURES
from autointerp.config import Conduct, Format, RunConfig, load_run
from autointerp.controls import base
from autointerp.ending import OK, compared, draw, end, finish, note
from autointerp.harvesting import HARVEST, harvested, save, stored
from autointerp.judges import judges, presets
from autointerp.llm.estimate import minutes
from autointerp.manifest import read_manifest, run_key, timed
from autointerp.pilot import Pilot, say_power
from autointerp.pipeline import EndOfUnit, Evaluation, Run, admission_order, admit, repeated
from autointerp.records.outcome import Outcome
from autointerp.records.unit import Unit
from autointerp.report import tables, terminal
from autointerp.report.render import render, render_estimate, render_ledger
from autointerp.seams import Source, Unavailable
from autointerp.spending import (
    PILOT,
    STAGES,
    Forecast,
    budget,
    check_models,
    count_calls,
    ledger,
    open_client,
)
from autointerp.wiring import explained_as
from sae.errors import UserError, nearest

_ASKED = {"explain": ("explain",), "score": ("simulate",), "evaluate": STAGES}
"""What language models are asked in each stage of ours."""
_UNITS_IN_BATCH_MODE = 20_000
"""Units under way at once, all waiting for their batches: as many as memory holds easily."""


def run(config: RunConfig) -> int:
    """The whole way, or with `dry_run` the count of what it would cost."""
    check_models(config)
    directory = run_directory(config)
    return _evaluate(config, directory, harvested(config, directory))


def resume(directory: Path, conduct: Conduct) -> int:
    """The same run again: what is harvested and what is paid for is not done twice."""
    config = _with_conduct(directory, conduct)
    if not Store.is_complete(directory / HARVEST, str(read_manifest(directory).get("harvest"))):
        return run(config)
    check_models(config)
    save(config, directory)
    return _evaluate(config, directory, stored(config, directory))


def harvest(config: RunConfig) -> int:
    """Only the first stage."""
    directory = run_directory(config)
    source = harvested(config, directory)
    terminal.say(f"{len(source.units()):,} units are harvested in {directory / HARVEST}")
    return OK


def explain(directory: Path, conduct: Conduct) -> int:
    """Only the explanations, into `explanations.parquet`."""
    config = _with_conduct(directory, conduct)
    source = stored(config, directory)
    done = _judge(config, directory, source, "explain", lambda judged: judged.explain)
    tables.write_explanations(directory, done.outcomes)
    return end(config, directory, done)


def score(directory: Path, conduct: Conduct) -> int:
    """Simulate and score from the explanations on disk, then compare and report."""
    config = _with_conduct(directory, conduct)
    source = stored(config, directory)
    explanations = tables.read_explanations(directory)

    names = [preset.name for preset in presets(config)]

    def step(judged: Evaluation) -> EndOfUnit:
        return lambda rank, unit: judged.score(rank, unit, [explanations[unit, name] for name in names])

    if "arms" not in read_manifest(directory):
        raise UserError(
            f"{directory}/manifest.json is missing or incomplete.", do=f"Run `autointerp resume {directory}`."
        )
    missing = [unit for unit in source.units() if any((unit, name) not in explanations for name in names)]
    if missing:
        wrong = f"{len(missing)} of {len(source.units())} units have no explanation yet."
        raise UserError(wrong, do=f"Run `autointerp explain {directory}` to its end first.")
    return finish(config, directory, _judge(config, directory, source, "score", step))


def compare(directory: Path, output: Format) -> int:
    """Compare again, from the scores on disk."""
    _, comparisons = compared(directory)
    return _print(render(comparisons, output))


def report(directory: Path, output: Format) -> int:
    """Draw the figures and write the summary again, from the scores on disk."""
    outcomes, comparisons = compared(directory)
    draw(directory, outcomes, comparisons)
    return _print(render(comparisons, output))


def cost(directory: Path, output: Format) -> int:
    """What a run's calls cost so far, by stage, model and arm."""
    config = load_run(directory).model_copy(update={"out": directory})
    key = run_key(config)
    return _print(render_ledger(ledger(config, directory, key), budget(config, directory, key), output))


def show(directory: Path, name: str) -> int:
    """Print one unit: `123` is a feature, `neurons:77+` a unit of another arm."""
    source = stored(load_run(directory), directory)
    arm, _, label = name.rpartition(":")
    units = {unit.name: unit for unit in source.units() if unit.arm == (arm or FEATURES)}
    unit = units.get(label)
    if unit is None:
        arms = sorted({unit.arm for unit in source.units()})
        valid = [f"{arm}:{each}" if arm else each for each in units][:5000]
        raise UserError(f"The run has no unit {name}.", f"Arms: {', '.join(arms)}.", nearest(name, valid or arms))
    outcomes = tables.read_outcomes(directory).outcomes if (directory / tables.SCORES).exists() else ()
    terminal.print_unit(source.record(unit), [each for each in outcomes if each.unit == unit])
    return OK


def run_directory(config: RunConfig) -> Path:
    """The results directory, which need not exist yet; `UserError` where it holds a run with other numbers."""
    key = run_key(config)
    directory = config.out or Path("results") / f"run-{key[:8]}"
    saved = directory / "config.toml"
    if saved.exists():
        before, now = load_run(directory).identity(), config.identity()
        changed = [f"{name}: {before[name]} there, {now[name]} here" for name in now if before[name] != now[name]]
        if changed and (directory / HARVEST).exists():
            raise UserError(f"{directory} holds another run.", "; ".join(changed) + ".", "Give another --out.")
    if any(path.is_file() for path in (directory, *directory.parents)):
        raise UserError(f"Cannot write into {directory}.", "A file is in the way.", "Give another --out.", usage=True)
    return directory


def _with_conduct(directory: Path, conduct: Conduct) -> RunConfig:
    given = {name: getattr(conduct, name) for name in conduct.model_fields_set}
    config = load_run(directory).model_copy(update=given | {"out": directory})
    return config.model_copy(update={"draws": config.draws + 1}) if config.retry_failed else config


def _evaluate(config: RunConfig, directory: Path, source: Source) -> int:
    if config.dry_run:
        return _dry_run(config, directory, source)
    return finish(config, directory, _judge(config, directory, source, "evaluate", lambda judged: judged.whole))


def _dry_run(config: RunConfig, directory: Path, source: Source) -> int:
    order = admission_order(source.units(), config.seed, base)
    rows = count_calls(config, directory, order, source, presets(config))
    least = minutes(rows, config.requests_per_minute, config.tokens_per_minute)
    say_power(order, directory)
    return _print(render_estimate(rows, config.format, minutes=least))


def _judge(
    config: RunConfig, directory: Path, source: Source, stage: str, step: Callable[[Evaluation], EndOfUnit]
) -> Run:
    """Bring every unit to its end by `step`, in the admission order, with the progress on stderr."""
    order = admission_order(source.units(), config.seed, base)
    _check_recomputes(config, source, order)
    key = run_key(config)
    forecast = Forecast(tuple(count_calls(config, directory, order, source, presets(config), _ASKED[stage])))
    pilot = Pilot(config, directory, order, forecast)
    pilot.begin()

    async def judge() -> Run:
        async with open_client(config, directory, key) as client:
            arms = sorted({unit.arm for unit in order})
            who = explained_as(config, source)
            judged = Evaluation(source, presets(config), judges(config, arms, client), who, config.explanations)
            with terminal.stage(stage, len(order), "units") as advance:
                ended = 0

                def show() -> None:
                    advance(ended, terminal.calls(client.progress(), pilot.projected) if client else "")

                def on_end(outcomes: Sequence[Outcome]) -> None:
                    nonlocal ended
                    pilot.add(outcomes)
                    ended += 1
                    show()

                at_once = (_UNITS_IN_BATCH_MODE if config.batch else config.concurrency) if client else 1
                async with repeated(show, terminal.EVERY):
                    done = await admit(
                        order,
                        step(judged),
                        at_once=at_once,
                        pilot=PILOT if config.batch and client else 0,
                        on_end=on_end,
                        on_pilot=pilot.check,
                        on_interrupt=client.drain if client else (lambda: None),
                    )
            if client:
                note(directory, client.progress())
            return done

    with timed(directory, stage):
        return asyncio.run(judge())


def _check_recomputes(config: RunConfig, source: Source, order: Sequence[Unit]) -> None:
    """Raise `UserError`, before anything is paid, where a protocol needs activations that nobody can recompute."""
    needing = [preset.name for preset in presets(config) if preset.recomputes]
    try:
        if needing and order:
            source.activations(order[0], ())
    except Unavailable as reason:
        do = "Give another --protocol."
        raise UserError(f"The protocol {needing[0]} cannot be scored here.", str(reason), do) from reason


def _print(text: str) -> int:
    print(text)  # noqa: T201
    return OK
