"""One flat configuration: flags, `autointerp.toml` and environment have the same names.

Flags win over the environment, the environment over the file. What changes numbers is `Identity`: a run is only
resumed with the same. What changes cost, speed and output is `Conduct`.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sae.errors import UserError, nearest

FILE = "autointerp.toml"
PREFIX = "AUTOINTERP_"
EMBEDDED = "embedded"

Format: TypeAlias = Literal["table", "md", "json", "csv"]
Device: TypeAlias = Literal["cpu", "cuda", "mps", "auto"]
Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]


class Identity(BaseModel):
    """What changes numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    subject: str = EMBEDDED
    """Language model: a Hugging Face directory or hub id; `embedded` is the demonstration model."""
    site: str = "blocks.0.mlp.hook_post"
    """Place in the subject: a TransformerLens name or a module path."""
    sae: str = EMBEDDED
    """Dictionary over the site: a directory or file in a known format, or `hf:ORG/REPO/PATH[@REVISION]`; `embedded`
    is the demonstration one."""
    features: str = "all"
    """Which features: `0:4096`, `0:4096:8`, `3,17,900`, `random:256`, `alive`, `density:1e-5..1e-2`, `@file`, `all`."""
    baseline: tuple[str, ...] = ("neurons",)
    """What to compare with, repeatable: `neurons`, `neurons-matched`, `random`, `pca`, `sae:PATH`, `none`, or
    `shuffled-subject[:PATH]`: the subject with its weights shuffled, and a dictionary of its own, at PATH or trained
    once into the results directory (about 10 minutes on 2 CPU cores for the demonstration)."""
    controls: tuple[str, ...] = ()
    """The features again with other explanations, repeatable: `shuffled` (another feature's), `empty`, `generic`;
    `standard` is all three and the baselines random, pca and neurons-matched; `none`."""
    corpus: tuple[str, ...] = ("local", "generated")
    """Text, repeatable: `local` (installed distributions), `generated`, or .txt, .jsonl, .parquet paths and globs."""
    text_column: str = "text"
    """Column or key of the text in .parquet and .jsonl files."""
    tokens: str = "2.2M"
    """Tokens to harvest, at least, where the corpus has as many, such as `500k`, `2M` or `1000000`."""
    context: int = Field(default=128, ge=16)
    """Positions per window, BOS included."""
    protocol: tuple[str, ...] = ("monosemanticity-2023",)
    """Which evidence, which scorer, which sizes; repeatable over one harvest, the first is the headline."""
    explainer: str = "lookup"
    """`lookup` (no language model) or `anthropic/MODEL`, `openai/MODEL`."""
    simulator: str = "lookup"
    """`lookup` (no language model), `anthropic/MODEL`, `openai/MODEL`, or by log-probabilities `slots/`, `local/`."""
    explanations: int = Field(default=1, ge=1)
    """Explanations drawn per unit; of several the best on the select split is scored, on the score split."""
    dtype: Dtype = "float32"
    """Precision of the subject."""
    seed: int = Field(default=0, ge=0)
    """Of every draw: splits, samples, order, resamples."""


class Conduct(BaseModel):
    """What changes cost, speed and output, but no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    out: Path | None = None
    """Results directory; default `results/run-HASH`, the hash being the configuration's."""
    device: Device = "auto"
    """Where the subject and the dictionary run."""
    windows_per_pass: int = Field(default=64, gt=0)
    """Windows per forward pass."""
    max_cost: str | None = None
    """Most dollars to spend on language models; at resume `+5` adds five to what was spent."""
    price: str | None = None
    """`IN,OUT` dollars per million tokens, for models that the price table lacks."""
    base_url: str | None = None
    """Any OpenAI-compatible server, for `openai/MODEL` and `slots/MODEL`."""
    concurrency: int = Field(default=32, gt=0)
    """Calls in flight, at most; fewer while a provider has no room."""
    requests_per_minute: int | None = Field(default=None, gt=0)
    """Rate limit per model; default what the provider's headers say, if anything, and a margin."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """The same for input and output tokens together."""
    batch: bool = False
    """Send everything by the providers' batch APIs: half the price, up to a day; `resume` fetches what is ready."""
    answers: Path | None = None
    """Store of answers; default `answers.sqlite` beside the results directory, shared by its neighbours."""
    draws: int = Field(default=2, gt=0)
    """Answers asked for, at most, where none can be read; `--retry-failed` adds one."""
    retry_failed: bool = False
    """Ask again, once, for answers that are stored as refused, cut off, empty or unreadable; these stay stored."""
    dry_run: bool = False
    """Count calls, tokens and money from the rendered prompts; send nothing."""
    format: Format = "table"
    """How the result is printed."""


