"""A subject that has learnt nothing: the control of Towards Monosemanticity for what a dictionary makes of noise."""

import copy
import json
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from sae.config import TrainingRecipe
from sae.errors import UserError
from sae.recipes import training_recipe
from sae.subject import Subject

_RECIPE = (
    "tokens",
    "batch",
    "learning_rate",
    "learning_rate_decay",
    "l1",
    "resample_at",
    "pool_batches",
)
"""What a recipe's name does not tell of a run."""


def shuffled_subject(subject: Subject, seed: int) -> Subject:
    """`subject` with the entries of every weight matrix permuted, so that each keeps its values and loses its order.

    Every parameter of two or more dimensions is a matrix here, embeddings (of tokens and of positions) and the
    unembedding included; a matrix that is used in two places is permuted once. Gains and biases have one dimension
    and stay as they are. The same seed gives the same subject. Source: Bricken et al. 2023, the section on randomised
    transformers, which shuffles the entries of the weight matrices and trains a dictionary anew.
    """
    model = copy.deepcopy(subject.model)
    rng = np.random.default_rng(seed)
    for _, weights in sorted(cast(nn.Module, model).named_parameters()):
        if weights.ndim > 1:
            order = torch.from_numpy(rng.permutation(weights.numel())).to(weights.device)
            weights.data = weights.detach().reshape(-1)[order].reshape(weights.shape)
    name = f"shuffled:{subject.digest[:16]}:{seed}"
    return Subject(model, subject.tokenizer, name, name, subject.device)


def recipe_like(dictionary: Path, d_sae: int, seed: int) -> TrainingRecipe:
    """The recipe that a SAELens directory says its autoencoder was trained by, for `d_sae` units.

    Where it does not say, or names a recipe that is not known here: ``bricken-2023`` for 3 million tokens.
    """
    try:
        config = json.loads((dictionary / "cfg.json").read_text(encoding="utf-8"))
        details = dict(config["metadata"]["training_architecture_details"])
        details |= details.get("sparsity", {})
        listed = ((name, details[name]) for name in _RECIPE if name in details)
        changes = {name: tuple(value) if isinstance(value, list) else value for name, value in listed}
        changes |= details.get("sparsity", {})
        return training_recipe(details["name"], **{**changes, "d_sae": d_sae, "seed": seed})
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return training_recipe("bricken-2023", d_sae=d_sae, tokens=3_000_000, resample_at=(), seed=seed)
