"""Ranks of their own processes, forked from one that has imported all that training needs."""

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.train.preloaded"])


class Ranks:
    """Processes that carry out ``job(folder, *args)`` together; the first rank's answer is read back."""

    def __init__(self, job: Callable[..., Any], folder: Path, *args: Any, n_ranks: int = 1) -> None:
        self._answer = folder / f"{uuid4().hex}.answer"
        meeting = folder / f"{uuid4().hex}.meeting"
        self.processes = [
            CONTEXT.Process(target=_rank, args=(rank, n_ranks, meeting, self._answer, job, folder, args), daemon=True)
            for rank in range(n_ranks)
        ]
        for process in self.processes:
            process.start()

    def answer(self) -> Any:
        """Wait for it."""
        for process in self.processes:
            process.join()
            assert process.exitcode == 0
        return pickle.loads(self._answer.read_bytes())

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()


def wait_for(condition: Callable[[], bool], *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def _rank(
    rank: int, n_ranks: int, meeting: Path, answer: Path, job: Callable[..., Any], folder: Path, args: tuple[Any, ...]
) -> None:
    import torch.distributed as dist

    from raysplit.machines import ComputeSpec
    from raysplit.train.runtime import prepare_worker

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(n_ranks))
    prepare_worker(ComputeSpec())
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=n_ranks)
    found = job(folder, *args)
    if rank == 0:
        answer.write_bytes(pickle.dumps(found))
    if n_ranks > 1:
        dist.barrier()
    os._exit(0)
