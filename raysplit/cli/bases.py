"""A space's checkpoints, looked at before a command begins."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raysplit.space import Space


def with_counted_bases(space: "Space") -> "Space":
    """The space with its checkpoints checked and counted, where it has some; torch is loaded for these alone.

    Raises:
        SpaceError: as `raysplit.train.bases.with_bases`.
    """
    if not space.model.checkpoints:
        return space
    from raysplit.train.bases import with_bases

    return with_bases(space)
