"""A small language model trained from scratch: the recipe of the demonstration subject."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from sae.corpus.document import Document
from sae.corpus.windows import Windows
from sae.errors import UserError
from sae.quiet import no_progress_bar

BOS = "<|endoftext|>"
_ROWS_AT_ONCE = 256
"""Positions whose logits exist at one time: the whole batch's would fill the memory bus, not the caches."""
_FREQUENT = 20
"""Occurrences below which a token's mean activation is too noisy to enter `token_share`."""


@dataclass(frozen=True, kw_only=True)
class SubjectRecipe:
    """A GPT-2-class model with ReLU neurons, and how it is trained."""

    vocabulary: int = 8192
    """Entries of the byte-level BPE tokenizer."""
    width: int = 128
    """Residual stream."""
    neurons: int = 512
    """MLP width."""
    heads: int = 4
    """Attention heads."""
    layers: int = 1
    """Transformer blocks."""
    context: int = 128
    """Positions per window, BOS included."""
    tokens: int = 50_000_000
    """Tokens to train on; the corpus is repeated in a new order as often as needed."""
    batch: int = 64
    """Windows per step."""
    learning_rate: float = 3e-3
    """Peak of the cosine schedule, after a warm-up over the first 2 %."""
    weight_decay: float = 0.1
    """AdamW's, on matrices only."""
    seed: int = 0
    """Of the initial weights and the order of the windows."""


@dataclass(frozen=True, slots=True)
class PretrainLog:
    """One line of the training log."""

    tokens: int
    """Tokens trained on so far."""
    train_loss: float
    """Nats per token, mean since the last line."""
    validation_loss: float
    """Nats per token on the validation windows."""
    token_share: float | None
    """Share of the neurons' variance that the current token alone explains, on the validation windows; None where
    these are too few to say."""
    seconds: float
    """Wall time so far."""


def train_tokenizer(documents: Sequence[Document], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `vocabulary` entries, trained on `documents`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS)


def build_subject(recipe: SubjectRecipe, tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """The untrained model. The unembedding is untied, so that bigrams need no neurons."""
    torch.manual_seed(recipe.seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=recipe.context,
            n_embd=recipe.width,
            n_inner=recipe.neurons,
            n_head=recipe.heads,
            n_layer=recipe.layers,
            activation_function="relu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=False,
            bos_token_id=cast("int | None", tokenizer.bos_token_id),
            eos_token_id=cast("int | None", tokenizer.eos_token_id),
        )
    )


def train_subject(
    recipe: SubjectRecipe,
    tokenizer: PreTrainedTokenizerFast,
    train: Windows,
    validation: Windows,
    out: Path,
    *,
    device: str = "cpu",
    log_every: int = 1_000_000,
    on_log: Callable[[PretrainLog], None] = lambda _: None,
) -> GPT2LMHeadModel:
    """Train and save into `out` (Hugging Face format) at every log line, so that an interruption loses little.

    Raises `UserError` where a split is empty or the loss stops being finite.
    """
    for name, windows in (("train", train), ("validation", validation)):
        if not len(windows):
            raise UserError(f"The {name} split has no windows.", do="Give a larger corpus or a shorter context.")
    model = build_subject(recipe, tokenizer)
    torch.nn.Module.to(model, device)
    optimizer = _optimizer(model, recipe)
    steps = math.ceil(recipe.tokens / (train.n_tokens / len(train) * recipe.batch))
    begun, seen, logged, losses = time.monotonic(), 0, 0, []
    tokenizer.save_pretrained(out)
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        for step, index in enumerate(_batches(len(train), recipe, steps)):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, steps)
            batch = train.select(index)
            loss = language_loss(model, batch, device)
            if not math.isfinite(value := loss.item()):
                raise UserError(f"The loss is {value} at step {step}.", do="Lower the learning rate.")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(value)
            seen += batch.n_tokens
            if seen - logged >= log_every or step == steps - 1:
                held_out, share = evaluate(model, validation, device)
                on_log(PretrainLog(seen, float(np.mean(losses)), held_out, share, time.monotonic() - begun))
                logged, losses = seen, []
                with no_progress_bar():
                    model.save_pretrained(out)
    finally:
        torch.set_float32_matmul_precision(previous)
    return model


