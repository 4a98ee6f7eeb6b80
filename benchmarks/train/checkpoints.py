"""What do three ways to keep a training state cost in seconds, bytes and memory? Each runs in a process of its own.

    python benchmarks/train/checkpoints.py --size 20M        # a minute

ours        whole parameters by name, safetensors with checksums, written by a thread (`raysplit.train.saving`)
dcp         the same tensors by torch.distributed.checkpoint
deepspeed   DeepSpeed's own checkpoint, which opens at one world size and stage; then made universal by its converter

blocked_s   seconds for which training stands still
save_s      seconds until the checkpoint is whole
load_s      seconds to open it
mb, files   what lies on the disk
save_mb, load_mb  the most that resident memory rises above what the engine takes before
to_universal_s    seconds of DeepSpeed's converter

Only ours syncs its files to the disk.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

CANDIDATES = ("ours", "dcp", "deepspeed")


@contextmanager
def peak_memory(row: dict[str, float], name: str) -> Iterator[None]:
    """Megabytes that resident memory rises by."""
    import psutil

    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    done.set()
    watcher.join()
    row[name] = (peak - before) / 1e6


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    out = work()
    return time.perf_counter() - started, out


def make_engine(size: int, *, stage: int) -> Any:
    import torch.distributed as dist

    from raysplit.design.lane_shapes import LaneShape
    from raysplit.ladder import shape_for
    from raysplit.machines import ComputeSpec
    from raysplit.space import LearningRateSpec, TrainingSpec
    from raysplit.train.engine import Engine
    from raysplit.train.runtime import prepare_worker

    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    prepare_worker(ComputeSpec())
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    training = TrainingSpec(
        batch_tokens=128, micro_batch_sequences=1, warmup_tokens=0, validation_tokens=128,
        learning_rate=LearningRateSpec(reference=1e-4, reference_params=1_000_000),
    )  # fmt: skip
    lane = LaneShape(
        n_workers=1, n_nodes=1, cpus_per_worker=1, gpus_per_worker=0, zero_stage=stage, micro_batch_sequences=1,
        activation_checkpointing=False,
    )  # fmt: skip
    shape = shape_for(size, vocab_size=4096, context_length=128)
    return Engine(shape, training, lane=lane, seed=0, device="cpu")


def ours(engine: Any, folder: Path) -> dict[str, float]:
    from raysplit.design.tree import Node
    from raysplit.train.saving import Save, open_checkpoint
    from raysplit.train.storage import CheckpointStorage

    storage, row = CheckpointStorage(folder), {}
    node = Node(n_params=1, seed=0, pretrain_tokens=1)
    with ThreadPoolExecutor(1) as thread:
        with peak_memory(row, "save_mb"):
            row["blocked_s"], save = seconds(lambda: Save(engine, storage, node, passing=False, writer=thread))
            rest, manifest = seconds(save.finish)
        row["save_s"] = row["blocked_s"] + rest
        with peak_memory(row, "load_mb"):
            row["load_s"], _ = seconds(lambda: open_checkpoint(engine, storage, manifest, reader=thread))
    return row


def dcp(engine: Any, folder: Path) -> dict[str, float]:
    import torch.distributed.checkpoint as torch_checkpoint

    from raysplit.train.state import MOMENTS, WEIGHT

    def state() -> dict[str, Any]:
        return {
            f"{what}/{name}": engine.whole(name, what)
            for name in engine.parameter_shapes
            for what in (WEIGHT, *MOMENTS)
        }

    def load() -> None:
        found = state()
        torch_checkpoint.load(found, checkpoint_id=folder)
        for name in engine.parameter_shapes:
            engine.assign(name, {what: found[f"{what}/{name}"] for what in (WEIGHT, *MOMENTS)})

    row: dict[str, float] = {}
    with peak_memory(row, "save_mb"):
        row["save_s"], _ = seconds(lambda: torch_checkpoint.save(state(), checkpoint_id=folder))
    row["blocked_s"] = row["save_s"]
    with peak_memory(row, "load_mb"):
        row["load_s"], _ = seconds(load)
    return row


def deepspeed(engine: Any, folder: Path) -> dict[str, float]:
    inner, row = engine._engine, {}
    about = {"universal_checkpoint_info": {"universal_checkpoint_version": 0.2}}
    with peak_memory(row, "save_mb"):
        row["save_s"], _ = seconds(lambda: inner.save_checkpoint(str(folder), tag="state", client_state=about))
    row["blocked_s"] = row["save_s"]
    with peak_memory(row, "load_mb"):
        row["load_s"], _ = seconds(lambda: inner.load_checkpoint(str(folder), tag="state"))
    converter = [sys.executable, "-W", "ignore", "-m", "deepspeed.checkpoint.ds_to_universal"]
    paths = ["--input_folder", str(folder / "state"), "--output_folder", str(folder / "universal")]
    row["to_universal_s"], done = seconds(
        lambda: subprocess.run([*converter, *paths], capture_output=True, check=False)
    )
    if done.returncode:
        row["to_universal_s"] = float("nan")
    return row


def measure(candidate: str, size: int, stage: int) -> dict[str, float]:
    engine = make_engine(size, stage=stage)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        row = {"ours": ours, "dcp": dcp, "deepspeed": deepspeed}[candidate](engine, folder)
        own = [path for path in folder.rglob("*") if path.is_file() and "universal" not in path.parts]
        row |= {"mb": sum(path.stat().st_size for path in own) / 1e6, "files": len(own)}
        row["n_params"] = engine.shape.n_params_total
    return row


def main() -> None:
    from raysplit.quantities import parse_count

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_count, default=20_000_000)
    parser.add_argument("--stage", type=int, default=1)
    parser.add_argument("--candidate", choices=CANDIDATES, help="this one alone, in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.candidate:
        print(json.dumps(measure(arguments.candidate, arguments.size, arguments.stage)))
        return
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, one rank, ZeRO {arguments.stage}, fp32")
    columns = ("blocked_s", "save_s", "load_s", "mb", "files", "save_mb", "load_mb", "to_universal_s")
    print(f"{'':<10}" + "".join(f"{name:>15}" for name in columns))
    for candidate in CANDIDATES:
        command = [sys.executable, "-W", "ignore", __file__, "--candidate", candidate]
        out = subprocess.run(
            [*command, "--size", str(arguments.size), "--stage", str(arguments.stage)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        row = json.loads(out.stdout.strip().splitlines()[-1])
        values = "".join(f"{row[name]:>15.2f}" if name in row else f"{'':>15}" for name in columns)
        print(f"{candidate:<10}{values}", flush=True)
    print(f"of a model with {row['n_params']:,} parameters: 12 bytes each are {12 * row['n_params'] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
