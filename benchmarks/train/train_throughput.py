"""How fast is our training step beside a bare PyTorch loop of the same model, optimizer and batch?

    python benchmarks/train/train_throughput.py        # 5 minutes
    python benchmarks/train/train_throughput.py --device cuda --sizes 20M 125M 350M --context 1024 --batch 16

Both train the same shape in one process, one worker, on the same random tokens: the engine through DeepSpeed as a sweep
does, the loop with plain autograd, clip_grad_norm_ and a fused AdamW. In bf16 the loop has its weights and optimizer
states in bf16, so that it is if anything the lighter one. They take turns, a round each, so that a drift of the machine
hits both. On a CPU the time is that of the process's one thread, so that other work on the machine counts for little.

A line is a size. "Ours / bare loop" is the ratio of tokens/s, taken round by round: the median and its range. On CUDA
the model FLOP utilization (MFU) is F(N) tokens/s over the GPU's dense bf16 peak.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from raysplit.design.lane_shapes import LaneShape
from raysplit.ladder import ModelShape, shape_for
from raysplit.machines import ComputeSpec
from raysplit.quantities import format_count, parse_count
from raysplit.space import LearningRateSpec, TrainingSpec
from raysplit.split.budgets import PEAK_FLOPS_PER_SECOND
from raysplit.train.engine import Engine
from raysplit.train.models import build_model
from raysplit.train.runtime import become_only_rank


def bare_loop(shape: ModelShape, training: TrainingSpec, device: str) -> Callable[[np.ndarray], float]:
    """One step of what anyone would write without a framework."""
    model = build_model(shape, seed=0).to(device, torch.bfloat16 if training.precision == "bf16" else torch.float32)
    if training.compile:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step(windows: np.ndarray) -> float:
        tokens = torch.from_numpy(windows).to(device)
        logits = model(input_ids=tokens[:, :-1]).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def our_step(shape: ModelShape, training: TrainingSpec, device: str) -> Callable[[np.ndarray], float]:
    lane = LaneShape(
        n_workers=1,
        n_nodes=1,
        cpus_per_worker=1.0,
        gpus_per_worker=float(device == "cuda"),
        zero_stage=training.zero_stage,
        micro_batch_sequences=training.micro_batch_sequences,
        activation_checkpointing=False,
    )
    engine = Engine(shape, training, lane=lane, seed=0, device=device)
    return lambda windows: engine.step(windows, learning_rate=1e-4).item()


def tokens_per_second(
    step: Callable[[np.ndarray], float],
    windows: np.ndarray,
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    n_tokens, started = 0, clock()
    while clock() - started < seconds:
        step(windows)
        n_tokens += windows.shape[0] * (windows.shape[1] - 1)
    return n_tokens / (clock() - started)


def compare(
    shape: ModelShape, training: TrainingSpec, device: str, *, n_rounds: int, seconds: float
) -> dict[str, float]:
    windows = np.random.default_rng(0).integers(
        shape.vocab_size, size=(training.micro_batch_sequences, shape.context_length + 1)
    )
    ours, bare = our_step(shape, training, device), bare_loop(shape, training, device)
    for step in (ours, bare, ours, bare):
        step(windows)
    clock = time.perf_counter if device == "cuda" else time.process_time
    ratios, speeds = [], []
    for i in range(n_rounds):
        # Who goes first changes, so that neither always inherits the other's warm caches.
        pair = {}
        for name, step in (("ours", ours), ("bare", bare)) if i % 2 else (("bare", bare), ("ours", ours)):
            pair[name] = tokens_per_second(step, windows, clock=clock, seconds=seconds)
        ratios.append(pair["ours"] / pair["bare"])
        speeds.append(pair["ours"])
    return {
        "n_params": shape.n_params_non_embedding,
        "tokens_per_second": statistics.median(speeds),
        "ratio_min": min(ratios),
        "ratio_median": statistics.median(ratios),
        "ratio_max": max(ratios),
    }


@contextmanager
def one_rank(device: str) -> Iterator[None]:
    """This process as the only worker of a lane."""
    become_only_rank(ComputeSpec(device=device))
    yield
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--sizes", nargs="+", type=parse_count, default=[14_000, 28_000, 56_000, 110_000, 1_000_000, 3_000_000]
    )
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16, help="sequences in a step")
    parser.add_argument("--vocab", type=int, default=512)
    parser.add_argument("--zero-stage", type=int, default=0, help="a lone rank's own is 0 in fp32, and 1 in bf16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each of the two, each round")
    parser.add_argument("--gpu", default="H100", choices=sorted(PEAK_FLOPS_PER_SECOND), help="whose peak the MFU is of")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    arguments = parser.parse_args()
    training = TrainingSpec(
        batch_tokens=arguments.batch * arguments.context,
        micro_batch_sequences=arguments.batch,
        precision="bf16" if arguments.device == "cuda" else "fp32",
        zero_stage=arguments.zero_stage,
        learning_rate=LearningRateSpec(reference=1e-4, reference_params=1_000_000),
        warmup_tokens=0,
        validation_tokens=1,
    )
    rows = []
    with one_rank(arguments.device):
        print(f"{'N':>8} {'tokens/s':>10} {'ours / bare loop':>22}   MFU")
        for size in arguments.sizes:
            shape = shape_for(size, vocab_size=arguments.vocab, context_length=arguments.context)
            row = compare(shape, training, arguments.device, n_rounds=arguments.rounds, seconds=arguments.seconds)
            utilization = ""
            if arguments.device == "cuda":
                row["mfu"] = row["tokens_per_second"] * shape.flops_per_token / PEAK_FLOPS_PER_SECOND[arguments.gpu]
                utilization = f"{row['mfu']:.1%}"
            rows.append(row)
            spread = f"({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
            print(
                f"{format_count(row['n_params']):>8} {row['tokens_per_second']:>10.0f} {row['ratio_median']:>6.3f} "
                f"{spread:>15}   {utilization}",
                flush=True,
            )
    if arguments.out is not None:
        hardware = (
            torch.cuda.get_device_name()
            if arguments.device == "cuda"
            else (f"{platform.machine()}, {os.cpu_count()} cores, 1 thread used")
        )
        about = {
            "date": date.today().isoformat(),
            "hardware": hardware,
            "torch": torch.__version__,
            "arguments": {k: str(v) for k, v in vars(arguments).items()},
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({**about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
