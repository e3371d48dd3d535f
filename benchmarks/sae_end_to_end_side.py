"""One library training a dictionary from the bundled subject, by its own loop and buffer: a side of
`benchmarks.sae_end_to_end`.

Runs in the environment that `benchmarks.peers` makes, one contestant to a process, and prints a line of JSON:

    PEERS_PYTHON -m benchmarks.sae_end_to_end_side --who "ours topk fp32"

A run takes as many steps as the pool holds batches, and then those that are timed: from the end of one optimiser step
to the end of another, so that loading, filling the pool and saving are left out. Everyone gets the same token ids, 128
positions to a context, all of which count, and the neurons of the bundled model, or in SAELens, which cannot load it,
of a random one of the same shape. The run is too short for a unit to count as dead, there as here.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

SUBJECT = Path(__file__).parents[1] / "sae" / "pretrained" / "subject"
CONTEXT, D_IN, K, L1 = 128, 512, 32, 5e-3
AT_ONCE = 32
"""Contexts that pass through the model together, for the others as they have it by default."""


def token_ids(contexts):
    """Random ids: what they are changes no time."""
    return np.random.default_rng(0).integers(1, 8192, (contexts, CONTEXT), dtype=np.int32)


def ours(kind, precision, sizes):
    """`sae.rows.train`."""
    from sae.corpus.windows import Windows
    from sae.recipes import training_recipe
    from sae.rows import train
    from sae.subject import load_subject

    subject = load_subject(str(SUBJECT))
    contexts = 4 * sizes["batch"]
    zeros = np.zeros(contexts, dtype=np.int32)
    windows = Windows(token_ids(contexts), np.full(contexts, CONTEXT, dtype=np.int32), zeros, zeros, 0)
    recipe, changes = {"relu": ("april-2024", {"l1": L1}), "topk": ("topk", {"k": K, "dead_window": 1.0})}[kind]

    def run(steps):
        made = training_recipe(
            recipe,
            **changes,
            d_sae=sizes["d_sae"],
            batch=sizes["batch"],
            tokens=steps * sizes["batch"],
            pool_batches=sizes["pool"],
            precision=precision,
            log_every=10**12,
            checkpoint_every=10**12,
        )
        with tempfile.TemporaryDirectory() as out:
            train(subject, subject.site("blocks.0.mlp.hook_post"), windows, made, Path(out) / "sae")

    return run


def saelens(kind, autocast, compiled, sizes):
    """`LanguageModelSAETrainingRunner` on a HookedTransformer, which stops at the site."""
    from datasets import Dataset
    from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, LoggingConfig
    from sae_lens.saes.standard_sae import StandardTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAEConfig
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=1,
            d_model=128,
            n_heads=4,
            d_head=32,
            d_mlp=D_IN,
            n_ctx=CONTEXT,
            d_vocab=8192,
            act_fn="relu",
            device="cpu",
        )
    )
    common = {"d_in": D_IN, "d_sae": sizes["d_sae"]}
    made = StandardTrainingSAEConfig(**common, l1_coefficient=L1) if kind == "relu" else None
    dataset = Dataset.from_dict({"input_ids": token_ids(4 * sizes["batch"])})

    def run(steps):
        config = LanguageModelSAERunnerConfig(
            sae=made or TopKTrainingSAEConfig(**common, k=K),
            model_name="gpt2",
            hook_name="blocks.0.mlp.hook_post",
            dataset_path="",
            context_size=CONTEXT,
            prepend_bos=False,
            n_batches_in_buffer=sizes["pool"] * sizes["batch"] // CONTEXT,
            store_batch_size_prompts=AT_ONCE,
            train_batch_size_tokens=sizes["batch"],
            training_tokens=steps * sizes["batch"],
            autocast=autocast,
            autocast_lm=autocast,
            compile_sae=compiled,
            logger=LoggingConfig(log_to_wandb=False),
            n_checkpoints=0,
            checkpoint_path=None,
            output_path=None,
            verbose=False,
        )
        LanguageModelSAETrainingRunner(config, override_dataset=dataset, override_model=model).run()

    return run


def dictionary_learning(kind, _, sizes):
    """`trainSAE` on its `ActivationBuffer`."""
    from dictionary_learning.buffer import ActivationBuffer
    from dictionary_learning.dictionary import AutoEncoder
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer
    from dictionary_learning.training import trainSAE
    from nnsight import LanguageModel

    model = LanguageModel(str(SUBJECT), device_map="cpu", torch_dtype=torch.float32, dispatch=True)
    pad = model.tokenizer.pad
    # The buffer asks for truncation, which fails for ids; with them it is spared the tokenizing, as everyone here.
    model.tokenizer.pad = lambda ids, **_: pad(ids, return_tensors="pt")
    common = {"activation_dim": D_IN, "dict_size": sizes["d_sae"], "lr": 3e-4, "warmup_steps": 1, "device": "cpu"}
    common |= {"layer": 0, "lm_name": "subject", "seed": 0, "decay_start": None}
    ids = token_ids(4 * sizes["batch"])

    def run(steps):
        buffer = ActivationBuffer(
            (row.tolist() for row in np.concatenate([ids] * (1 + steps // CONTEXT))),
            model,
            model.transformer.h[0].mlp.act,
            d_submodule=D_IN,
            n_ctxs=sizes["pool"] * sizes["batch"] // CONTEXT,
            ctx_len=CONTEXT,
            refresh_batch_size=AT_ONCE,
            out_batch_size=sizes["batch"],
        )
        relu = {"trainer": StandardTrainer, "dict_class": AutoEncoder, "l1_penalty": L1, "sparsity_warmup_steps": None}
        topk = {"trainer": TopKTrainer, "dict_class": AutoEncoderTopK, "k": K}
        trainSAE(buffer, [{**(relu if kind == "relu" else topk), **common, "steps": steps}], steps, device="cpu")

    return run


def sparsify(optimizer, _, sizes):
    """Its `Trainer`, which has no pool: the contexts of a forward pass are a batch."""
    from datasets import Dataset
    from sparsify import SparseCoderConfig, TrainConfig, Trainer
    from transformers import AutoModel

    model = AutoModel.from_pretrained(SUBJECT, dtype=torch.float32)
    at_once = sizes["batch"] // CONTEXT

    def run(steps):
        dataset = Dataset.from_dict({"input_ids": token_ids(steps * at_once)}).with_format("torch")
        config = TrainConfig(
            SparseCoderConfig(num_latents=sizes["d_sae"], k=K),
            batch_size=at_once,
            optimizer=optimizer,
            lr_warmup_steps=1,
            hookpoints=["h.0.mlp.act"],
            log_to_wandb=False,
            save_every=10**9,
        )
        with tempfile.TemporaryDirectory() as out:
            config.save_dir = out
            Trainer(config, dataset, model).fit()

    return run


WAYS = ("medium", "autocast")
CONTESTANTS = {
    **{f"ours {k} {p}": ("", partial(ours, k, p)) for k in ("relu", "topk") for p in ("fp32", "medium", "bf16")},
    **{f"SAELens {k}": ("", partial(saelens, k, False, False)) for k in ("relu", "topk")},
    **{f"SAELens {k} autocast": ("", partial(saelens, k, True, False)) for k in ("relu", "topk")},
    **{f"SAELens {k} compiled autocast": ("", partial(saelens, k, True, True)) for k in ("relu", "topk")},
    **{f"dictionary_learning {k}": ("", partial(dictionary_learning, k, None)) for k in ("relu", "topk")},
    **{
        f"dictionary_learning {k} {w}": (w, partial(dictionary_learning, k, None))
        for k in ("relu", "topk")
        for w in WAYS
    },
    **{f"sparsify topk {o}": ("", partial(sparsify, o, None)) for o in ("adam", "signum")},
    **{f"sparsify topk {o} {w}": (w, partial(sparsify, o, None)) for o in ("adam", "signum") for w in WAYS},
}
"""What is set around the whole run, and what makes it."""


@contextlib.contextmanager
def surrounded(way):
    """``medium`` stays set, whatever a library sets; ``autocast`` to bfloat16."""
    setter = torch.set_float32_matmul_precision
    if way == "medium":
        setter("medium")
        torch.set_float32_matmul_precision = lambda _: None
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            yield
    finally:
        torch.set_float32_matmul_precision = setter
        setter("highest")


def ceilings(sizes):
    """TFLOP/s of a product of the encoder's size, median of five."""
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(rows, D_IN).to(dtype) for rows in (sizes["batch"], sizes["d_sae"]))
        out, spent = torch.empty(len(a), len(b), dtype=dtype), []
        for _ in range(5):
            begun = time.perf_counter()
            torch.mm(a, b.T, out=out)
            spent.append(time.perf_counter() - begun)
        yield 2 * D_IN * len(a) * len(b) / statistics.median(spent) / 1e12


def main():
    """Measure one contestant; `base_mib` is what the process had before its runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--who", choices=list(CONTESTANTS), required=True)
    parser.add_argument("--d-sae", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--pool", type=int, default=16, help="batches")
    parser.add_argument("--steps", type=int, default=32, help="that are timed; a multiple of the pool's batches")
    given = parser.parse_args()
    sizes = {"d_sae": given.d_sae, "batch": given.batch, "pool": given.pool}
    way, make = CONTESTANTS[given.who]
    run = make(sizes)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ends = list[float]()
    register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    with surrounded(way), contextlib.redirect_stdout(None):
        run(given.pool + given.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = ends[-1] - ends[-1 - given.steps]
    rate = given.steps * given.batch / seconds
    found = {"who": given.who, "tokens_per_second": rate, "seconds": seconds}
    found["ceilings"] = list(ceilings(sizes))
    found |= {"peak_mib": round(peak / 2**10), "base_mib": round(base / 2**10), **sizes}
    print(json.dumps({**found, "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
