"""The `train` and `train-subject` commands: recipes that anyone can repeat on their own text."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from autointerp.arms import explain_windows
from autointerp.config import Format, TrainConfig, TrainSubjectConfig, parse_count
from autointerp.ending import OK, PARTIAL
from autointerp.manifest import environment, update_manifest, write_json
from autointerp.report import terminal
from autointerp.report.render import render_columns, render_values
from autointerp.wiring import choose_device, say_corpus, score_windows, subject_path
from sae.architectures.weights import Trained
from sae.checkpoint import checkpoint_tokens, has_ended
from sae.config import TrainingRecipe
from sae.corpus.corpus import load_corpus, load_documents
from sae.dictionary import on_device
from sae.errors import UserError
from sae.formats.saelens import SaeMetadata
from sae.metrics import DictionaryMetrics, evaluate_dictionaries
from sae.pretrain import PretrainLog, SubjectRecipe, train_tokenizer
from sae.pretrain import train_subject as pretrain
from sae.ranks import Ranks, joined
from sae.recipes import training_recipe
from sae.rows import sweep
from sae.step import fastest_precision
from sae.subject import load_subject
from sae.synthetic import is_synthetic, plant
from sae.synthetic import parse as parse_planting
from sae.trainee import TrainLog
from sae.trainer import sweep_on
from sae.truth import TruthMetrics, evaluate_truth

_EVALUATED = 400_000
"""Score tokens, about, on which a finished dictionary is evaluated."""
_PLANTED = 50_000
"""Planted vectors on which a finished dictionary is measured."""
_VALIDATED = 150_000
"""Score tokens, about, on which a subject is validated while it trains."""
_CHARACTERS = 3
"""Characters per token, about, by which a tokenizer's corpus is measured before there is one."""


def train(config: TrainConfig) -> int:
    """Train on the explain split, evaluate on the score split, write both into `config.out`.

    Of several processes that torchrun started, all train together, and the first one does the rest.
    """
    recipes, device = recipes_of(config), choose_device(config.device)
    if is_synthetic(config.subject):
        return _train_planted(config, recipes, device)
    tokens = next(iter(recipes.values())).tokens
    with joined(device) as ranks:
        subject = load_subject(subject_path(config.subject), device=device, dtype=config.dtype)
        site = subject.site(config.site)
        spec, wanted = config.corpus, 2 * tokens // config.passes
        corpus = load_corpus(spec, config.text_column, wanted, subject.tokenizer, config.context, config.seed)
        if ranks.first:
            say_corpus(corpus, terminal.say)
        where = (subject, site, explain_windows(corpus))
        run = partial(sweep, *where, recipes, config.out, resume=config.resume, ranks=ranks)
        run = partial(run, cache=config.cache_activations)
        trained, lost = _watched(config, tokens, run, ranks)
    if not ranks.first:
        return 0
    held_out = score_windows(corpus, _EVALUATED, config.seed)
    terminal.say(f"Evaluating on {held_out.n_tokens:,} tokens of the score documents.")
    values = dict[str, dict[str, object]]()
    with _measuring(config), terminal.stage("evaluate", 4 + len(trained), "passes") as advance:
        found = evaluate_dictionaries(subject, site, trained, held_out, on_pass=advance)
    for name, metrics in found.items():
        values[name] = summary(metrics)
        write_json(config.out / name / "metrics.json", {**values[name], "density": metrics.density.tolist()})
    _record(config.out, config, {"subject": subject.digest, "corpus": corpus.digest})
    for name in trained:
        place = config.out / name
        terminal.say(f"The autoencoder is in {place}; use it with: autointerp run --sae {place}")
    return _print_all(values, lost, config.format)


