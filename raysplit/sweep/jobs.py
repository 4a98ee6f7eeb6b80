"""A sweep as a job of a Ray cluster, handed in from any machine that reaches its dashboard (Ray's job API)."""

import asyncio
import hashlib
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.job_submission import JobStatus, JobSubmissionClient

from raysplit.errors import RunError
from raysplit.space import Space, dump_space, load_space

_RUN_FOLDER = "raysplit_run_folder"
"""Under which a job's metadata say what it works on."""
_STOP_SECONDS = "60"
"""That Ray gives a job between SIGTERM and SIGKILL; by itself it is 3, and a sweep ends its lanes in 5 to 10."""
_LOOK_SECONDS = 1.0
_SPACE = "space.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmittedRun:
    """What a job is to do."""

    space: Space
    """Its paths are the cluster's."""
    run_folder: str
    options: tuple[str, ...] = ()
    """Further ones of `raysplit run`."""

    @classmethod
    def of(cls, space_file: Path, run_folder: str, *, options: tuple[str, ...] = ()) -> "SubmittedRun":
        """Read and check the space here, before a cluster is asked.

        Raises:
            SpaceError: as `raysplit.space.load_space`.
            RunError: the run folder is no absolute path, which would lie in the job's own folder and end with it.
        """
        if not run_folder.startswith("/"):
            raise RunError(f"--out {run_folder}: must be an absolute path on the cluster, such as /shared/runs/first")
        return cls(space=load_space(space_file), run_folder=run_folder.rstrip("/"), options=options)

    @property
    def entrypoint(self) -> str:
        """The job's command; `raysplit` is found on the PATH that Ray was started with."""
        return shlex.join(["raysplit", "run", _SPACE, "--out", self.run_folder, "--ray-address", "auto", *self.options])


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
        return cls(client)

    def running_in(self, run_folder: str) -> str | None:
        """The job that works on a run folder now."""
        wanted = run_folder.rstrip("/")
        for job in self._client.list_jobs():
            if (job.metadata or {}).get(_RUN_FOLDER) == wanted and not job.status.is_terminal():
                return str(job.submission_id)
        return None

    def submit(self, run: SubmittedRun) -> str:
        """Hand it in; returns the job's name."""
        folder = Path(tempfile.mkdtemp(prefix="raysplit-submit-"))
        try:
            (folder / _SPACE).write_text(dump_space(run.space), encoding="utf-8")
            name = hashlib.sha256(run.run_folder.encode()).hexdigest()[:8]
            job: str = self._client.submit_job(
                entrypoint=run.entrypoint,
                submission_id=f"raysplit-{name}-{time.strftime('%Y%m%d-%H%M%S')}",
                metadata={_RUN_FOLDER: run.run_folder},
                runtime_env={"working_dir": str(folder), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": _STOP_SECONDS}},
            )
        finally:
            shutil.rmtree(folder)
        return job

    def follow(self, job: str, *, tell: Callable[[str], Any]) -> bool:
        """Pass on the job's output until it ends; whether it ended well."""

        async def pass_on() -> None:
            async for text in self._client.tail_job_logs(job):
                tell(text)

        asyncio.run(pass_on())
        return bool(self._client.get_job_status(job) == JobStatus.SUCCEEDED)

    def stop(self, job: str) -> str:
        """End a job in order; returns how it ended."""
        self._client.stop_job(job)
        deadline = time.monotonic() + float(_STOP_SECONDS) + 10
        while not (status := self._client.get_job_status(job)).is_terminal():
            if time.monotonic() > deadline:
                raise RunError(f"job {job}: has not ended within {_STOP_SECONDS} s; `ray job stop {job}` asks again")
            time.sleep(_LOOK_SECONDS)
        return str(status.value)