class RunConfig(Identity, Conduct):
    """Configuration of `run` and of its stages."""

    def identity(self) -> dict[str, object]:
        """What changes numbers, as plain values."""
        return self.model_dump(mode="json", include=set(Identity.model_fields))

    def to_toml(self) -> str:
        """The configuration as a file that `--config` takes."""
        values = self.model_dump(mode="json", exclude_none=True, exclude={"dry_run", "out", "retry_failed"})
        return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


class TrainConfig(BaseModel):
    """Configuration of `train`: an autoencoder on a subject's activations."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)

    subject: str = EMBEDDED
    """Language model: a Hugging Face directory or hub id; `embedded` is the demonstration model. Or vectors with a
    planted dictionary: `synthetic:independent`, `zipf`, `correlated` or `hierarchical`, with numbers as in
    `synthetic:zipf:d=64,features=128,active=4`."""
    site: str = "blocks.0.mlp.hook_post"
    """Place in the subject: a TransformerLens name or a module path."""
    out: Path = Path("results/sae")
    """Directory to write, in SAELens format."""
    recipe: str = "bricken-2023"
    """`bricken-2023`, `april-2024`, `topk`, `batchtopk` or `jumprelu`; `bricken-2023-paper` has the paper's own
    sizes."""
    d_sae: str = "4096"
    """Features. Several, such as `512,2048,8k`, train a dictionary each in one pass over the activations; so do
    several of `k`, `l1`, `l0` and `seeds`, in every combination, each in a directory of its own."""
    tokens: str | None = None
    """Tokens to train on, of all processes together, such as `500k`; the corpus is repeated where needed. Default 2M,
    or the 8 billion of `bricken-2023-paper`."""
    batch_tokens: str | None = None
    """Tokens per step, of all processes together; default the recipe's 4,096."""
    pool_batches: int | None = Field(default=None, gt=0)
    """Batches in the pool from which each is drawn at random; default the recipe's 64."""
    passes: int = Field(default=1, ge=1)
    """Times that the corpus is read: as much less of it is taken, and so it is measured on other text too."""
    cache_activations: Path | None = None
    """Directory that keeps the activations for later passes and runs; worth its room where the subject is slow."""
    k: str | None = None
    """Features per token (`topk`, `batchtopk`); default the recipe's."""
    l1: str | None = None
    """Weight of the summed activations (`bricken-2023`, `april-2024`); default the recipe's."""
    l0: str | None = None
    """Weight of the number of features that fire (`jumprelu`); default the recipe's."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Default the recipe's."""
    precision: Literal["fp32", "medium", "bf16"] | None = None
    """Of a step: `medium` multiplies in bfloat16 where that is fast, `bf16` keeps activations in it too. Default the
    faster of the two here."""
    resume: bool = False
    """Go on with the stopped run in `out`, whose other flags must be given again."""
    checkpoint_every: str | None = None
    """Tokens between checkpoints, of which there is one every ten minutes besides; default the recipe's 5M."""
    corpus: tuple[str, ...] = ("local", "generated")
    """Text, repeatable: `local`, `generated`, or .txt, .jsonl, .parquet paths and globs."""
    text_column: str = "text"
    """Column or key of the text in .parquet and .jsonl files."""
    context: int = Field(default=128, ge=16)
    """Positions per window, BOS included."""
    device: Device = "auto"
    """Where it runs."""
    dtype: Dtype = "float32"
    """Precision of the subject."""
    seed: int = Field(default=0, ge=0)
    """Of the initial weights, the order of the data and the resampling."""
    seeds: str | None = None
    """Seeds of several dictionaries' initial weights and resampling, such as `0,1,2`; default `seed`."""
    format: Format = "table"
    """How the result is printed."""


