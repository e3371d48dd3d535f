"""One training step of everyone, interleaved in one process: the side of `benchmarks.sae_step` that has the peers.

Runs in the environment that `benchmarks.peers` makes, and prints a line of JSON:

    PEERS_PYTHON -m benchmarks.sae_step_side --kind relu --d-sae 4096 --batch 4096 --rounds 9

A round runs every contestant once. Every library takes its own whole step (forward, backward, clipping, projection,
optimiser, schedules, statistics), as its own training loop calls it, on the same batches, without logging and without
dead units. ``medium`` is torch's float32 matmul precision, ``autocast`` torch's autocast to bfloat16 around the step
(SAELens: its own flag), one line in anyone's script each; ``compiled`` is SAELens's ``compile_sae``.
"""

import argparse
import importlib
import itertools
import json
import os
import resource
import statistics
import sys
import time
from functools import partial

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

import torch

D_IN, K, L1 = 512, 32, 5e-3
BATCHES = 6


def data(d_sae, batch, device):
    """Sums of 16 of `d_sae` unit directions with exponential weights, and a little noise."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(d_sae, D_IN, generator=generator), dim=1)
    batches = []
    for _ in range(BATCHES):
        chosen = torch.randint(d_sae, (batch, 16), generator=generator)
        weights = torch.empty(batch, 16).exponential_(generator=generator)
        rows = torch.nn.functional.embedding_bag(chosen, directions, per_sample_weights=weights, mode="sum")
        batches.append((rows + 0.01 * torch.randn(batch, D_IN, generator=generator)).to(device))
    return batches


def ours(recipe, precision, d_sae, batch, device, **changes):
    """`Trainee.advance`: our whole step, schedules and statistics included."""
    from sae.recipes import training_recipe
    from sae.trainee import Trainee

    sizes = {"d_sae": d_sae, "batch": batch, "tokens": 10_000_000_000, "log_every": 10**12, "learning_rate": 3e-4}
    made = training_recipe(recipe, **sizes, precision=precision, scaling="none", **changes)
    trainee = Trainee.new("", made, data(d_sae, batch, device)[0])
    none = torch.empty(0, D_IN, device=device)
    return lambda x: trainee.advance(x, none)


def autograd(d_sae, device):
    """The plain way, for scale: ReLU and L1 with a graph, fused Adam."""
    generator = torch.Generator().manual_seed(0)
    w_dec = torch.nn.functional.normalize(torch.randn(d_sae, D_IN, generator=generator), dim=1).to(device)
    tensors = [w_dec.clone(), torch.zeros(d_sae, device=device), w_dec, torch.zeros(D_IN, device=device)]
    w_enc, b_enc, w_dec, b_dec = (tensor.requires_grad_() for tensor in tensors)
    adam = torch.optim.Adam(tensors, lr=3e-4, fused=True)

    def step(x):
        adam.zero_grad()
        f = ((x - b_dec) @ w_enc.T + b_enc).relu()
        error = (f @ w_dec + b_dec - x).square().sum(1) + L1 * (f @ w_dec.norm(dim=1))
        error.mean().backward()
        adam.step()

    return step


def saelens(kind, d_sae, batch, device, *, autocast=False, compiled=False):
    """`SAETrainer.step`; `compiled` as its runner's ``compile_sae`` does it."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sizes = {"d_in": D_IN, "d_sae": d_sae, "device": str(device)}
    if kind == "relu":
        sae = StandardTrainingSAE(StandardTrainingSAEConfig(**sizes, l1_coefficient=L1))
    else:
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**sizes, k=K))
    config = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=batch,
        device=str(device),
        autocast=autocast,
        lr=3e-4,
        lr_end=3e-5,
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(config, sae, iter(()))
    if compiled:
        sae.training_forward_pass = torch.compile(sae.training_forward_pass)

    def step(x):
        trainer.step(x)
        trainer.n_training_steps += 1

    if compiled:
        step(torch.randn(batch, D_IN, device=device))
    return step


def dictionary_learning(kind, d_sae, device):
    """`update`, from step 1 on: step 0 would start the bias at the geometric median."""
    from dictionary_learning.trainers.standard import StandardTrainer, StandardTrainerAprilUpdate
    from dictionary_learning.trainers.top_k import TopKTrainer

    common = {"steps": 10**6, "activation_dim": D_IN, "dict_size": d_sae, "layer": 0, "lm_name": "none"}
    common |= {"lr": 3e-4, "warmup_steps": 10, "device": str(device), "seed": 0}
    trainer = {
        "relu": lambda: StandardTrainer(**common, l1_penalty=L1, sparsity_warmup_steps=None),
        "april": lambda: StandardTrainerAprilUpdate(**common, l1_penalty=L1, sparsity_warmup_steps=None),
        "topk": lambda: TopKTrainer(**common, k=K),
    }[kind]()
    steps = itertools.count(1)
    return lambda x: trainer.update(next(steps), x)


def sparsify(optimizer, d_sae, batch, device):
    """The body of its trainer's loop, which has no method of its own, without distribution and logging."""
    import schedulefree
    from sparsify import SparseCoder, SparseCoderConfig
    from sparsify.sign_sgd import SignSGD

    sae = SparseCoder(D_IN, SparseCoderConfig(num_latents=d_sae, k=K), device=device, dtype=torch.float32)
    if optimizer == "adam":
        made = torch.optim.Adam(sae.parameters(), lr=3e-4)
    else:
        made = schedulefree.ScheduleFreeWrapper(SignSGD(sae.parameters(), lr=5e-3), momentum=0.95)
        made.train()
    since_fired = torch.zeros(d_sae, dtype=torch.long, device=device)

    def step(x):
        sae.set_decoder_norm_to_unit_norm()
        out = sae(x=x, y=x, dead_mask=None)
        fired = torch.zeros(d_sae, dtype=torch.bool, device=device)
        fired[out.latent_indices.flatten()] = True
        out.fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        made.step()
        made.zero_grad()
        since_fired.add_(batch)
        since_fired[fired] = 0

    return step


