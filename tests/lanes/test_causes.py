"""What ended a lane, out of whatever Ray has wrapped it in."""

from pathlib import Path

import pytest
from ray.exceptions import RayActorError, RayTaskError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError

from raysplit.lanes.causes import cause_of, write_traceback

ERROR = AssertionError("LOCAL_RANK (1) != OMPI_COMM_WORLD_LOCAL_RANK (0),\n  not sure how to proceed")
CAUSE = "AssertionError: LOCAL_RANK (1) != OMPI_COMM_WORLD_LOCAL_RANK (0), not sure how to proceed"
RAY_SAYS = (
    "The actor died unexpectedly before finishing this task. Worker unexpectedly exits with a connection error code 2. "
    "End of file. Some common causes include: (1) the process was killed by SIGKILL by OOM killer due to high memory "
    "usage. (2) ray stop --force is called. (3) the worker is crashed unexpectedly due to SIGSEGV."
)
KILLED = WorkerHealthCheckFailedError("A worker health check failed.", RayActorError(None, RAY_SAYS))
SHORT = "Task was killed due to the node running low on memory."


@pytest.mark.parametrize(
    "wrapped",
    [
        ERROR,
        UserExceptionWithTraceback(ERROR, "Traceback ..."),
        ControllerError(ERROR),
        WorkerGroupError("Rank 1 ...", {1: UserExceptionWithTraceback(ERROR, "Traceback ...")}),
        RayTaskError("run", "Traceback ...", WorkerGroupError("...", {1: ERROR})),
    ],
)
def test_the_innermost_exception_is_the_cause(wrapped: Exception) -> None:
    assert cause_of(wrapped) == CAUSE


@pytest.mark.parametrize(
    "wrapped", [KILLED, WorkerGroupError("...", {0: ConnectionError("closed by peer"), 1: KILLED})]
)
def test_a_killed_worker_is_told_as_such(wrapped: Exception) -> None:
    killed = "its process has died: it was killed from outside, or crashed; most often for want of memory"
    assert cause_of(wrapped) == killed


def test_rays_memory_monitor_is_named() -> None:
    assert "Ray's memory monitor killed it" in cause_of(RayActorError(None, SHORT))


def test_a_long_message_is_cut_and_an_empty_one_is_its_type() -> None:
    assert len(cause_of(ValueError("x" * 10_000))) < 500
    assert cause_of(KeyError()) == "KeyError"


def test_the_traceback_is_kept_and_named(tmp_path: Path) -> None:
    log = tmp_path / "ray" / "lane-0.log"
    for rank in (1, 0):
        assert write_traceback(ERROR, log, rank=rank) == f"{CAUSE} (rank {rank}; {log})"
    assert log.read_text().count("AssertionError: LOCAL_RANK") == 2


def test_a_log_that_cannot_be_written_hides_no_cause(tmp_path: Path) -> None:
    (tmp_path / "ray").touch()
    log = tmp_path / "ray" / "lane-0.log"
    assert write_traceback(ERROR, log, rank=0) == f"{CAUSE} (rank 0; {log} cannot be written: File exists)"
