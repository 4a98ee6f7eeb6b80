"""Work in several processes, with results in the order of the tasks."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_WORTH_BYTES = 16 << 20
"""Bytes of text for which another process pays, since it starts in about two seconds."""
_IDLE_SECONDS = 10
_LOOK_SECONDS = 0.2


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def enough_processes(n_bytes: int, *, at_most: int) -> int:
    """How many processes are worth their start for so much text."""
    return max(1, min(at_most, n_bytes // _WORTH_BYTES))


def in_parallel(work: Callable[[T], R], tasks: Iterable[T], *, n_processes: int) -> Iterator[R]:
    """What ``work`` gives for each task, in the order of the tasks.

    Tasks are taken as they are needed, a few ahead. With ``n_processes`` 1 this process does the work. More are
    joblib's, which neither fork, nor import the caller's script, nor outlive this process. An error in one of them is
    raised here.
    """
    if n_processes == 1:
        yield from map(work, tasks)
        return
    from joblib import Parallel, delayed

    workers = Parallel(
        n_jobs=n_processes,
        backend="loky",
        return_as="generator",
        pre_dispatch=2 * n_processes,
        batch_size=1,
        max_nbytes=None,
        idle_worker_timeout=_IDLE_SECONDS,
    )
    with _tracked_in_silence():
        outcomes = workers(delayed(_in_worker)(work, task) for task in tasks)
    yield from outcomes


@contextmanager
def _tracked_in_silence() -> Iterator[None]:
    """Processes that joblib starts here do not warn of what they clear away after a command has ended.

    A command ends without Python's own clearing up (`raysplit.cli.main.run`), so joblib's tracker does it, and warns.
    """
    before = os.environ.get("PYTHONWARNINGS")
    silence = "ignore::UserWarning:joblib.externals.loky.backend.resource_tracker"
    os.environ["PYTHONWARNINGS"] = f"{before},{silence}" if before else silence
    try:
        yield
    finally:
        os.environ.pop("PYTHONWARNINGS")
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


def _in_worker(work: Callable[[T], R], task: T) -> R:
    _begin_worker()
    return work(task)


@cache
def _begin_worker() -> None:
    """A worker has one core: libraries that would take all of them are told before they start."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this worker when its parent is gone, so that a killed build writes no more."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)
