"""What does one GPU show of training in at most eight minutes? What is worth most comes first, should time run out.

    python benchmarks/train/gpu_check.py
    python benchmarks/train/gpu_check.py --small --device cpu    # the same path on a CPU, whose figures say nothing

throughput  tokens/s and model FLOP utilization beside a bare loop, without and with torch.compile
memory      the most that was allocated, beside the formula that `raysplit plan` goes by
precision   losses of bf16 beside fp32 over 50 steps on real text
state       seconds to save (training stands still; all) and to open a checkpoint
sweep       a search space of minutes, to an answer
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import torch
import yaml
from train_throughput import bare_loop, one_rank, our_step, tokens_per_second

from raysplit.design.lane_shapes import LaneShape
from raysplit.design.memory import bytes_a_rank
from raysplit.design.tree import Node
from raysplit.ladder import ModelShape, shape_for
from raysplit.machines import PEAK_FLOPS_PER_SECOND
from raysplit.quantities import format_count
from raysplit.space import LearningRateSpec, TrainingSpec
from raysplit.train.engine import Engine
from raysplit.train.saving import Save, open_checkpoint
from raysplit.train.storage import CheckpointStorage

SMOKE = Path(__file__).parents[2] / "search_spaces" / "smoke.yaml"


def training_of(shape: ModelShape, *, micro: int, precision: str = "bf16", compiled: bool = False) -> TrainingSpec:
    return TrainingSpec(
        batch_tokens=micro * shape.context_length,
        micro_batch_sequences=micro,
        precision=precision,
        zero_stage=1,
        compile=compiled,
        learning_rate=LearningRateSpec(reference=1e-4, reference_params=1_000_000),
        warmup_tokens=0,
        validation_tokens=1,
    )


def make_engine(shape: ModelShape, training: TrainingSpec, device: str) -> Engine:
    lane = LaneShape(
        n_workers=1, n_nodes=1, cpus_per_worker=1, gpus_per_worker=float(device == "cuda"), zero_stage=1,
        micro_batch_sequences=training.micro_batch_sequences, activation_checkpointing=False,
    )  # fmt: skip
    return Engine(shape, training, lane=lane, seed=0, device=device)


def windows_of(shape: ModelShape, micro: int) -> np.ndarray:
    return np.random.default_rng(0).integers(shape.vocab_size, size=(micro, shape.context_length + 1))


def throughput(shapes: list[ModelShape], *, micro: int, device: str, seconds: float, peak: float) -> Iterator[str]:
    for shape in shapes:
        windows = windows_of(shape, micro)
        for compiled in (False, True):
            training = training_of(shape, micro=micro, compiled=compiled)
            speeds = {}
            for name, make in (("ours", our_step), ("bare", bare_loop)):
                step = make(shape, training, device)
                for _ in range(3):
                    step(windows)
                speeds[name] = tokens_per_second(step, windows, seconds=seconds)
                del step
            yield (
                f"{format_count(shape.n_params_non_embedding)}{' compiled' if compiled else ''}: {speeds['ours']:,.0f} "
                f"tokens/s, {speeds['ours'] / speeds['bare']:.3f} of a bare loop, "
                f"MFU {speeds['ours'] * shape.flops_per_token / peak:.1%}"
            )


def memory(shapes: list[ModelShape], *, micro: int, device: str) -> Iterator[str]:
    for shape in shapes:
        planned = bytes_a_rank(
            shape, precision="bf16", n_workers=1, zero_stage=1, micro_batch_sequences=micro,
            activation_checkpointing=False,
        ).total  # fmt: skip
        found = "not counted on a CPU"
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            engine = make_engine(shape, training_of(shape, micro=micro), device)
            for _ in range(2):
                engine.step(windows_of(shape, micro), learning_rate=1e-4).item()
            engine.close()
            most = torch.cuda.max_memory_allocated()
            found = f"{most / 1e9:.2f} GB, {most / planned:.3f} of the plan"
        yield f"{format_count(shape.n_params_non_embedding)}: plan {planned / 1e9:.2f} GB, found {found}"


def precision(shape: ModelShape, *, micro: int, device: str, n_steps: int) -> Iterator[str]:
    text = np.frombuffer(
        "".join(p.read_text() for p in sorted(Path(np.__file__).parent.glob("*.py"))).encode(), np.uint8
    )
    stride = micro * shape.context_length
    losses = {}
    for kind in ("fp32", "bf16"):
        engine = make_engine(shape, training_of(shape, micro=micro, precision=kind), device)
        losses[kind] = []
        for i in range(n_steps):
            starts = (i * stride + np.arange(micro) * shape.context_length) % (len(text) - shape.context_length - 1)
            windows = np.stack([text[at : at + shape.context_length + 1] for at in starts]).astype(np.int64)
            losses[kind].append(engine.step(windows, learning_rate=1e-3).item())
        engine.close()
    gaps = [abs(a - b) / a for a, b in zip(*losses.values(), strict=True)]
    yield (
        f"{format_count(shape.n_params_non_embedding)}, {n_steps} steps: {losses['fp32'][0]:.4f} -> "
        f"{losses['fp32'][-1]:.4f} in fp32, {losses['bf16'][-1]:.4f} in bf16; furthest apart {max(gaps):.3%}"
    )


def state(shape: ModelShape, *, micro: int, device: str) -> Iterator[str]:
    engine = make_engine(shape, training_of(shape, micro=micro), device)
    node = Node(n_params=shape.n_params_non_embedding, seed=0, pretrain_tokens=1)
    windows = windows_of(shape, micro)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread:
        started = time.perf_counter()
        save = Save(engine, CheckpointStorage(folder), node, passing=False, writer=thread)
        blocked = time.perf_counter() - started
        manifest = save.finish()
        saved = time.perf_counter() - started
        before = engine.loss_on(windows)
        engine.begin(1)
        started = time.perf_counter()
        open_checkpoint(engine, CheckpointStorage(folder), manifest, reader=thread)
        opened = time.perf_counter() - started
        n_bytes = sum(file.n_bytes for file in manifest.files)
        same = engine.loss_on(windows) == before
    engine.close()
    yield (
        f"{format_count(shape.n_params_non_embedding)}: {n_bytes / 1e9:.2f} GB, stands still {blocked:.2f} s, saved in "
        f"{saved:.2f} s, opened in {opened:.2f} s, the same loss to the bit: {same}"
    )


def sweep(*, device: str) -> Iterator[str]:
    space = yaml.safe_load(SMOKE.read_text())
    space["compute"] = {"device": device, "lanes": 1, "workers_per_lane": 1}
    space["sweep"] |= {"budget_flops": 6e11, "repeats": []}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "space.yaml"
        path.write_text(yaml.safe_dump(space))
        started = time.perf_counter()
        command = [sys.executable, "-m", "raysplit", "sweep", str(path), "--out", str(Path(name) / "run")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-40:])
        yield f"ended with {done.returncode} after {time.perf_counter() - started:.0f} s:\n{last}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes and times that a CPU bears")
    parser.add_argument("--gpu", default="H100", choices=sorted(PEAK_FLOPS_PER_SECOND), help="whose peak the MFU is of")
    parser.add_argument("--only", nargs="+", choices=["throughput", "memory", "precision", "state", "sweep"])
    arguments = parser.parse_args()
    device = arguments.device
    sizes, context, vocab, micro, seconds = [125e6, 350e6], 2048, 32_768, 8, 8.0
    if arguments.small:
        sizes, context, vocab, micro, seconds = [28e3, 110e3], 64, 256, 4, 1.0
    shapes = [shape_for(int(size), vocab_size=vocab, context_length=context) for size in sizes]
    on_text = shape_for(int(sizes[0]), vocab_size=256, context_length=context)
    hardware = torch.cuda.get_device_name() if device == "cuda" else "a CPU, small sizes: figures of the path alone"
    print(f"{date.today()}, {hardware}, torch {torch.__version__}", flush=True)
    peak = PEAK_FLOPS_PER_SECOND[arguments.gpu]
    checks = {
        "throughput": lambda: throughput(shapes, micro=micro, device=device, seconds=seconds, peak=peak),
        "memory": lambda: memory(shapes, micro=micro, device=device),
        "precision": lambda: precision(on_text, micro=micro, device=device, n_steps=50),
        "state": lambda: state(shapes[-1], micro=micro, device=device),
        "sweep": lambda: sweep(device=device),
    }
    with one_rank(device):
        for name in arguments.only or checks:
            started = time.perf_counter()
            print(f"\n{name}", flush=True)
            for line in checks[name]():
                print(f"  {line}", flush=True)
            print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
