"""Padding in the batches of a user's loader, and how to look at them without changing the training."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_LOOKS = 4
"""How many batches of the training set are looked at."""


def padding_of(batch: Mapping[str, Any]) -> torch.Tensor:
    """Where a batch has padding, a mask of the shape of its ``input_ids``.

    Padding is what the attention mask leaves out. Without a mask it is the end of a row, if that repeats one token that
    is no target.
    """
    ids = batch["input_ids"]
    mask = batch.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.shape == ids.shape:
        return mask == 0
    labels = batch.get("labels")
    if not isinstance(labels, torch.Tensor) or labels.shape != ids.shape:
        return torch.zeros_like(ids, dtype=torch.bool)
    to_the_end = (labels == -100) & (ids == ids[..., -1:])
    tail = to_the_end.flip(-1).cumprod(dim=-1).flip(-1).bool()
    return tail & (tail.sum(dim=-1, keepdim=True) > 1)  # a single one may well be text


@dataclass(frozen=True, kw_only=True, slots=True)
class Padded:
    """What a few batches of a training set show of padding."""

    share: float
    """Share of their places that are padding."""
    is_masked: bool
    """Whether every batch has an attention mask."""


def look_for_padding(loader: Any, *, batch_size: int) -> Padded | None:
    """Look for padding in a few batches from all over a training set; None where none can be read ahead.

    Nothing is read from a stream: its text would be lost to the training.
    """
    try:
        dataset, collate = loader.dataset, loader.collate_fn
        n_rows = len(dataset)
        starts = {max(0, (n_rows - batch_size) * look // (_LOOKS - 1)) for look in range(_LOOKS)}
        with untouched_randomness():
            batches = [collate([dataset[i] for i in range(s, min(s + batch_size, n_rows))]) for s in sorted(starts)]
        found = [padding_of(batch) for batch in batches]
        return Padded(
            share=sum(int(f.sum()) for f in found) / sum(f.numel() for f in found),
            is_masked=all("attention_mask" in batch for batch in batches),
        )
    except Exception:  # a data set may be anything, and the training is what matters
        return None


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Restore the random states of Python, numpy and torch's CPU at the end: loaders and collators draw from them."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is what others use
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
