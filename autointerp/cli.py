"""Commands only: parse, call, print. What they call lives in `wiring` and is imported when a command runs."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import App, Parameter
from cyclopts.config import Dict
from pydantic import BaseModel, ValidationError

from autointerp.config import (
    PREFIX,
    Conduct,
    RunConfig,
    TrainConfig,
    TrainSubjectConfig,
    from_environment,
    read_sources,
    word,
)
from sae.errors import UserError

OK, FAILURE, USAGE, PARTIAL, BUDGET, INTERRUPTED = 0, 1, 2, 3, 4, 130

app = App(
    name="autointerp",
    help="Evaluate how interpretable the features of a language model are.",
    help_epilogue=(
        f"Every flag is also a key of autointerp.toml and a {PREFIX}NAME environment variable. "
        "Exit codes: 0 ok, 1 failure, 2 usage, 3 some units or dictionaries failed, "
        "4 budget reached, 130 interrupted and saved."
    ),
    result_action="return_value",
)

_Flags = Parameter(name="*", negative=())
_Directory = Parameter(help="Results directory of a run.")


@app.command
def run(*, config: Annotated[RunConfig, _Flags] = RunConfig()) -> int:
    """Harvest, explain, simulate, score, compare and report: the whole way."""
    from autointerp import stages

    return stages.run(config)


@app.command
def estimate(*, config: Annotated[RunConfig, _Flags] = RunConfig()) -> int:
    """Count the calls, tokens and money of `run` with the same flags; send nothing."""
    from autointerp import stages

    return stages.run(config.model_copy(update={"dry_run": True}))


@app.command
def resume(directory: Annotated[Path, _Directory], *, conduct: Annotated[Conduct, _Flags] = Conduct()) -> int:
    """Go on with an interrupted run, or one stopped by its budget (`--max-cost +5`)."""
    from autointerp import stages

    return stages.resume(directory, conduct)


@app.command
def harvest(*, config: Annotated[RunConfig, _Flags] = RunConfig()) -> int:
    """First stage of `run`: sample every unit's activations into the results directory."""
    from autointerp import stages

    return stages.harvest(config)


@app.command
def explain(directory: Annotated[Path, _Directory], *, conduct: Annotated[Conduct, _Flags] = Conduct()) -> int:
    """Second stage: explain every harvested unit."""
    from autointerp import stages

    return stages.explain(directory, conduct)


@app.command
def score(directory: Annotated[Path, _Directory], *, conduct: Annotated[Conduct, _Flags] = Conduct()) -> int:
    """Third stage: simulate from the explanations and score."""
    from autointerp import stages

    return stages.score(directory, conduct)


@app.command
def compare(directory: Annotated[Path, _Directory], *, conduct: Annotated[Conduct, _Flags] = Conduct()) -> int:
    """Fourth stage: compare the arms, from the scores on disk."""
    from autointerp import stages

    return stages.compare(directory, conduct.format)


@app.command
def report(directory: Annotated[Path, _Directory], *, conduct: Annotated[Conduct, _Flags] = Conduct()) -> int:
    """Last stage: draw the figures and write the summary, from the scores on disk."""
    from autointerp import stages

    return stages.report(directory, conduct.format)


@app.command
def cost(directory: Annotated[Path, _Directory], *, conduct: Annotated[Conduct, _Flags] = Conduct()) -> int:
    """Print what a run's calls cost so far, by stage, model and arm."""
    from autointerp import stages

    return stages.cost(directory, conduct.format)


@app.command
def show(
    directory: Annotated[Path, _Directory], unit: Annotated[str, Parameter(help="A feature, such as 123, or ARM:NAME.")]
) -> int:
    """Print one unit: its explanation, scores and excerpts with coloured tokens."""
    from autointerp import stages

    return stages.show(directory, unit)


@app.command
def train(*, config: Annotated[TrainConfig, _Flags] = TrainConfig()) -> int:
    """Train an autoencoder on a subject's activations and evaluate it."""
    from autointerp import training

    return training.train(config)


@app.command
def train_subject(*, config: Annotated[TrainSubjectConfig, _Flags] = TrainSubjectConfig()) -> int:
    """Train a small language model from scratch."""
    from autointerp import training

    return training.train_subject(config)


_CONFIGURED: dict[str, type[BaseModel]] = {
    "run": RunConfig,
    "estimate": RunConfig,
    "harvest": RunConfig,
    "resume": Conduct,
    "explain": Conduct,
    "score": Conduct,
    "compare": Conduct,
    "report": Conduct,
    "cost": Conduct,
    "train": TrainConfig,
    "train-subject": TrainSubjectConfig,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code; a user's mistake prints one message and no traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_guard(lambda: _call(words)))


def _call(words: list[str]) -> int:
    file, words = _take_config(words)
    model = _CONFIGURED.get(words[0]) if words else None
    values = read_sources(model, file, from_environment()) if model else {}
    if model is Conduct:
        values = {}  # a run on disk has its own configuration; only flags change it
    app.config = (Dict(values, source="autointerp.toml or environment", use_commands_as_keys=False),)
    code = app(words, exit_on_error=False, print_error=False)
    return code if isinstance(code, int) else OK


def _take_config(words: list[str]) -> tuple[Path | None, list[str]]:
    """`--config PATH` chooses the file before the flags are parsed over it."""
    for i, each in enumerate(words):
        if each.startswith("--config="):
            return Path(each.removeprefix("--config=")), words[:i] + words[i + 1 :]
        if each == "--config":
            if i + 1 == len(words):
                raise UserError("--config needs a path.", usage=True)
            return Path(words[i + 1]), words[:i] + words[i + 2 :]
    return None, words


def _guard(command: Callable[[], int]) -> int:
    try:
        return command()
    except UserError as error:
        return _say(str(error), USAGE if error.usage else FAILURE)
    except cyclopts.ValidationError as error:
        cause = error.__cause__
        return _say(word(cause) if isinstance(cause, ValidationError) else str(error), USAGE)
    except cyclopts.CycloptsError as error:
        return _say(f"{error}\nSee `autointerp --help`.", USAGE)
    except KeyboardInterrupt:
        return _say("Interrupted.", INTERRUPTED)


def _say(message: str, code: int) -> int:
    print(f"autointerp: {message}", file=sys.stderr)  # noqa: T201
    return code
