"""Setting up a worker process for training: threads, determinism, and a DeepSpeed that starts quickly and quietly."""

import logging
import os
import warnings

import torch
import torch.distributed as dist

from raysplit.machines import ComputeSpec
from raysplit.train import deepspeed_private


def prepare_worker(compute: ComputeSpec) -> None:
    """Set up this process for training; call once, before the first engine."""
    os.environ["DS_ACCELERATOR"] = compute.device
    if compute.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what NVIDIA names for results that repeat
        torch.use_deterministic_algorithms(True)
    if compute.device == "cpu":
        torch.set_num_threads(max(1, int(compute.cpus_per_worker)))
    else:
        torch.set_float32_matmul_precision("high")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of DeepSpeed's import: deprecations inside torch and itself
        import deepspeed  # noqa: F401

    deepspeed_private.forbid_compiling()
    deepspeed_private.forbid_memory_reports()
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    for name in ("DeepSpeed", "transformers", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


def become_only_rank(compute: ComputeSpec) -> None:
    """Set up this process as the only worker of a lane that no launcher knows of."""
    prepare_worker(compute)
    # DeepSpeed asks the environment, not torch, which of its node's ranks it is.
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    if not dist.is_initialized():
        backend = "nccl" if compute.device == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
