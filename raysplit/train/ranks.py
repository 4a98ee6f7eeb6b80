"""What the ranks of a lane tell each other, beside tensors: one looks or decides for all, or each says its own."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.distributed as dist

from raysplit.errors import RaysplitError

Found = TypeVar("Found")


def is_first() -> bool:
    return dist.get_rank() == 0


def agree(look: Callable[[], Found]) -> Found:
    """What the first rank finds, on every rank.

    Raises:
        RaysplitError: what the first rank's look has raised, on every rank.
    """
    told: list[Any] = [None]
    if is_first():
        try:
            told = [look()]
        except RaysplitError as error:
            told = [error]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(told, src=0)
    if isinstance(told[0], RaysplitError):
        raise told[0]
    return told[0]


def gathered(mine: Found) -> Sequence[Found]:
    """What each rank has to say, by rank."""
    if dist.get_world_size() == 1:
        return [mine]
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, mine)
    return every
