"""One DeepSpeed engine for one model shape: step, evaluate, give and take its state, export.

Every rank of a lane holds one and calls its methods together with the others. Nothing here knows of Ray.
"""

import contextlib
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from raysplit.design.lane_shapes import LaneShape
from raysplit.errors import RunError
from raysplit.ladder import ModelShape
from raysplit.space import TrainingSpec
from raysplit.train.adapters import adapt, base_name, first_adapter, write_adapter
from raysplit.train.bases import base_weights
from raysplit.train.deepspeed_private import link_moments, shape_of
from raysplit.train.export import complete_export, complete_like_base
from raysplit.train.models import first_weights, undrawn_model
from raysplit.train.state import (
    WEIGHT,
    adam_steps,
    assign,
    assign_frozen,
    parameters_of,
    set_adam_steps,
    whole_of,
    zero_adam,
)


class Divergence(Exception):
    """A run has failed for good: a loss or a gradient is not finite, or the loss has run away. Other runs go on."""


def deepspeed_config(
    training: TrainingSpec, lane: LaneShape, *, n_sequences: int, micro_batch_sequences: int
) -> dict[str, Any]:
    """DeepSpeed's configuration for a rank's ``n_sequences`` a step."""
    bf16 = training.precision == "bf16"
    return {
        "train_micro_batch_size_per_gpu": micro_batch_sequences,
        "gradient_accumulation_steps": n_sequences // micro_batch_sequences,
        "gradient_clipping": training.gradient_clip,
        "bf16": {"enabled": bf16},
        # Summed in bf16, the gradients of many micro-batches lose what is small beside their sum.
        "data_types": {"grad_accum_dtype": "fp32"},
        # DeepSpeed has no sum in fp32 for bf16 at stage 0; stage 1 does the same with a share of the optimizer a rank.
        "zero_optimization": {"stage": max(lane.zero_stage, int(bf16))},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


class Engine:
    """A model of one shape with its optimizer under DeepSpeed; it is created with the first weights of ``seed``."""

    def __init__(self, shape: ModelShape, training: TrainingSpec, *, lane: LaneShape, seed: int, device: str) -> None:
        """Build it on every rank.

        Raises:
            RunError: the ranks cannot share the batch evenly.
            CheckpointError: as `begin`.
        """
        import deepspeed

        self.shape, self.training, self.lane = shape, training, lane
        self.rank, self.n_workers = dist.get_rank(), dist.get_world_size()
        n_sequences = _share_of_batch(training.batch_tokens // shape.context_length, n_workers=self.n_workers)
        self._micro = math.gcd(lane.micro_batch_sequences, n_sequences)
        config = deepspeed_config(training, lane, n_sequences=n_sequences, micro_batch_sequences=self._micro)
        # Before the ranks are known to it, zero.Init takes this one for the only one.
        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
        # Stage 3 partitions each weight as it is made, so that no rank ever holds a whole 7B model.
        partition = (
            deepspeed.zero.Init(config_dict_or_path=config) if lane.zero_stage == 3 else (contextlib.nullcontext())
        )
        with partition:
            model = undrawn_model(shape, trains=True)
        if training.lora is not None:
            adapt(model, training.lora)  # whole ones: DeepSpeed partitions them with the rest of what it is given
        if lane.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        optimizer = torch.optim.AdamW(
            _parameter_groups(model, training.weight_decay),
            lr=0.0,  # each step brings its own; the dry step must move nothing
            betas=(training.adam_beta1, training.adam_beta2),
            fused=True,
        )
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self.device = torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device(device)
        every = parameters_of(self._engine)
        self._parameters = {name: parameter for name, parameter in every.items() if parameter.requires_grad}
        self._frozen = {name: parameter for name, parameter in every.items() if not parameter.requires_grad}
        self._base = shape.base
        # Adam's moments are made by the first step; only then can they be read and set.
        self.step(np.zeros((n_sequences, 3), dtype=np.int64), learning_rate=0.0)
        link_moments(self._engine)
        self.begin(seed)
        if training.compile:
            self._engine.module.base_model.compile()  # below DeepSpeed's own hooks, which it cannot see through

    def step(self, windows: torch.Tensor | np.ndarray, *, learning_rate: float) -> torch.Tensor:
        """One optimizer step on this rank's ``windows`` (n, context_length + 1); their mean loss in nats, detached."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        micro = self._micro
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
        """Optimizer steps that DeepSpeed left out, silently, because the gradient was not finite."""
        return int(self._engine.skipped_steps)

    def loss_on(self, windows: np.ndarray) -> float:
        """Mean loss in nats per token over held-out ``windows`` (n, context_length + 1), which the ranks share."""
        self._engine.eval()
        mine = windows[self.rank :: self.n_workers]
        # All ranks make the same number of passes, which stage 3's gathering needs; a short rank repeats a window.
        micro = self._micro
        n_passes = math.ceil(math.ceil(len(windows) / self.n_workers) / micro)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        with torch.no_grad():
            for i in range(n_passes):
                chunk = mine[i * micro : (i + 1) * micro]
                total += len(chunk) * self._loss(chunk if len(chunk) else windows[:1]).double()
        self._engine.train()
        summed, n = self.mean_over_ranks(total.item(), len(mine))
        return summed / n

    def mean_over_ranks(self, *values: float) -> tuple[float, ...]:
        """Each value's mean over the ranks, the same on all of them."""
        if self.n_workers == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return tuple((total / self.n_workers).tolist())

    def begin(self, seed: int, *, folder: str = "") -> None:
        """Start from the weights of a seed, or of a base in ``folder``, with a fresh optimizer.

        Raises:
            CheckpointError: the base's weights are not there, or of another model.
        """
        if self.training.lora is None:
            weights = first_weights(self.shape, seed=seed, folder=folder, parameters=self.parameter_shapes)
        else:
            self.take_base(folder)
            weights = first_adapter(self.parameter_shapes, seed=seed)
        for name, weight in weights:
            assign(self._engine, self._parameters[name], {WEIGHT: weight})
        zero_adam(self._engine)

    def take_base(self, folder: str) -> None:
        """Load the weights of a base in ``folder``, which adapters leave as they are; without adapters do nothing.

        Raises:
            CheckpointError: as `begin`.
        """
        if not self._frozen:
            return
        self._base = folder or self.shape.base
        named = {base_name(name): parameter for name, parameter in self._frozen.items()}
        shapes = {name: shape_of(parameter) for name, parameter in named.items()}
        for name, weight in base_weights(self._base, shapes):
            assign_frozen(named[name], weight)

    def reset_optimizer(self) -> None:
        """Zero Adam's moments and step counts, as for weights that are a fresh start."""
        zero_adam(self._engine)

    @property
    def parameter_shapes(self) -> dict[str, torch.Size]:
        """Name -> shape of each whole parameter that is trained, in the order of drawing; tied ones once."""
        return {name: shape_of(parameter) for name, parameter in self._parameters.items()}

    def whole(self, parameter: str, what: str) -> torch.Tensor:
        """A copy of a parameter's fp32 weight or of one of its moments, gathered from the ranks."""
        return whole_of(self._engine, self._parameters[parameter], what)

    def assign(self, parameter: str, values: Mapping[str, torch.Tensor]) -> None:
        """Set a parameter's fp32 weight and moments; the same whole ``values`` on every rank."""
        assign(self._engine, self._parameters[parameter], values)

    @property
    def adam_steps(self) -> int:
        """Optimizer steps since Adam's moments were zero."""
        return adam_steps(self._engine)

    @adam_steps.setter
    def adam_steps(self, n_steps: int) -> None:
        set_adam_steps(self._engine, n_steps)

    def export(self, folder: Path, *, tokenizer_folder: Path | None) -> None:
        """Write the model with its tokenizer as a Hugging Face folder, in place of what lay there.

        Adapters become a folder that peft reads. The folder is written beside its place and renamed last. See
        `raysplit.train.export` for what the files promise.

        Args:
            folder: where it goes.
            tokenizer_folder: of the corpus; None for a model that knows no text. A base brings its own tokenizer.
        """
        dtype = torch.bfloat16 if self.training.precision == "bf16" else torch.float32
        weights = {}
        for name in self._parameters:
            weight = self.whole(name, WEIGHT)
            if self.rank == 0:
                weights[name] = weight.to(dtype).cpu()
        if self.rank == 0:
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)  # what an interrupted export has left
            partial.mkdir(parents=True)
            if self.training.lora is None:
                self._write_model(partial, weights, dtype)
            else:
                write_adapter(partial, weights, self.training.lora, base=self._base)
            if self._base:
                complete_like_base(partial, Path(self._base), dtype=str(dtype).removeprefix("torch."))
            else:
                complete_export(partial, tokenizer_folder=tokenizer_folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        self._barrier()

    def _write_model(self, folder: Path, weights: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
        """Save the weights through a fresh model, since the engine's may be partitioned, compiled or patched."""
        model: Any = undrawn_model(self.shape).to(dtype)
        for name, parameter in model.named_parameters():
            parameter.data.copy_(weights.pop(name))
        model.save_pretrained(folder)

    def close(self) -> None:
        """Free the model's memory; DeepSpeed's hooks hold it otherwise."""
        self._engine.destroy()
        del self._engine
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _loss(self, windows: torch.Tensor | np.ndarray) -> torch.Tensor:
        loss: torch.Tensor = self._engine(torch.as_tensor(windows).to(self.device, non_blocking=True))
        return loss

    def _barrier(self) -> None:
        if self.n_workers > 1:
            dist.barrier()


def _share_of_batch(n_sequences: int, *, n_workers: int) -> int:
    """Sequences of a step that each rank trains on."""
    if n_sequences % n_workers:
        raise RunError(
            f"{n_workers} workers cannot share a batch of {n_sequences} sequences evenly; choose a number of workers "
            "that divides it, or another training.batch_tokens"
        )
    return n_sequences // n_workers


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: matrices have weight decay, vectors such as norms have none."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    n_dims = [len(shape_of(p)) for p in parameters]
    return [
        {"params": [p for p, n in zip(parameters, n_dims, strict=True) if n >= 2], "weight_decay": weight_decay},
        {"params": [p for p, n in zip(parameters, n_dims, strict=True) if n < 2], "weight_decay": 0.0},
    ]