def ceiling(dtype, d_sae, batch, device):
    """One product of the encoder's size, into memory at hand."""
    a, b = (torch.randn(*shape, device=device).to(dtype) for shape in ((batch, D_IN), (d_sae, D_IN)))
    out = torch.empty(batch, d_sae, device=device, dtype=dtype)
    return lambda _: torch.mm(a, b.T, out=out)


OURS = {
    "relu": (("bricken-2023", {"l1": L1}), ("april-2024", {"l1": L1})),
    "topk": (("topk", {"k": K, "centre": False}),),
    "batchtopk": (("batchtopk", {"k": K, "centre": False}),),
    "jumprelu": (("jumprelu", {"centre": False}),),
}
"""Our recipes by kind."""


MODULES = {
    "ours": ("sae.recipes", "sae.trainee"),
    "SAELens": ("sae_lens.saes.standard_sae", "sae_lens.saes.topk_sae", "sae_lens.training.sae_trainer"),
    "dictionary_learning": ("dictionary_learning.trainers.standard", "dictionary_learning.trainers.top_k"),
    "sparsify": ("schedulefree", "sparsify", "sparsify.sign_sgd"),
}
"""What a contestant imports, by the first word of its name."""


def contestants(kind, d_sae, batch, device):
    """What makes the step of every contestant of `kind`, by its name, and the ways it is run."""
    size = (d_sae, batch, device)
    yield "ceiling fp32", ("",), lambda: ceiling(torch.float32, *size)
    yield "ceiling bf16", ("",), lambda: ceiling(torch.bfloat16, *size)
    for recipe, changes in OURS[kind]:
        for precision in ("fp32", "medium", "bf16"):
            yield f"ours {recipe} {precision}", ("",), partial(ours, recipe, precision, *size, **changes)
    ways = ("", " medium", " autocast")
    if kind in {"relu", "topk"}:
        # First, and compiled at once: dictionary_learning's nnsight changes torch so that it cannot compile any more.
        yield "SAELens its autocast, compiled", ("",), lambda: saelens(kind, *size, autocast=True, compiled=True)
        yield "SAELens its autocast", ("",), lambda: saelens(kind, *size, autocast=True)
        yield "SAELens", ("", " medium"), lambda: saelens(kind, *size)
    if kind == "relu":
        yield "autograd", ways, lambda: autograd(d_sae, device)
        yield "dictionary_learning", ways, lambda: dictionary_learning("relu", d_sae, device)
        yield "dictionary_learning april", ways, lambda: dictionary_learning("april", d_sae, device)
    if kind == "topk":
        yield "dictionary_learning", ways, lambda: dictionary_learning("topk", d_sae, device)
        yield "sparsify adam", ways, lambda: sparsify("adam", *size)
        yield "sparsify signum", ways, lambda: sparsify("signum", *size)


def run_one(step, way, x, device):
    """Milliseconds of one step."""
    torch.set_float32_matmul_precision("medium" if way == " medium" else "highest")
    begun = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=way == " autocast"):
        step(x)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begun)


def measure(kind, d_sae, batch, rounds, device, only):
    """Milliseconds of every contestant in every round, after one or two rounds that warm up."""
    batches, warm = data(d_sae, batch, device), 1 if d_sae > 10_000 else 2
    times, failed, entered = {}, {}, []
    for name, ways, make in contestants(kind, d_sae, batch, device):
        if only and name not in only:
            continue
        try:
            entered.append((name, ways if not only else ways[:1], make()))
        except Exception as error:  # noqa: BLE001  a peer that cannot run is a line of the table
            failed[name] = f"{type(error).__name__}: {str(error)[:200]}"
    for i in range(rounds + warm):
        for name, ways, step in entered:
            for way in ways:
                if name + way in failed:
                    continue
                try:
                    spent = run_one(step, way, batches[i % BATCHES], device)
                except Exception as error:  # noqa: BLE001  the same
                    failed[name + way] = f"{type(error).__name__}: {str(error)[:200]}"
                    times.pop(name + way, None)
                    continue
                times.setdefault(name + way, [])
                if i >= warm:
                    times[name + way].append(spent)
        print(f"round {i + 1 - warm} of {rounds}", file=sys.stderr, flush=True)
    rows = [
        {"name": name, "fp32": is_fp32(name), "median": statistics.median(found), "min": min(found)}
        for name, found in times.items()
    ]
    return {"kind": kind, "d_sae": d_sae, "batch": batch, "rounds": rounds, "rows": rows, "failed": failed}


def is_fp32(name):
    """Whether everything is computed in float32."""
    return not any(word in name for word in ("medium", "bf16", "autocast"))


def main():
    """Measure one kind at one size; `peak_mib` is that of one contestant where ``--only`` names one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=list(OURS), required=True)
    parser.add_argument("--d-sae", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in given.only:
        for module in MODULES[name.split()[0]]:
            importlib.import_module(module)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = measure(given.kind, given.d_sae, given.batch, given.rounds, device, given.only)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else (after - before) / 2**10
    print(json.dumps({**result, "threads": given.threads, "torch": torch.__version__, "peak_mib": round(memory)}))


if __name__ == "__main__":
    main()
