"""What ended a lane, in a line: the last exception of a worker, from wherever in Ray's wrappings it lies."""

import re
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.train import UserCallback

_MOST_LETTERS = 400
_WRAPPINGS = ("cause", "_base_exc", "controller_failure", "health_check_failure")
"""Attributes by which Ray's exceptions lead to the one that they are about."""
_KILLED = (
    (r"running low on memory|OutOfMemoryError", "Ray's memory monitor killed it: its node was short of memory"),
    (r"SIGKILL|connection error code 2", "it was killed from outside, or crashed; most often for want of memory"),
    (r"node .*(died|dead|terminated)|NodeDiedError|preempt", "its node is gone"),
)


def cause_of(error: BaseException) -> str:
    """An exception's type and message in a line, its wrappings taken off."""
    error = _innermost(error)
    said = " ".join(str(error).split())
    if _was_killed(error):
        said = next((word for pattern, word in _KILLED if re.search(pattern, said)), said)
        return f"its process has died: {_shortened(said)}"
    return _shortened(f"{type(error).__name__}: {said}" if said else type(error).__name__)


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


class TellBroker(UserCallback):
    """Runs in a lane's controller, which alone sees that a worker has died without a word."""

    def __init__(self, broker: Any, lane: int) -> None:
        self._broker, self._lane = broker, lane

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        rank, error = first_of(worker_exceptions)
        how = f"{cause_of(error)} (rank {rank})"
        ray.get(self._broker.died.remote(self._lane, how, without_a_word=_was_killed(error)))


def first_of(failures: Mapping[int, Exception]) -> tuple[int, Exception]:
    """The rank that failed first: one that was killed, since the others then fail for want of it, or any."""
    return min(failures.items(), key=lambda failure: (not _was_killed(failure[1]), failure[0]))


def _was_killed(error: BaseException) -> bool:
    return isinstance(_innermost(error), ray.exceptions.RayActorError)


def _innermost(error: BaseException) -> BaseException:
    if failures := getattr(error, "worker_failures", None):
        return _innermost(first_of(failures)[1])
    for name in _WRAPPINGS:
        if isinstance(inner := getattr(error, name, None), BaseException):
            return _innermost(inner)
    return error


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} ..."
