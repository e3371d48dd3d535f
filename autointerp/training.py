"""The `train` and `train-subject` commands: recipes that anyone can repeat on their own text."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from autointerp.arms import explain_windows
from autointerp.config import Format, TrainConfig, TrainSubjectConfig, parse_count
from autointerp.manifest import environment, update_manifest, write_json
from autointerp.report import terminal
from autointerp.report.render import render_values
from autointerp.wiring import choose_device, say_corpus, score_windows, subject_path
from sae.config import training_recipe
from sae.corpus.corpus import load_corpus, load_documents
from sae.errors import UserError
from sae.metrics import DictionaryMetrics, evaluate_dictionary
from sae.pretrain import PretrainLog, SubjectRecipe, train_tokenizer
from sae.pretrain import train_subject as pretrain
from sae.subject import load_subject
from sae.trainer import TrainLog
from sae.trainer import train as train_dictionary

_EVALUATED = 400_000
"""Score tokens, about, on which a finished dictionary is evaluated."""
_VALIDATED = 150_000
"""Score tokens, about, on which a subject is validated while it trains."""
_CHARACTERS = 3
"""Characters per token, about, by which a tokenizer's corpus is measured before there is one."""


def train(config: TrainConfig) -> int:
    """Train on the explain split, evaluate on the score split, write both into `config.out`."""
    tokens = parse_count(config.tokens)
    given = {"l1": config.l1, "learning_rate": config.learning_rate}
    recipe = training_recipe(
        config.recipe,
        d_sae=config.d_sae,
        tokens=tokens,
        seed=config.seed,
        **{name: value for name, value in given.items() if value is not None},
    )
    subject = load_subject(subject_path(config.subject), device=choose_device(config.device), dtype=config.dtype)
    site = subject.site(config.site)
    corpus = load_corpus(config.corpus, config.text_column, 2 * tokens, subject.tokenizer, config.context, config.seed)
    say_corpus(corpus, terminal.say)
    with terminal.stage("train", recipe.tokens, "tokens") as advance:

        def on_log(log: TrainLog) -> None:
            advance(log.tokens, f"loss {log.loss:.4g}  L0 {log.l0:.1f}  FVU {log.fvu:.3f}  dead {log.dead}")

        dictionary = train_dictionary(subject, site, explain_windows(corpus), recipe, config.out, on_log=on_log)
    held_out = score_windows(corpus, _EVALUATED, config.seed)
    metrics = evaluate_dictionary(subject, site, dictionary, held_out)
    values = summary(metrics)
    write_json(config.out / "metrics.json", {**values, "density": metrics.density.tolist()})
    _record(config.out, config, {"subject": subject.digest, "corpus": corpus.digest})
    terminal.say(f"The autoencoder is in {config.out}; use it with: autointerp run --sae {config.out}")
    return _print(values, config.format)


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


def summary(metrics: DictionaryMetrics) -> dict[str, object]:
    """The single numbers of `metrics`, by name."""
    values = {field.name: getattr(metrics, field.name) for field in dataclasses.fields(metrics)}
    return {name: value for name, value in values.items() if isinstance(value, int | float | str | None)}


def _record(directory: Path, config: TrainConfig | TrainSubjectConfig, content: Mapping[str, str]) -> None:
    configuration = config.model_dump(mode="json")
    update_manifest(directory, {**environment(), "configuration": configuration, "content": content})


def _print(values: Mapping[str, object], output: Format) -> int:
    print(render_values(values, output))  # noqa: T201
    return 0
