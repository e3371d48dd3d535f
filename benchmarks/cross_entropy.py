"""The chunked cross-entropy of `sae.pretrain` against torch's, on the demonstration subject's step: same work, one run.

    .venv/bin/python benchmarks/cross_entropy.py

Rounds are interleaved; medians and their ratio are printed, since absolute times depend on the machine's other load.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from sae.corpus.generated import generated_documents
from sae.corpus.windows import Windows
from sae.pretrain import SubjectRecipe, build_subject, language_loss, train_tokenizer

ROUNDS = 7


def main() -> None:
    """Print seconds per training step of both, and the ratio."""
    recipe = SubjectRecipe()
    tokenizer = train_tokenizer(list(generated_documents(60, seed=0)), 2000)
    model = build_subject(recipe, tokenizer)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, len(tokenizer), (recipe.batch, recipe.context)).astype(np.int32)
    full = np.full(recipe.batch, recipe.context, dtype=np.int32)
    windows = Windows(tokens, full, np.zeros_like(full), np.zeros_like(full), first=1)

    def chunked() -> torch.Tensor:
        return language_loss(model, windows)

    def whole() -> torch.Tensor:
        ids = torch.from_numpy(tokens.astype(np.int64))
        logits = model.lm_head(model.transformer(ids).last_hidden_state[:, :-1])
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    assert torch.allclose(chunked(), whole(), rtol=1e-4)
    seconds: dict[str, list[float]] = {"chunked": [], "whole": []}
    for _ in range(ROUNDS):
        for name, loss in (("chunked", chunked), ("whole", whole)):
            seconds[name].append(_step(loss))
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    print({name: round(median, 3) for name, median in medians.items()})
    print(f"whole / chunked: {medians['whole'] / medians['chunked']:.2f}")


def _step(loss: Callable[[], torch.Tensor]) -> float:
    begun = time.perf_counter()
    loss().backward()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