def _train_planted(config: TrainConfig, recipes: Mapping[str, TrainingRecipe], device: str) -> int:
    """Train on vectors with a known dictionary, measure against it, write both into `config.out`."""
    if config.cache_activations is not None:
        raise UserError("Planted vectors are not cached.", do="Leave --cache-activations out.", usage=True)
    planted = plant(parse_planting(config.subject), config.seed)
    metadata = SaeMetadata(subject=config.subject)
    source = {"planting": dataclasses.asdict(planted.planting), "seed": planted.seed}
    with joined(device) as ranks:
        rows = planted.rows(device, ranks)
        run = partial(sweep_on, rows, recipes, config.out, resume=config.resume, ranks=ranks)
        run = partial(run, metadata=metadata, source=source)
        trained, lost = _watched(config, next(iter(recipes.values())).tokens, run, ranks)
    if not ranks.first:
        return 0
    values = dict[str, dict[str, object]]()
    with _measuring(config):
        found = {
            name: evaluate_truth(on_device(dictionary, "cpu"), planted.directions, planted.held_out(_PLANTED))
            for name, dictionary in trained.items()
        }
    for name, metrics in found.items():
        values[name] = summary(metrics)
        write_json(
            config.out / name / "metrics.json", {**values[name], "f1_by_feature": metrics.f1_by_feature.tolist()}
        )
    _record(config.out, config, {})
    return _print_all(values, lost, config.format)


def _watched(
    config: TrainConfig, tokens: int, run: Callable[..., Mapping[str, Trained]], ranks: Ranks
) -> tuple[Mapping[str, Trained], Mapping[str, str]]:
    """What `run` trains, and why it lost what it lost. The first rank shows progress; stopped, it says how to go on."""
    lost = dict[str, str]()
    if not ranks.first:
        return run(), lost
    already = checkpoint_tokens(config.out) if config.resume else 0
    if config.resume and not already:
        ended = has_ended(config.out)
        terminal.say("The training has ended." if ended else f"{config.out} holds no checkpoint: the training begins.")
    with terminal.stage("train", tokens, "tokens", already=already) as advance:

        def on_log(log: TrainLog) -> None:
            low = "" if log.ultra_low is None else f"  ultra-low {log.ultra_low}"
            text = f"loss {log.loss:.4g}  L0 {log.l0:.1f}  FVU {log.fvu:.3f}  dead {log.dead}{low}"
            advance(min(log.tokens, tokens), f"{log.name}  {text}" if log.name else text)

        def on_lost(name: str, reason: str) -> None:
            lost[name] = reason
            terminal.say(f"{name} is trained no further. {reason}")

        try:
            return run(on_log=on_log, on_lost=on_lost), lost
        except KeyboardInterrupt:
            terminal.say(f"What is done so far is in {config.out}; repeat the command with --resume to go on.")
            raise


@contextmanager
def _measuring(config: TrainConfig) -> Generator[None]:
    """Stopped, it says that the training is not lost."""
    try:
        yield
    except KeyboardInterrupt:
        terminal.say(f"What was trained is in {config.out}; repeat the command with --resume to measure it.")
        raise


def recipes_of(config: TrainConfig) -> dict[str, TrainingRecipe]:
    """A recipe per combination of the values given, by the name of its directory: what varies, or nothing."""
    lists: dict[str, list[int] | list[float]] = {
        "d_sae": [parse_count(each, "--d-sae") for each in _several(config.d_sae)],
        "k": [parse_count(each, "--k") for each in _several(config.k)],
        "l1": [_weight(each, "--l1") for each in _several(config.l1)],
        "l0": [_weight(each, "--l0") for each in _several(config.l0)],
        "seed": [_seed(each) for each in _several(config.seeds)] or [config.seed],
    }
    counts = (
        ("tokens", config.tokens, "--tokens"),
        ("batch", config.batch_tokens, "--batch-tokens"),
        ("checkpoint_every", config.checkpoint_every, "--checkpoint-every"),
    )
    changes: dict[str, Any] = {field: parse_count(text, flag) for field, text, flag in counts if text is not None}
    fixed = {
        "learning_rate": config.learning_rate,
        "precision": config.precision or fastest_precision(choose_device(config.device)),
        "pool_batches": config.pool_batches,
    }
    changes |= {name: value for name, value in fixed.items() if value is not None}
    given = {name: list(dict.fromkeys(values)) for name, values in lists.items() if values}
    recipes = dict[str, TrainingRecipe]()
    for values in itertools.product(*given.values()):
        chosen = dict(zip(given, values, strict=True))
        name = "-".join(f"{field}_{value}" for field, value in chosen.items() if len(given[field]) > 1)
        recipes[name] = training_recipe(config.recipe, **chosen, **changes)
    return recipes


