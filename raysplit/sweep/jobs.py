"""A sweep as a job of a Ray cluster, submitted from any machine that reaches its dashboard (Ray's job API)."""

import asyncio
import hashlib
import logging
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.job_submission import JobStatus, JobSubmissionClient

from raysplit import ray_private
from raysplit.errors import RunError, SpaceError
from raysplit.space import Space, dump_space, load_space

_RUN_FOLDER = "raysplit_run_folder"
"""Key of a job's metadata that holds the run folder it works on."""
_STOP_SECONDS = "60"
"""Seconds that Ray gives a job between SIGTERM and SIGKILL. Its default is 3; a sweep ends its lanes in 5 to 10."""
_LOOK_SECONDS = 1.0
_OUTPUT, _BESIDE = "\x1f", "\x1e"
"""Marks before each line of a command's output, and before each line of its error stream."""
_TELLS_APART = f"{{ {{ \"$@\" 2>&1 1>&3 3>&- | sed -u 's/^/{_BESIDE}/'; }} 3>&1 1>&4 | sed -u 's/^/{_OUTPUT}/'; }} 4>&1"
"""Shell code for a job, whose one log Ray writes into too: bash marks the lines of ``$@`` and keeps its exit status."""
_READY_SECONDS, _NOT_READY = 180.0, "No available agent"
_SPACE = "space.yaml"
_CARRIED, _CARRIED_BYTES = "RAYSPLIT_SPACE", 100_000
"""The job's environment variable that holds its search space, and the most bytes of it: Linux takes 128 KiB.

The space does not travel in Ray's `working_dir`, which would be the working folder of the job and its ranks. Ray 2.60
removes that folder and unpacks it anew when another raylet of the same machine first needs it, and oneMKL ends a
process whose folder is gone.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmittedRun:
    """What a job is to do."""

    space: Space | None
    """Its paths are the cluster's; None for the run folder's own."""
    run_folder: str
    options: tuple[str, ...] = ()
    """Further options of `raysplit run`."""

    @classmethod
    def of(cls, space_file: Path | None, run_folder: str, *, options: tuple[str, ...] = ()) -> "SubmittedRun":
        """Read and check the space here, before a cluster is asked; without one, go on with the run in the folder.

        Raises:
            SpaceError: as `raysplit.space.load_space`; or the space is too long for a job.
            RunError: the run folder is not an absolute path, so that it would be unclear where it lies.
        """
        if not run_folder.startswith("/"):
            raise RunError(f"{run_folder}: must be an absolute path on the cluster, such as /shared/runs/first")
        space = None if space_file is None else load_space(space_file)
        if space is not None and (n_bytes := len(dump_space(space).encode())) > _CARRIED_BYTES:
            raise SpaceError(
                f"{space_file}: {n_bytes:,} bytes with its defaults written out, where a job carries "
                f"{_CARRIED_BYTES:,}; put it at {run_folder}/{_SPACE} on the cluster, and "
                f"`raysplit resume {run_folder}` starts it there"
            )
        return cls(space=space, run_folder=run_folder.rstrip("/"), options=options)

    @property
    def entrypoint(self) -> str:
        """The job's command, for any shell; `raysplit` is found on the PATH that Ray was started with."""
        space = f"{self.run_folder}/{_SPACE}" if self.space is None else "/dev/stdin"
        words = ["raysplit", "run", space, "--out", self.run_folder, "--ray-address", "auto", *self.options]
        return shlex.join(words) if self.space is None else f"exec {shlex.join(words)} <<END\n${_CARRIED}\nEND\n"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the job."""
        carried = {} if self.space is None else {_CARRIED: dump_space(self.space)}
        return {"RAY_JOB_STOP_WAIT_TIME_S": _STOP_SECONDS, **carried}


class SubmittedJobs:
    """The jobs of one cluster that are sweeps."""

    def __init__(self, client: JobSubmissionClient) -> None:
        self._client = client

    @classmethod
    def at(cls, address: str | None) -> "SubmittedJobs":
        """Reach a cluster.

        Args:
            address: http://HOST:PORT of its dashboard; None for this node's own.

        Raises:
            RunError: nothing answers there.
        """
        try:
            client = JobSubmissionClient(address)
        except Exception as error:  # Ray raises many kinds
            why = " ".join(str(error).split())[:300]
            raise RunError(
                f"{address or 'this node'}: no Ray dashboard answers ({why}); give --address http://HEAD:8265, or "
                "reach it with `ssh -L 8265:localhost:8265 HEAD` or `ray dashboard CLUSTER.yaml`"
            ) from error
        logging.getLogger(ray_private.TELLS_OF_SOCKETS).setLevel(logging.WARNING)
        return cls(client)

    def running_in(self, run_folder: str) -> str | None:
        """Name of the job that works on a run folder now; None where there is none."""
        wanted = run_folder.rstrip("/")
        for job in self._client.list_jobs():
            if (job.metadata or {}).get(_RUN_FOLDER) == wanted and not job.status.is_terminal():
                return str(job.submission_id)
        return None

    def submit(self, run: SubmittedRun) -> str:
        """Submit a run; returns the job's name.

        Raises:
            RunError: the cluster takes no job.
        """
        name = hashlib.sha256(run.run_folder.encode()).hexdigest()[:8]
        return self._hand_in(
            entrypoint=run.entrypoint,
            submission_id=f"raysplit-{name}-{time.strftime('%Y%m%d-%H%M%S')}",
            metadata={_RUN_FOLDER: run.run_folder},
            runtime_env={"env_vars": run.environment},
        )

    def _hand_in(self, **job: Any) -> str:
        """Submit once the cluster takes jobs: a head that has just come up answers before its agent does."""
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                return str(self._client.submit_job(**job))
            except RuntimeError as error:
                if _NOT_READY not in str(error) or time.monotonic() > deadline:
                    why = " ".join(str(error).split())[:300]
                    raise RunError(
                        f"the cluster takes no job: {why}; `ray status` there shows whether its head is a node itself"
                    ) from error
            time.sleep(_LOOK_SECONDS)

    def follow(self, job: str, *, tell: Callable[[str], Any]) -> bool:
        """Pass on the job's output until it ends; returns whether it succeeded."""

        async def pass_on() -> None:
            async for text in self._client.tail_job_logs(job):
                tell(text)

        asyncio.run(pass_on())
        return bool(self._client.get_job_status(job) == JobStatus.SUCCEEDED)

    def ask(self, words: Sequence[str], *, tell: Callable[[str], Any], tell_beside: Callable[[str], Any]) -> int:
        """Run a command of raysplit on the cluster, where the run folder is; ``words`` are those after ``raysplit``.

        Each line of its output goes to ``tell``, each of its error stream to ``tell_beside``. Returns its exit status.

        Raises:
            RunError: the cluster takes no job, or the command could not be run there.
        """
        job = self._hand_in(
            entrypoint=shlex.join(["bash", "-o", "pipefail", "-c", _TELLS_APART, "-", "raysplit", *words]),
            entrypoint_num_cpus=0,
        )
        partial = ""

        def pass_on(text: str) -> None:
            nonlocal partial
            *lines, partial = (partial + text).split("\n")
            for line in lines:
                if line.startswith(_OUTPUT):
                    tell(line.removeprefix(_OUTPUT))
                elif line.startswith(_BESIDE):
                    tell_beside(line.removeprefix(_BESIDE))

        try:
            self.follow(job, tell=pass_on)
            if partial:  # its last line, without an end
                pass_on("\n")
            info = self._client.get_job_info(job)
            if info.driver_exit_code is None:
                raise RunError(f"{' '.join(words)}: could not be asked there: {' '.join((info.message or '').split())}")
            return int(info.driver_exit_code)
        finally:  # Ctrl-C ends what asks there too
            try:
                self.stop(job)
                self._client.delete_job(job)
            except RunError as error:  # Ray deletes no job that still runs, and the answer is there all the same
                tell_beside(str(error))

    def stop(self, job: str) -> str:
        """End a job in order; returns its last status.

        Raises:
            RunError: it has not ended in time.
        """
        self._client.stop_job(job)
        deadline = time.monotonic() + float(_STOP_SECONDS) + 10
        while not (status := self._client.get_job_status(job)).is_terminal():
            if time.monotonic() > deadline:
                raise RunError(f"job {job}: has not ended within {_STOP_SECONDS} s; `ray job stop {job}` asks again")
            time.sleep(_LOOK_SECONDS)
        return str(status.value)