class TrainSubjectConfig(BaseModel):
    """Configuration of `train-subject`: a small language model from scratch."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    out: Path = Path("results/subject")
    """Directory to write, in Hugging Face format."""
    corpus: tuple[str, ...] = ("local", "generated")
    """Text, repeatable: `local`, `generated`, or .txt, .jsonl, .parquet paths and globs."""
    text_column: str = "text"
    """Column or key of the text in .parquet and .jsonl files."""
    tokens: str = "50M"
    """Tokens to train on, such as `500k` or `50M`; the corpus is repeated as often as needed."""
    vocabulary: int = Field(default=8192, ge=300)
    """Entries of the byte-level BPE tokenizer."""
    width: int = Field(default=128, gt=0)
    """Residual stream."""
    neurons: int = Field(default=512, gt=0)
    """MLP width, ReLU."""
    layers: int = Field(default=1, gt=0)
    """Transformer blocks."""
    context: int = Field(default=128, ge=16)
    """Positions per window, BOS included."""
    device: Device = "auto"
    """Where it runs."""
    seed: int = Field(default=0, ge=0)
    """Of the initial weights and the order of the data."""
    format: Format = "table"
    """How the result is printed."""


_MODELS = (RunConfig, TrainConfig, TrainSubjectConfig)


def read_sources(model: type[BaseModel], file: Path | None, environ: Mapping[str, str]) -> dict[str, object]:
    """Values for `model` from the file and, over it, from the environment.

    `file` must exist where it is given; `autointerp.toml` of the working directory is read where it exists. Raises
    `UserError` for a key, table or `AUTOINTERP_*` name that no command has: a misspelt budget must not be lost.
    """
    path = file or Path(FILE)
    values: dict[str, object] = {}
    if file is not None or path.exists():
        values = _read_file(path)
    known = {name for each in _MODELS for name in each.model_fields}
    for key, value in values.items():
        if isinstance(value, dict):
            raise UserError(f"{path} has a table [{key}].", "The configuration is flat.", usage=True)
        if key.replace("-", "_") not in known:
            raise UserError(
                f"{path} has the unknown key {key!r}.", do=nearest(key.replace("-", "_"), known), usage=True
            )
    names = {PREFIX + name.upper() for name in known}
    for name in environ:
        if name.startswith(PREFIX) and name not in names:
            raise UserError(f"The environment has the unknown name {name}.", do=nearest(name, names), usage=True)
    chosen = {key.replace("-", "_"): value for key, value in values.items()}
    chosen |= {name[len(PREFIX) :].lower(): value for name, value in environ.items() if name.startswith(PREFIX)}
    return {key: value for key, value in chosen.items() if key in model.model_fields}


def load_run(directory: Path) -> RunConfig:
    """The configuration saved beside the results in `directory`; `UserError` where it is missing or malformed."""
    path = directory / "config.toml"
    if not path.exists():
        raise UserError(f"{directory} is no results directory.", f"It has no {path.name}.", "Give the --out of a run.")
    try:
        return RunConfig.model_validate(_read_file(path))
    except ValidationError as error:
        raise UserError(f"{path} is not a valid configuration.", word(error)) from error


def word(error: ValidationError) -> str:
    """A pydantic error in one line per fault, with the nearest valid value where the choices are known."""
    lines: list[str] = []
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"]) or "configuration"
        flag = f"--{name.replace('_', '-')}"
        if fault["type"] == "literal_error":
            choices = str(fault.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ").split(", ")
            lines.append(f"{flag} cannot be {fault['input']!r}. {nearest(str(fault['input']), choices)}")
        elif fault["type"] == "extra_forbidden":
            lines.append(f"{name} is no configuration key.")
        else:
            lines.append(f"{flag} cannot be {fault['input']!r}: {fault['msg'].lower()}.")
    return "\n".join(lines)


def parse_count(text: str, flag: str = "--tokens") -> int:
    """`500k`, `2M`, `1B` or a plain number, as a positive integer; `UserError` otherwise."""
    factors = {"k": 10**3, "M": 10**6, "m": 10**6, "B": 10**9, "b": 10**9}
    factor = factors.get(text[-1:], 1)
    digits = text[:-1] if factor > 1 else text
    try:
        count = round(float(digits) * factor)
    except (ValueError, OverflowError):
        count = 0
    if count <= 0 or (factor == 1 and not digits.isdecimal()):
        do = "Give a whole number above 0, such as 64, 500k or 2M."
        raise UserError(f"{flag} cannot be {text!r}.", do=do, usage=True)
    return count


def from_environment() -> Mapping[str, str]:
    """The process environment."""
    return os.environ


def _read_file(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"The configuration file {path} cannot be read.", str(error), usage=True) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML.", str(error), usage=True) from error
