"""One DeepSpeed engine for one model shape: step, evaluate, save, load, export.

Every rank of a lane holds one and calls its methods together with the others. Nothing here knows of Ray.
"""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from raysplit.design.lane_shapes import LaneShape
from raysplit.errors import CheckpointError
from raysplit.ladder import ModelShape
from raysplit.space import TrainingSpec
from raysplit.train.checkpoints import MANIFEST, check_fits, read_checkpoint
from raysplit.train.deepspeed_private import n_dims_of, whole_weights
from raysplit.train.export import complete_export, share_mode
from raysplit.train.models import build_model

_TAG = "state"
_PROBE_TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}
"""Relative change of the probe loss that a faithful load may show: summation order over ranks, and the precision."""


class Divergence(Exception):
    """A loss that is NaN or infinite; the run has failed, others go on."""


def deepspeed_config(training: TrainingSpec, lane: LaneShape, *, n_workers: int, context_length: int) -> dict[str, Any]:
    """DeepSpeed's configuration for a lane that has come up with ``n_workers`` ranks."""
    sequences = training.batch_tokens // context_length
    bf16 = training.precision == "bf16"
    return {
        "train_batch_size": sequences,
        "train_micro_batch_size_per_gpu": lane.micro_batch_sequences,
        "gradient_accumulation_steps": sequences // (lane.micro_batch_sequences * n_workers),
        "gradient_clipping": training.gradient_clip,
        "bf16": {"enabled": bf16},
        "zero_optimization": {"stage": lane.zero_stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


class Engine:
    """A model of one shape with its optimizer under DeepSpeed; created with the weights of ``seed``."""

    def __init__(self, shape: ModelShape, training: TrainingSpec, *, lane: LaneShape, seed: int, device: str) -> None:
        import deepspeed

        self.shape, self.training, self.lane = shape, training, lane
        self.rank, self.n_workers = dist.get_rank(), dist.get_world_size()
        config = deepspeed_config(training, lane, n_workers=self.n_workers, context_length=shape.context_length)
        # Before the ranks are known to it, zero.Init takes this one for the only one.
        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
        # Stage 3 partitions each weight as it is made, so that no rank ever holds a whole 7B model.
        partition = (
            deepspeed.zero.Init(config_dict_or_path=config) if lane.zero_stage == 3 else (contextlib.nullcontext())
        )
        with partition:
            model = build_model(shape, seed=seed, activation_checkpointing=lane.activation_checkpointing)
        optimizer = torch.optim.AdamW(
            _parameter_groups(model, training.weight_decay),
            lr=0.0,  # each step brings its own; the dry step by which DeepSpeed makes the moments must move nothing
            betas=(training.adam_beta1, training.adam_beta2),
            fused=True,
        )
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self.reset_optimizer()  # that dry step counts as one in stage 0 of bf16, which would skew Adam's first steps
        if training.compile:
            self._engine.compile()
        self.device = torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device(device)

    def step(self, windows: np.ndarray, *, learning_rate: float) -> torch.Tensor:
        """One optimizer step on this rank's ``windows`` (n, context_length + 1); returns the mean loss, detached."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        micro = self.lane.micro_batch_sequences
        total = torch.zeros((), device=self.device)
        n_micro = len(windows) // micro
        for start in range(0, len(windows), micro):
            loss = self._loss(windows[start : start + micro])
            self._engine.backward(loss)
            self._engine.step()
            total += loss.detach()
        return total / n_micro

    @property
    def skipped_steps(self) -> int:
        """Steps that DeepSpeed left out, without a word, because the gradient was not finite."""
        return int(self._engine.skipped_steps)

    def loss_on(self, windows: np.ndarray) -> float:
        """Mean loss in nats per token over held-out ``windows`` (n, context_length + 1), shared out over the ranks."""
        self._engine.eval()
        mine = windows[self.rank :: self.n_workers]
        # All ranks make as many forward passes, which stage 3's gathering needs; short ranks repeat a window.
        micro = self.lane.micro_batch_sequences
        n_passes = math.ceil(math.ceil(len(windows) / self.n_workers) / micro)
        total = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for i in range(n_passes):
                chunk = mine[i * micro : (i + 1) * micro]
                loss = self._loss(chunk if len(chunk) else windows[:1])
                total += torch.tensor([loss.item() * len(chunk), len(chunk)], dtype=torch.float64)
        self._engine.train()
        summed, n = self.mean_over_ranks(*total.tolist())
        return summed / n

    def mean_over_ranks(self, *values: float) -> tuple[float, ...]:
        """Each value's mean over the ranks, the same on all of them."""
        if self.n_workers == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return tuple((total / self.n_workers).tolist())

    def save(self, folder: Path, *, about: Mapping[str, Any], probe: np.ndarray) -> None:
        """Write a checkpoint that another engine of the same shape and world size continues from bit for bit.

        It is written beside its place and renamed last, so an interrupted save leaves nothing that `load` accepts.
        """
        partial = _begin(folder) if self.rank == 0 else _partial(folder)
        self._barrier()
        probe_loss = self.loss_on(probe)
        self._engine.save_checkpoint(str(partial), tag=_TAG, save_latest=False)
        self._barrier()
        if self.rank == 0:
            manifest = {
                **about,
                "shape": asdict(self.shape),
                "n_workers": self.n_workers,
                "probe_loss": probe_loss,
                "file_bytes": _file_bytes(partial),
            }
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
            share_mode(partial, like=partial / MANIFEST)
            _put(partial, folder)
        self._barrier()

    def load(self, folder: Path, *, probe: np.ndarray) -> None:
        """Continue from a checkpoint.

        Raises:
            CheckpointError: the folder is missing or incomplete, is of another model or world size, or the loaded model
                does not reproduce the loss that it was saved with.
        """
        manifest = read_checkpoint(folder)
        check_fits(folder, manifest, shape=self.shape, n_workers=self.n_workers)
        there = _file_bytes(folder)
        for name, n_bytes in manifest["file_bytes"].items():
            if there.get(name) != n_bytes:
                found_bytes = f"{there[name]} of {n_bytes} bytes" if name in there else "missing"
                raise CheckpointError(f"{folder}: the checkpoint is damaged: {name} is {found_bytes}")
        self._engine.load_checkpoint(str(folder), tag=_TAG, load_lr_scheduler_states=False)
        # DeepSpeed can load nothing without a word (stage 3 with load_module_only): believe only the loss.
        expected, found = manifest["probe_loss"], self.loss_on(probe)
        if not math.isclose(expected, found, rel_tol=_PROBE_TOLERANCE[self.training.precision]):
            raise CheckpointError(f"{folder}: the loaded model has loss {found:.6f} where {expected:.6f} was saved")

    def reset_optimizer(self) -> None:
        """Zero Adam's moments and step counts, as if the loaded weights were a fresh start."""
        optimizer = self._engine.optimizer
        optimizer = getattr(optimizer, "optimizer", optimizer)  # DeepSpeed's wrappers hold torch's
        for state in optimizer.state.values():
            for value in state.values():
                if torch.is_tensor(value):
                    value.zero_()

    def export(self, folder: Path, *, tokenizer_folder: Path | None) -> None:
        """Write the model as a Hugging Face folder, with its tokenizer beside it, in place of what lay there.

        It is written beside its place and renamed last. See `raysplit.train.export` for what the files promise.
        """
        weights = whole_weights(self._engine) if self.lane.zero_stage == 3 else self._engine.module.state_dict()
        if self.rank == 0:
            # A fresh model, since the engine's own may be partitioned, compiled or patched; of the trained precision.
            model = build_model(self.shape, seed=0).to(next(iter(weights.values())).dtype)
            model.load_state_dict(weights)
            partial = _begin(folder)
            model.save_pretrained(partial)
            complete_export(partial, tokenizer_folder=tokenizer_folder)
            _put(partial, folder)
        self._barrier()

    def close(self) -> None:
        """Free the model's memory; DeepSpeed's hooks hold it otherwise."""
        self._engine.destroy()
        del self._engine
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _loss(self, windows: np.ndarray) -> torch.Tensor:
        tokens = torch.from_numpy(windows).to(self.device, non_blocking=True)  # (B, T + 1)
        logits = self._engine(input_ids=tokens[:, :-1]).logits  # (B, T, V)
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    def _barrier(self) -> None:
        if self.n_workers > 1:
            dist.barrier()


def _partial(folder: Path) -> Path:
    """Where a folder is written before it is whole."""
    return folder.with_name(folder.name + ".partial")


def _begin(folder: Path) -> Path:
    """An empty partial folder, whatever an interrupted write has left there."""
    partial = _partial(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def _put(partial: Path, folder: Path) -> None:
    """Give a whole folder its name, in place of an older one."""
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def _file_bytes(folder: Path) -> dict[str, int]:
    """Size of each file of the state below ``folder``, by its path there."""
    return {str(p.relative_to(folder)): p.stat().st_size for p in sorted((folder / _TAG).rglob("*")) if p.is_file()}


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices, not norms."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    n_dims = [n_dims_of(p) for p in parameters]
    return [
        {"params": [p for p, n in zip(parameters, n_dims, strict=True) if n >= 2], "weight_decay": weight_decay},
        {"params": [p for p, n in zip(parameters, n_dims, strict=True) if n < 2], "weight_decay": 0.0},
    ]
