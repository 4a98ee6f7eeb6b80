"""The backend that trains: lanes on Ray, which are opened for tasks that wait and closed when none does.

A Ray Train run for each trial costs 15-50 s of start-up on two cores; a task in a warm lane starts in 0.2 s (LOG
2026-11-23).
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.actor import ActorHandle
from rich.console import Console

from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.tasks import Outcome, Task
from raysplit.errors import LaneError, RunError
from raysplit.lanes.broker import lane_error, start_broker
from raysplit.lanes.cluster import from_raylets
from raysplit.lanes.display import Display
from raysplit.lanes.lane_jobs import RayLaneJobs
from raysplit.pool.lane_pool import NO_MACHINES_SECONDS, no_room
from raysplit.pool.placement import Footprint, on_these
from raysplit.run_folder.folder import RunFolder
from raysplit.space import Space
from raysplit.train.checkpoints import mark_shared

_LOOK_SECONDS = 1.0
_CLOSE_SECONDS = 30.0


class Lanes:
    """The lanes of one command, as a `raysplit.sweep.backend.Backend`; a pickled copy stands for the same lanes."""

    def __init__(
        self,
        space: Space,
        *,
        run_folder: Path,
        corpus_folder: Path,
        law: ActorHandle | None,
        wait_seconds: float = 0.0,
    ) -> None:
        """Be ready to open lanes; the first task of a lane waits about 15 s for it to start.

        Args:
            space: the resolved search space.
            run_folder: where checkpoints go; on storage that every node shares.
            corpus_folder: of the built corpus, likewise.
            law: the law actor that records outcomes; None where they are not recorded.
            wait_seconds: how long to wait for machines, where the cluster has too few for the smallest lane.

        Raises:
            RunError: the cluster still has too few after that.
            StorageError: the storage for checkpoints cannot be written.
        """
        mark_shared(RunFolder(path=run_folder).checkpoints_at(space.compute.storage))
        jobs = RayLaneJobs(space=space, folder=RunFolder(path=run_folder), corpus_folder=corpus_folder, law=law)
        wait_for_room(space, jobs, wait_seconds=wait_seconds)
        self.broker: ActorHandle = start_broker(
            jobs, law=law, n_lanes=space.compute.lanes, stall_seconds=space.compute.stall_seconds,
            no_machines_seconds=max(NO_MACHINES_SECONDS, wait_seconds),
        )  # fmt: skip
        self._n_blocked, self._blocked_at = 0, 0.0

    def submit(self, task: Task) -> Future[Outcome]:
        """As `raysplit.sweep.backend.Backend.submit`, from any process on the cluster."""
        told: Future[Outcome] = Future()

        def tell(answer: Future[Outcome]) -> None:
            try:
                told.set_result(answer.result())
            except Exception as error:
                told.set_exception(lane_error(error))

        self.broker.run.remote(task).future().add_done_callback(tell)
        return told

    def n_blocked(self) -> int:
        """As `raysplit.sweep.backend.Backend.n_blocked`, at most a second old."""
        if (now := time.monotonic()) - self._blocked_at >= _LOOK_SECONDS:
            with contextlib.suppress(ray.exceptions.RayError):  # a broker that died is heard of elsewhere
                self._n_blocked = ray.get(self.broker.n_blocked.remote())
            self._blocked_at = now
        return self._n_blocked

    def close(self) -> None:
        """End the lanes: idle ones end by themselves; those that train, as after Ctrl-C, are killed."""
        with contextlib.suppress(ray.exceptions.RayError):  # a broker that died has taken its lanes with it
            ray.get(self.broker.close.remote(), timeout=_CLOSE_SECONDS)
        ray.kill(self.broker)


def smallest_footprint(space: Space) -> Footprint:
    """The smallest footprint of all sizes' lanes: by GPUs, then CPUs, then nodes."""
    footprints = (Footprint.of(lane_shape_of(space, n_params)) for n_params in space.model.sizes)
    return min(
        footprints, key=lambda footprint: (footprint.in_all.get("GPU", 0.0), footprint.in_all["CPU"], footprint.n_nodes)
    )


def wait_for_room(space: Space, jobs: RayLaneJobs, *, wait_seconds: float) -> None:
    """Wait until the cluster can hold the smallest lane; it may grow for larger ones later.

    Raises:
        RunError: it still cannot after ``wait_seconds``.
    """
    footprint, started = smallest_footprint(space), time.monotonic()
    try:
        while True:
            nodes = [node for node in jobs.nodes() if not node.leaves]
            if on_these(footprint, (node.total for node in nodes)) is not None:
                return
            if time.monotonic() - started >= wait_seconds:
                raise RunError(no_room(footprint, nodes, wait_seconds))
            jobs.want([footprint])
            time.sleep(_LOOK_SECONDS)
    finally:
        jobs.want(())


@contextmanager
def running_lanes(
    space: Space,
    folder: RunFolder,
    *,
    law: ActorHandle | None,
    console: Console,
    title: str,
    wait_seconds: float = 0.0,
) -> Iterator[Lanes]:
    """The lanes of a command for the length of a ``with`` block, and a table of what they do.

    Args:
        space: the resolved search space.
        folder: of the run, with its corpus built.
        law: as for `Lanes`.
        console: where progress is printed.
        title: of the table.
        wait_seconds: as for `Lanes`.

    Raises:
        RunError: the cluster has no room for the smallest lane.
        StorageError: the storage for checkpoints cannot be written.
        LaneError: machines failed more often than is allowed.
    """
    _log_to(folder.path / "ray" / "driver.log")
    lanes = Lanes(space, run_folder=folder.path, corpus_folder=folder.corpus, law=law, wait_seconds=wait_seconds)
    try:
        console.print(f"up to {space.compute.lanes} lanes of DeepSpeed workers, started as trials come for them")
        with Display(console, law=law, broker=lanes.broker, title=title):
            yield lanes
    except LaneError as error:
        raise LaneError(f"{error}; what was done is kept, and the same command continues") from error
    finally:
        lanes.close()


def _log_to(path: Path) -> None:
    """Send Ray's log of this process to a file; what a user must know is told in messages of raysplit's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    for logger in (logging.getLogger("ray"), from_raylets):
        for before in [known for known in logger.handlers if isinstance(known, logging.FileHandler)]:
            logger.removeHandler(before)
            before.close()
        logger.addHandler(handler)
        logger.propagate = False
