"""Tiny random models with tokenizers, made on the spot."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sae.corpus.windows import Windows
from sae.subject import Subject, load_subject

CONTEXT = 12
WIDTH = 8
NEURONS = 20

torch.set_num_threads(1)  # Products this small wait for their threads far longer than they compute.


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, one token per byte and one merge; id 0 is BOS."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|endoftext|>", *alphabet, "Ġa"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def piece_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece style with byte fallback, as the Llama family has."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdef", "▁a"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[("▁", "a")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def gpt2_folder(
    path: Path, *, activation: str = "relu", layers: int = 2, dtype: torch.dtype = torch.float32, context: int = CONTEXT
) -> Path:
    """A GPT-2 checkpoint with weights large enough that its parts matter."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=context,
        n_embd=WIDTH,
        n_inner=NEURONS,
        n_head=2,
        n_layer=layers,
        activation_function=activation,
        initializer_range=0.5,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    torch.nn.init.normal_(model.transformer.ln_f.weight, 1.0, 0.3)
    model.to(dtype).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def llama_folder(path: Path, *, context: int = CONTEXT) -> Path:
    """A Llama checkpoint with gated SiLU neurons."""
    tokenizer = piece_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=NEURONS,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def gpt2(path: Path, **settings: object) -> Subject:
    """The subject of `gpt2_folder`."""
    return load_subject(str(gpt2_folder(path, **settings)))  # pyright: ignore[reportArgumentType]


def llama(path: Path) -> Subject:
    """The subject of `llama_folder`."""
    return load_subject(str(llama_folder(path)))


def random_windows(subject: Subject, n: int, seed: int = 0) -> Windows:
    """Random tokens with BOS; every third window ends in padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, subject.vocabulary, (n, CONTEXT)).astype(np.int32)
    tokens[:, 0] = subject.tokenizer.bos_token_id
    length = np.full(n, CONTEXT, dtype=np.int32)
    length[::3] = CONTEXT - 4
    tokens[np.arange(CONTEXT)[None, :] >= length[:, None]] = subject.tokenizer.eos_token_id
    return Windows(tokens, length, np.zeros(n, dtype=np.int32), np.zeros(n, dtype=np.int32), first=1)


def tokens_of(windows: Windows) -> torch.Tensor:
    """The windows' tokens as the model wants them."""
    return torch.from_numpy(windows.tokens.astype(np.int64))


@torch.no_grad()
def own_windows(subject: Subject, n: int) -> Windows:
    """Windows that the model predicts well, so that tampering with it costs loss: its own likeliest continuations."""
    windows = random_windows(subject, n)
    tokens = tokens_of(windows)
    for at in range(2, CONTEXT):
        tokens[:, at] = subject.model(tokens[:, :at]).logits[:, -1].argmax(-1)
    written = np.where(windows.counted(), tokens.numpy(), windows.tokens).astype(np.int32)
    return Windows(written, windows.length, windows.document, windows.offset, windows.first)