def language_loss(model: GPT2LMHeadModel, windows: Windows, device: str = "cpu") -> Tensor:
    """Mean next-token loss in nats; padding is no target."""
    tokens = torch.from_numpy(windows.tokens.astype(np.int64)).to(device)
    is_target = torch.arange(1, windows.context) < torch.from_numpy(windows.length.astype(np.int64))[:, None]
    hidden = model.transformer(tokens).last_hidden_state[:, :-1][is_target.to(device)]
    targets = tokens[:, 1:][is_target.to(device)]
    return cast(Tensor, _ChunkedCrossEntropy.apply(hidden, model.lm_head.weight, targets))


@torch.no_grad()
def evaluate(
    model: GPT2LMHeadModel, windows: Windows, device: str = "cpu", batch: int = 64
) -> tuple[float, float | None]:
    """Loss in nats per token, and `token_share` of the first block's neurons."""
    caught: list[Tensor] = []
    neurons = model.get_submodule("transformer.h.0.mlp.act")

    def catch(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        caught.append(out)

    hook = neurons.register_forward_hook(catch)
    total, count, activations = 0.0, 0, []
    try:
        for begin in range(0, len(windows), batch):
            part = windows.select(np.arange(begin, min(begin + batch, len(windows))))
            targets = int(part.length.sum()) - len(part)
            total += language_loss(model, part, device).item() * targets
            count += targets
            activations.append(caught.pop().float().cpu().numpy()[part.counted()])
    finally:
        hook.remove()
    return total / count, token_share(np.concatenate(activations), windows.tokens[windows.counted()])


def token_share(activations: np.ndarray, tokens: np.ndarray) -> float | None:
    """Share of variance that the current token alone explains: activations (position, neuron), tokens (position).

    One minus the mean square within tokens over the mean square in all, each with its degrees of freedom, over the
    tokens that occur at least 20 times; summed over neurons. 1 means that the neurons are token detectors. None where
    fewer than two tokens occur so often, or nothing varies.
    """
    _, token, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    kept = counts[token] >= _FREQUENT
    values = activations[kept].astype(np.float64)
    _, token, counts = np.unique(token[kept], return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return None
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, token, values)
    squares = (values**2).sum()
    within = (squares - (sums**2 / counts[:, None]).sum()) / (len(values) - len(counts))
    total = (squares - (values.sum(0) ** 2).sum() / len(values)) / (len(values) - 1)
    return float(1 - within / total) if total > 0 else None


def _optimizer(model: GPT2LMHeadModel, recipe: SubjectRecipe) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)


def _schedule(step: int, steps: int) -> float:
    warmup = max(1, steps // 50)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _batches(n_windows: int, recipe: SubjectRecipe, steps: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(recipe.seed)
    order = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        while len(order) < recipe.batch:
            order = np.concatenate([order, rng.permutation(n_windows)])
        index, order = order[: recipe.batch], order[recipe.batch :]
        yield index


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of a linear head whose logits never exist all at once: twice as fast on a CPU."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Float[Tensor, "position width"],
        weight: Float[Tensor, "vocabulary width"],
        targets: Int64[Tensor, " position"],
    ) -> Tensor:
        n = len(hidden)
        hidden_grad, weight_grad, loss = torch.empty_like(hidden), torch.zeros_like(weight), hidden.new_zeros(())
        for begin in range(0, n, _ROWS_AT_ONCE):
            rows, target = hidden[begin : begin + _ROWS_AT_ONCE], targets[begin : begin + _ROWS_AT_ONCE, None]
            logits = rows @ weight.T
            at_target = logits.gather(1, target)
            top = logits.amax(1, keepdim=True)
            logits.sub_(top).exp_()
            norm = logits.sum(1, keepdim=True)
            loss += (norm.log() + top - at_target).sum()
            logits.div_(norm * n).scatter_add_(1, target, torch.full_like(norm, -1 / n))
            hidden_grad[begin : begin + _ROWS_AT_ONCE] = logits @ weight
            weight_grad.addmm_(logits.T, rows)
        ctx.save_for_backward(hidden_grad, weight_grad)
        return loss / n

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, scale: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        hidden_grad, weight_grad = ctx.saved_tensors  # type: ignore[attr-defined]
        return hidden_grad * scale, weight_grad * scale, None