def _several(text: str | None) -> list[str]:
    return [each.strip() for each in text.split(",")] if text is not None else []


def _weight(text: str, flag: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UserError(
            f"{flag} cannot be {text!r}.", do="Give numbers above 0, such as 0.005 or 0.003,0.01.", usage=True
        )
    return value


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"--seeds cannot be {text!r}.", do="Give whole numbers, such as 0,1,2.", usage=True)
    return int(text)


def train_subject(config: TrainSubjectConfig) -> int:
    """Train a tokenizer and a model on the explain split, validate on the score split, write into `config.out`."""
    if config.width % SubjectRecipe.heads:
        what = f"--width {config.width} is not a multiple of {SubjectRecipe.heads}, the number of heads."
        raise UserError(what, usage=True)
    recipe = SubjectRecipe(
        vocabulary=config.vocabulary,
        width=config.width,
        neurons=config.neurons,
        layers=config.layers,
        context=config.context,
        tokens=parse_count(config.tokens),
        seed=config.seed,
    )
    documents = load_documents(config.corpus, config.text_column, _CHARACTERS * recipe.tokens, config.seed)
    tokenizer = train_tokenizer(documents, recipe.vocabulary)
    corpus = load_corpus(config.corpus, config.text_column, 2 * recipe.tokens, tokenizer, recipe.context, config.seed)
    say_corpus(corpus, terminal.say)
    logs: list[PretrainLog] = []
    with terminal.stage("train-subject", recipe.tokens, "tokens") as advance:

        def on_log(log: PretrainLog) -> None:
            logs.append(log)
            share = "unknown" if log.token_share is None else f"{log.token_share:.2f}"
            advance(log.tokens, f"loss {log.validation_loss:.3f}  token share {share}")

        pretrain(
            recipe,
            tokenizer,
            explain_windows(corpus),
            score_windows(corpus, _VALIDATED, config.seed),
            config.out,
            device=choose_device(config.device),
            log_every=max(1, recipe.tokens // 25),
            on_log=on_log,
        )
    write_json(config.out / "training.json", [dataclasses.asdict(log) for log in logs])
    _record(config.out, config, {"corpus": corpus.digest})
    terminal.say(f"The subject is in {config.out}; use it with: autointerp train --subject {config.out}")
    return _print(dataclasses.asdict(logs[-1]), config.format)


def summary(metrics: DictionaryMetrics | TruthMetrics) -> dict[str, object]:
    """The single numbers of `metrics`, by name."""
    values = {field.name: getattr(metrics, field.name) for field in dataclasses.fields(metrics)}
    return {name: value for name, value in values.items() if isinstance(value, int | float | str | None)}


def _record(directory: Path, config: TrainConfig | TrainSubjectConfig, content: Mapping[str, str]) -> None:
    configuration = config.model_dump(mode="json")
    update_manifest(directory, {**environment(), "configuration": configuration, "content": content})


def _print_all(values: Mapping[str, Mapping[str, object]], lost: Mapping[str, str], output: Format) -> int:
    """One dictionary's values in rows, several dictionaries' in columns. `PARTIAL` where some were lost."""
    if len(values) + len(lost) == 1:
        _print(next(iter(values.values())), output)
    else:
        print(render_columns(values, output))  # noqa: T201
    for name, reason in lost.items():
        terminal.say(f"There is no autoencoder {name}. {reason}")
    return PARTIAL if lost else OK


def _print(values: Mapping[str, object], output: Format) -> int:
    print(render_values(values, output))  # noqa: T201
    return 0
