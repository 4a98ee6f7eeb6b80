"""Messages between the ranks of a lane, beside tensors: one rank looks or decides for all, or each tells the others."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.distributed as dist

from raysplit.errors import RaysplitError

Found = TypeVar("Found")


def is_first() -> bool:
    return dist.get_rank() == 0


def agree(look: Callable[[], Found]) -> Found:
    """The first rank looks; every rank gets what it found.

    Raises:
        RaysplitError: on every rank, where the first rank's look has raised it.
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
    """Every rank's value, in the order of ranks; on every rank."""
    if dist.get_world_size() == 1:
        return [mine]
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, mine)
    return every
