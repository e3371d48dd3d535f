"""One training step of everyone, interleaved in one process: the side of `benchmarks.sae_step` that has the peers.

Runs in the environment that `benchmarks.peers` makes, and prints a line of JSON per setting:

    PEERS_PYTHON -m benchmarks.sae_step_side --d-sae 4096 --batch 4096 --rounds 9

A round runs every contestant once. Every library takes its own whole step (forward, backward, clipping, projection,
optimiser, schedules, statistics), as its own training loop calls it, on the same batches, without logging and without
dead units. What runs under ``medium`` has torch's float32 matmul precision set to it: one line in anyone's script.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import sys
import time

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


def saelens(kind, d_sae, batch, device, *, autocast=False):
    """`SAETrainer.step`."""
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

    def step(x):
        trainer.step(x)
        trainer.n_training_steps += 1

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


def contestants(d_sae, batch, device):
    """Name, kind, whether it keeps to fp32, and what makes its step."""
    size = (d_sae, batch, device)
    yield "ceiling fp32", "ceiling", True, lambda: ceiling(torch.float32, *size)
    yield "ceiling bf16", "ceiling", False, lambda: ceiling(torch.bfloat16, *size)
    for precision in ("fp32", "medium", "bf16"):
        kept = precision == "fp32"
        for recipe, changes in (
            ("bricken-2023", {"l1": L1}),
            ("april-2024", {"l1": L1}),
            ("topk", {"k": K, "centre": False}),
            ("batchtopk", {"k": K, "centre": False}),
            ("jumprelu", {"centre": False}),
        ):
            kind = {"bricken-2023": "relu", "april-2024": "relu"}.get(recipe, recipe)
            yield (
                f"ours {recipe} {precision}",
                kind,
                kept,
                lambda r=recipe, p=precision, c=changes: ours(r, p, *size, **c),
            )
    peers = {
        "autograd relu": ("relu", lambda: autograd(d_sae, device)),
        "SAELens relu": ("relu", lambda: saelens("relu", *size)),
        "SAELens topk": ("topk", lambda: saelens("topk", *size)),
        "dictionary_learning relu": ("relu", lambda: dictionary_learning("relu", d_sae, device)),
        "dictionary_learning april": ("relu", lambda: dictionary_learning("april", d_sae, device)),
        "dictionary_learning topk": ("topk", lambda: dictionary_learning("topk", d_sae, device)),
        "sparsify topk adam": ("topk", lambda: sparsify("adam", *size)),
        "sparsify topk signum": ("topk", lambda: sparsify("signum", *size)),
    }
    for name, (kind, make) in peers.items():
        yield name, kind, True, make
        yield f"{name} medium", kind, False, make
    yield "SAELens relu autocast", "relu", False, lambda: saelens("relu", *size, autocast=True)
    yield "SAELens topk autocast", "topk", False, lambda: saelens("topk", *size, autocast=True)


def run_one(step, name, x, device):
    """Seconds of one step."""
    torch.set_float32_matmul_precision("medium" if name.endswith(" medium") else "highest")
    begun = time.perf_counter()
    step(x)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def measure(d_sae, batch, rounds, device, only):
    """Milliseconds of every contestant in every round, after two rounds that warm up."""
    batches = data(d_sae, batch, device)
    steps, failed = {}, {}
    for name, kind, kept, make in contestants(d_sae, batch, device):
        if only and name not in only:
            continue
        try:
            steps[name] = (kind, kept, make())
        except Exception as error:  # noqa: BLE001  a peer that cannot run is a line of the table
            failed[name] = f"{type(error).__name__}: {error}"
    times = {name: [] for name in steps}
    for i in range(rounds + 2):
        for name, (_, _, step) in list(steps.items()):
            try:
                seconds = run_one(step, name, batches[i % BATCHES], device)
            except Exception as error:  # noqa: BLE001  the same
                failed[name] = f"{type(error).__name__}: {error}"
                del steps[name], times[name]
                continue
            if i >= 2:
                times[name].append(1e3 * seconds)
        print(f"round {i - 1} of {rounds}", file=sys.stderr, flush=True)
    rows = [
        {"name": name, "kind": kind, "fp32": kept, "median": statistics.median(times[name]), "min": min(times[name])}
        for name, (kind, kept, _) in steps.items()
    ]
    return {"d_sae": d_sae, "batch": batch, "rounds": rounds, "rows": rows, "failed": failed}


def main():
    """Measure one setting; `peak_mib` is that of one contestant where ``--only`` names one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-sae", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = measure(given.d_sae, given.batch, given.rounds, device, given.only)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else (after - before) / 2**10
    print(json.dumps({**result, "threads": given.threads, "torch": torch.__version__, "peak_mib": round(memory)}))


if __name__ == "__main__":
    main()
