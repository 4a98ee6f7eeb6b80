"""Somebody's batches: which of their places are filled up and no text, and how to look without leaving a trace."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_LOOKS = 4
"""Batches of the training set that are looked at."""


def padding_of(batch: Mapping[str, Any]) -> torch.Tensor:
    """True where there is padding: outside of the attention mask; without one, where a row ends in one token over and
    over that is no target.
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
    """What a few batches of a training set show."""

    share: float
    """Of their places, that are padding."""
    is_masked: bool
    """Whether an attention mask says which."""


def look_for_padding(loader: Any, *, batch_size: int) -> Padded | None:
    """What a few batches from all over a training set show; None where none can be read ahead.

    Nothing is taken from a stream, whose text would be lost to the training.
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
    """Put back the generators of Python, numpy and torch's CPU, from which loaders and collators draw."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is what others use
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
