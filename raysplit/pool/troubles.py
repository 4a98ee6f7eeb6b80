"""Troubles: what ended a lane or a task without an outcome. The kind decides whether the task is tried again."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from raysplit.errors import CheckpointError, RaysplitError, RunError, SpaceError, StorageError


class Kind(Enum):
    """Whose fault it was."""

    MACHINE = "machine"
    """A node, a process or the network between ranks: another lane may well carry the task out."""
    STORAGE = "storage"
    """Storage that is missing, full or read-only: tried again for as long as people take to mend it."""
    CODE = "code"
    """An exception of a rank's own, which is likely to come again."""
    SET_UP = "set-up"
    """What the user asked for cannot be done, so it would fail again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """What ended a lane, or kept it from starting."""

    kind: Kind
    cause: str
    """The cause in a line, with where to read more."""


_MACHINE = re.compile(
    r"nccl|gloo|connection (reset|closed|refused)|closed by peer|broken pipe|socket|time(d )?out|DistNetworkError|"
    r"cuda error: (unspecified launch failure|uncorrectable|device.*(lost|unavailable))",
    re.IGNORECASE,
)
_NO_MEMORY = re.compile(r"out of memory", re.IGNORECASE)
_MISTAKES = (SpaceError, RunError, CheckpointError)


def kind_of(error: BaseException) -> Kind:
    """The kind of a rank's exception."""
    said = f"{type(error).__name__}: {error}"
    if any(isinstance(each, StorageError | OSError) for each in _chain(error)):
        return Kind.MACHINE if _MACHINE.search(said) else Kind.STORAGE
    if isinstance(error, _MISTAKES) or _NO_MEMORY.search(said):
        return Kind.SET_UP
    return Kind.MACHINE if _MACHINE.search(said) else Kind.CODE


def remedy(kind: Kind, cause: str) -> str:
    """A cause with what would mend it, where the cause does not say that itself."""
    if kind is Kind.SET_UP and _NO_MEMORY.search(cause):
        return (
            f"{cause}; the size does not fit into the memory of its lane: give it a shape in compute.shapes with more "
            "workers, a higher zero_stage, fewer micro_batch_sequences or activation_checkpointing"
        )
    if "OMPI_" in cause or "mpi4py" in cause:
        return (
            f"{cause}; another launcher's variables are in the environment of Ray's nodes: unset them where Ray starts"
        )
    return cause


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what caused it, down to the first error of raysplit's own, whose type already says its kind."""
    while error is not None:
        yield error
        error = None if isinstance(error, RaysplitError) else error.__cause__
