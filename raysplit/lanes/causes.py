"""The cause of a lane's end, in a line: the last exception of a worker, taken out of Ray's wrappings."""

import re
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import ray

from raysplit.errors import RaysplitError
from raysplit.ray_private import WRAPPINGS

_MOST_LETTERS = 400
_KILLED = (
    (r"running low on memory|OutOfMemoryError", "Ray's memory monitor killed it: its node was short of memory"),
    (r"SIGKILL|connection error code 2", "it was killed from outside, or crashed; most often for want of memory"),
    (r"node .*(died|dead|terminated)|NodeDiedError|preempt", "its node is gone"),
)


def cause_of(error: BaseException) -> str:
    """Type and message of an exception in a line, without its wrappings."""
    error = innermost(error)
    said = " ".join(str(error).split())
    if was_killed(error):
        said = next((word for pattern, word in _KILLED if re.search(pattern, said)), said)
        return f"its process has died: {_shortened(said)}"
    return _shortened(f"{type(error).__name__}: {said}" if said else type(error).__name__)


def own_error(error: BaseException) -> RaysplitError | None:
    """The raysplit error that another process raised, without that process's traceback in its text; None for others."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
    return cause if isinstance(cause, RaysplitError) else None


def write_traceback(error: BaseException, log: Path, *, rank: int) -> str:
    """Append an exception to a lane's log; returns its cause, with where to read the rest."""
    lines = (time.strftime("%Y-%m-%d %H:%M:%S"), f" rank {rank}\n", *traceback.format_exception(error), "\n")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
    except OSError as trouble:  # a full disk, which may be the very cause
        return f"{cause_of(error)} (rank {rank}; {log} cannot be written: {trouble.strerror})"
    return f"{cause_of(error)} (rank {rank}; {log})"


def first_of(failures: Mapping[int, Exception]) -> tuple[int, Exception]:
    """The failure that caused the others: of a rank that was killed, if there is one, else of the lowest rank."""
    return min(failures.items(), key=lambda failure: (not was_killed(failure[1]), failure[0]))


def was_killed(error: BaseException) -> bool:
    return isinstance(innermost(error), ray.exceptions.RayActorError)


def innermost(error: BaseException) -> BaseException:
    """The exception inside Ray's wrappings."""
    if failures := getattr(error, "worker_failures", None):
        return innermost(first_of(failures)[1])
    for name in WRAPPINGS:
        if isinstance(inner := getattr(error, name, None), BaseException):
            return innermost(inner)
    return error


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} ..."
