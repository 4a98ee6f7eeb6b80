"""What ended a lane, in a line: the last exception of a worker, from wherever in Ray's wrappings it lies."""

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
    """An exception's type and message in a line, its wrappings taken off."""
    error = innermost(error)
    said = " ".join(str(error).split())
    if was_killed(error):
        said = next((word for pattern, word in _KILLED if re.search(pattern, said)), said)
        return f"its process has died: {_shortened(said)}"
    return _shortened(f"{type(error).__name__}: {said}" if said else type(error).__name__)


def own_error(error: BaseException) -> RaysplitError | None:
    """An error of ours as it was raised in another process, without that one's traceback in its text; else None."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
    return cause if isinstance(cause, RaysplitError) else None


def write_traceback(error: BaseException, log: Path, *, rank: int) -> str:
    """Add an exception to a lane's log; its cause, with where to read the rest."""
    lines = (time.strftime("%Y-%m-%d %H:%M:%S"), f" rank {rank}\n", *traceback.format_exception(error), "\n")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
    except OSError as trouble:  # a full disk, which may be the very cause
        return f"{cause_of(error)} (rank {rank}; {log} cannot be written: {trouble.strerror})"
    return f"{cause_of(error)} (rank {rank}; {log})"


def first_of(failures: Mapping[int, Exception]) -> tuple[int, Exception]:
    """The rank that failed first: one that was killed, since the others then fail for want of it, or any."""
    return min(failures.items(), key=lambda failure: (not was_killed(failure[1]), failure[0]))


def was_killed(error: BaseException) -> bool:
    return isinstance(innermost(error), ray.exceptions.RayActorError)


def innermost(error: BaseException) -> BaseException:
    """What Ray's wrappings are about."""
    if failures := getattr(error, "worker_failures", None):
        return innermost(first_of(failures)[1])
    for name in WRAPPINGS:
        if isinstance(inner := getattr(error, name, None), BaseException):
            return innermost(inner)
    return error


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} ..."
