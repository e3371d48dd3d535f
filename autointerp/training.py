"""The `train` and `train-subject` commands: recipes that anyone can repeat on their own text."""

import dataclasses
import json
from collections.abc import Mapping

from autointerp.config import Format, TrainConfig, TrainSubjectConfig, parse_count
from autointerp.manifest import content_key, environment, update_manifest, write_json
from autointerp.report import terminal
from autointerp.report.render import render_values
from autointerp.wiring import choose_device, explain_windows, say_corpus, score_windows, subject_path
from sae.config import training_recipe
from sae.corpus.corpus import load_corpus, load_documents
from sae.corpus.windows import cut_windows
from sae.metrics import DictionaryMetrics, evaluate_dictionary
from sae.pretrain import PretrainLog, SubjectRecipe, train_tokenizer
from sae.pretrain import train_subject as pretrain
from sae.subject import load_subject
from sae.trainer import TrainLog
from sae.trainer import train as train_dictionary

_EVALUATED = 400_000
"""Score tokens, about, on which a finished dictionary is evaluated."""
_VALIDATED = 1200
"""Windows on which a subject is validated while it trains."""


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
    corpus = load_corpus(
        config.corpus, config.text_column, 2 * tokens, subject.tokenizer, config.context, config.seed
    )
    say_corpus(corpus, terminal.say)
    with terminal.stage("train", recipe.tokens, "tokens") as advance:

        def on_log(log: TrainLog) -> None:
            advance(log.tokens, f"loss {log.loss:.4g}  L0 {log.l0:.1f}  FVU {log.fvu:.3f}  dead {log.dead}")

        dictionary = train_dictionary(subject, site, explain_windows(corpus), recipe, config.out, on_log=on_log)
    held_out = score_windows(corpus, _EVALUATED, config.seed)
    metrics = evaluate_dictionary(subject, site, dictionary, held_out)
    values = summary(metrics)
    write_json(config.out / "metrics.json", {**values, "density": metrics.density.tolist()})
    content = {"subject": subject.digest, "corpus": corpus.digest}
    update_manifest(
        config.out, {**environment(), "configuration": config.model_dump(mode="json"), "content": content}
    )
    terminal.say(f"The autoencoder is in {config.out}; use it with: autointerp run --sae {config.out}")
    return _print(values, config.format)


def train_subject(config: TrainSubjectConfig) -> int:
    """Train a tokenizer and a model on the explain split, validate on the score split, write into `config.out`."""
    recipe = SubjectRecipe(
        vocabulary=config.vocabulary,
        width=config.width,
        neurons=config.neurons,
        layers=config.layers,
        context=config.context,
        tokens=parse_count(config.tokens),
        seed=config.seed,
    )
    documents = load_documents(config.corpus, config.text_column, recipe.tokens, config.seed)
    tokenizer = train_tokenizer(documents, recipe.vocabulary)
    corpus = load_corpus(
        config.corpus, config.text_column, 2 * recipe.tokens, tokenizer, recipe.context, config.seed
    )
    say_corpus(corpus, terminal.say)
    with terminal.stage("train-subject", recipe.tokens, "tokens") as advance:

        def on_log(log: PretrainLog) -> None:
            advance(log.tokens, f"loss {log.validation_loss:.3f}  token share {log.token_share:.2f}")
