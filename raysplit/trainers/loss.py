"""The loss of a causal language model in nats per token.

`Trainer`'s own ``eval_loss`` is that only where every row has equally many targets, and the loss is the cross-entropy
alone. It averages batches, weighed by their rows, and is smoothed where labels are.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.modeling_flash_attention_utils import FlashAttentionKwargs

from raysplit.errors import RunError
from raysplit.trainers.data import padding_of

_IGNORED = -100
"""The label that is no target."""
_ALIGNED = 0.1
"""Share by which a model's own loss may differ from ours. Auxiliary terms make a few hundredths, and labels that are
shifted twice make much more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLoss:
    """The losses of one batch."""

    nats: list[float]
    """Cross-entropy summed over the targets of each row."""
    n_targets: list[int]
    """Targets of each row."""
    own_loss: float
    """The loss that the model itself gives; NaN where it gives none."""
    has_padding: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLoss:
    """The loss on a whole evaluation set, over all processes."""

    nats_per_token: float
    n_targets: int
    has_padding: bool


def batch_losses(model: torch.nn.Module, batches: Iterable[Mapping[str, Any]]) -> Iterator[BatchLoss]:
    """Each batch's losses, with the model as it is: in evaluation mode and on its device.

    The labels are the tokens themselves, as everywhere in transformers; the model shifts them.

    Raises:
        RunError: a batch holds no labels, or the model returns no logits.
    """
    accepted = _accepted(model)
    device = next(model.parameters()).device
    for batch in batches:
        on_device = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        if on_device.get("labels") is None:
            raise RunError(f"the batches hold no labels, only {', '.join(batch)}")
        with torch.no_grad():
            outputs = model(**{k: v for k, v in on_device.items() if accepted is None or k in accepted})
        own, found = _loss_and_logits(outputs)
        logits, targets = _aligned(found, on_device)
        yield BatchLoss(
            nats=[
                float(torch.nn.functional.cross_entropy(row.float(), target, ignore_index=_IGNORED, reduction="sum"))
                for row, target in zip(logits, targets, strict=True)  # float32 of a whole batch might not fit
            ],
            n_targets=(targets != _IGNORED).sum(dim=-1).tolist(),
            own_loss=float(own.detach().mean()) if own is not None else float("nan"),
            has_padding=bool(padding_of(on_device).any()),
        )


def token_loss(model: torch.nn.Module, loader: Any, args: TrainingArguments) -> TokenLoss:
    """The mean loss over all targets of an evaluation set, each row once; every process must call it.

    Raises:
        RunError: as `batch_losses`; another process failed; there are no targets; or the model's own loss differs by
            more than a tenth from the mean cross-entropy of its next tokens.
        Exception: whatever the model or the set raises in this process.
    """
    failed: Exception | None = None
    sums = [0.0] * 5
    try:
        sums = _sums(model, loader, args)
    except Exception as error:  # the others are told before it is raised, since they would wait for ever
        failed = error
    *sums, n_failed = _over_processes([*sums, float(failed is not None)], args)
    if failed is not None:
        raise failed
    if n_failed:
        raise RunError(f"it failed in {n_failed:.0f} of {args.world_size} processes")
    nats, own_nats, compared_nats, targets, padded = sums
    if not targets:
        raise RunError("the evaluation set holds no token to predict")
    if abs(own_nats - compared_nats) > _ALIGNED * compared_nats:
        raise RunError(
            f"the model's own loss is {own_nats / compared_nats:.2f} times the cross-entropy of its next tokens: are "
            "its labels shifted already, or is its loss another? OutsideRun takes a loss of your own"
        )
    return TokenLoss(nats_per_token=nats / targets, n_targets=int(targets), has_padding=padded > 0)


def _sums(model: torch.nn.Module, loader: Any, args: TrainingArguments) -> list[float]:
    """Of this process's batches: nats, nats by the model's own loss, nats beside those, targets, padded batches."""
    nats = own_nats = compared_nats = 0.0
    n_targets = n_padded = 0
    forward = torch.nn.DataParallel(model) if args.n_gpu > 1 else model
    for index, batch in enumerate(batch_losses(forward, loader)):
        kept = _rows_of_the_set(index, len(batch.nats), loader, args)
        nats += sum(batch.nats[:kept])
        n_targets += sum(batch.n_targets[:kept])
        n_padded += batch.has_padding
        if batch.own_loss == batch.own_loss:
            own_nats += batch.own_loss * sum(batch.n_targets)
            compared_nats += sum(batch.nats)
    return [nats, own_nats, compared_nats, n_targets, n_padded]


def _accepted(model: torch.nn.Module) -> frozenset[str] | None:
    """Names that the model takes, since batches may hold others; None where it takes everything."""
    inner: Any = model.module if isinstance(model, torch.nn.DataParallel) else model
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    named = frozenset(inspect.signature(type(inner).forward).parameters)
    if "input_ids" not in named:
        return None
    return named | frozenset(FlashAttentionKwargs.__annotations__)


def _loss_and_logits(outputs: Any) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Loss and logits of a model's output: one with names, a tuple, or bare logits.

    Raises:
        RunError: it has no logits.
    """
    if isinstance(outputs, Mapping):
        loss, logits = outputs.get("loss"), outputs.get("logits")
    else:
        tensors = [o for o in (outputs if isinstance(outputs, tuple) else (outputs,)) if isinstance(o, torch.Tensor)]
        loss = next((t for t in tensors if t.ndim == 0), None)
        logits = next((t for t in tensors if t.ndim == 3), None)
    if logits is None:
        raise RunError("the model returns no logits")
    return loss, logits


def _aligned(logits: torch.Tensor, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    if batch.get("shift_labels") is not None:
        return logits, batch["shift_labels"]
    labels = batch["labels"]
    logits = logits[:, -labels.shape[1] :]  # a learned prompt comes before the text
    return logits[:, :-1], labels[:, 1:]


def _rows_of_the_set(index: int, n_rows: int, loader: Any, args: TrainingArguments) -> int:
    """How many rows of a batch are no repeats: the last batches are filled up, so that every process has as many."""
    try:
        n_in_set = len(loader.dataset)
    except (TypeError, AttributeError):
        return n_rows
    if args.world_size == 1:
        return n_rows
    first = (index * args.world_size + args.process_index) * args.eval_batch_size
    return min(n_rows, max(0, n_in_set - first))


def _over_processes(sums: list[float], args: TrainingArguments) -> list[float]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return sums
    total = torch.tensor(sums, dtype=torch.float64, device=args.device)
    torch.distributed.all_reduce(total)
    return total.tolist()
