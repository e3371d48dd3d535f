"""How a run ends: its tables and figures, its manifest, the last words on stderr, and the exit code."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from autointerp.arms import FEATURES
from autointerp.compare import Comparison, adjusted, compare
from autointerp.config import RunConfig, load_run
from autointerp.llm.progress import Progress as Calls
from autointerp.manifest import read_manifest, run_key, timed, update_manifest
from autointerp.pipeline import Run
from autointerp.records.explanation import Failure
from autointerp.records.outcome import ArmInfo, Outcome
from autointerp.report import floor_to_ceiling, plots, tables, terminal
from autointerp.report.render import render
from autointerp.seams import BudgetReached, Interrupted, Overrun
from autointerp.spending import STAGES, ledger, open_batches

OK, FAILURE, PARTIAL, BUDGET, INTERRUPTED = 0, 1, 3, 4, 130


def finish(config: RunConfig, directory: Path, done: Run) -> int:
    """Compare, report and print what has ended, however it ended."""
    arms = [ArmInfo(**arm) for arm in read_manifest(directory)["arms"]]  # type: ignore[union-attr]
    if done.outcomes and not _has_more(directory, done):
        with timed(directory, "report"):
            comparisons = _compare(done.outcomes, arms, FEATURES, config.seed)
            tables.write_tables(directory, done.outcomes, comparisons)
            draw(directory, done.outcomes, comparisons)
        print(render(comparisons, config.format))  # noqa: T201
    return end(config, directory, done)


def end(config: RunConfig, directory: Path, done: Run) -> int:
    """Write how the run ended into the manifest, say it, and give the exit code."""
    failed = [(each, each.result) for each in done.outcomes if isinstance(each.result, Failure)]
    kinds = Counter(f"{each.protocol}/{each.unit.arm}/{why.stage}/{why.kind}" for each, why in failed)
    calls = [dataclasses.asdict(row) for row in ledger(config, directory, run_key(config))]
    status = "complete" if done.stop is None else type(done.stop).__name__
    units = {"asked": done.asked, "ended": done.ended}
    of_results = {"status": status, "units": units, "failures": dict(kinds)}
    update_manifest(directory, {"calls": calls} | ({} if _has_more(directory, done) else of_results))
    if done.stop is not None:
        ended = f"{units['ended']:,} of {done.asked:,} units have ended and are saved"
        terminal.say(f"{done.stop} {ended}; a comparison counts those before the first that has not.")
        if waiting := open_batches(config, directory, run_key(config)):
            batches = f"{waiting} batch{'es' * (waiting > 1)}"
            terminal.say(
                f"At the provider: {batches}. It goes on there, nothing was cancelled, and `resume` fetches it."
            )
        terminal.say(f"Go on with: autointerp resume {directory}")
    match done.stop:
        case None:
            terminal.say(f"Results are in {directory}.")
            if len(failed) == len(done.outcomes) and all(why.kind != "not_scored" for _, why in failed):
                terminal.say("No unit was scored: more --tokens, or other --features, may give them enough excerpts.")
                return PARTIAL
            return PARTIAL if any(why.stage in STAGES for _, why in failed) else OK
        case BudgetReached() | Overrun():
            return BUDGET
        case Interrupted():
            return INTERRUPTED
        case _:
            return FAILURE


def _has_more(directory: Path, done: Run) -> bool:
    """Whether an earlier session left more results than this one, which was stopped: they stay, with their record."""
    return done.stop is not None and tables.count_outcomes(directory) > len(done.outcomes)


def compared(directory: Path) -> tuple[tuple[Outcome, ...], dict[str, Comparison]]:
    """The scores on disk and their comparisons, which are written into the tables."""
    load_run(directory)
    rows = tables.read_outcomes(directory)
    comparisons = _compare(rows.outcomes, rows.arms, rows.reference, rows.seed)
    tables.write_tables(directory, rows.outcomes, comparisons)
    return rows.outcomes, comparisons


def _compare(outcomes: Sequence[Outcome], arms: Sequence[ArmInfo], reference: str, seed: int) -> dict[str, Comparison]:
    """One comparison per protocol, the headline first."""
    own = tables.by_protocol(outcomes)
    return adjusted({name: compare(each, arms, reference, seed) for name, each in own.items()})


def draw(directory: Path, outcomes: Sequence[Outcome], comparisons: Mapping[str, Comparison]) -> None:
    own = tables.by_protocol(outcomes)
    for name, folder in tables.folders(directory, comparisons).items():
        plots.write_plots(folder / "figures", own[name], comparisons[name])
    floor_to_ceiling.write(directory / "figures", comparisons)


def note(directory: Path, calls: Calls) -> None:
    """Say what the client noticed, and keep which models answered."""
    for warning in calls.warnings:
        terminal.say(warning)
    if calls.served:
        update_manifest(directory, {"served": calls.served})
