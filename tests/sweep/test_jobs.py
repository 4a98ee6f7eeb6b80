"""What is handed to a cluster as a job: a command that its shell runs there, and what travels with it."""

import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from ray.job_submission import JobStatus

from raysplit.errors import RunError, SpaceError
from raysplit.space import load_space
from raysplit.sweep import jobs
from raysplit.sweep.jobs import SubmittedJobs, SubmittedRun
from tests.conftest import REPOSITORY

SPACE = REPOSITORY / "search_spaces" / "quickstart.yaml"


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("is_resumed", [False, True])
def test_the_job_runs_the_space_that_was_given(tmp_path: Path, is_resumed: bool, shell: str) -> None:
    folder = tmp_path / "a run's folder"
    (tmp_path / "raysplit").write_text('#!/bin/bash\nprintf "%s\\n" "$@" > "$SAID"; cat "$2" > "$SAID.yaml"\n')
    (tmp_path / "raysplit").chmod(0o755)
    if is_resumed:
        folder.mkdir()
        (folder / "space.yaml").write_text(SPACE.read_text())
        run = SubmittedRun.of(None, str(folder), options=("--yes",))
    else:
        run = SubmittedRun.of(SPACE, f"{folder}/", options=("--yes",))
    said = tmp_path / "said"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [shell, "-c", run.entrypoint], env={**os.environ, **run.environment, "PATH": path, "SAID": str(said)},
        check=True,
    )  # fmt: skip
    words = said.read_text().splitlines()
    assert (words[0], words[2:]) == ("run", ["--out", str(folder), "--ray-address", "auto", "--yes"])
    assert load_space(said.with_suffix(".yaml")).domains == load_space(SPACE).domains


def test_a_space_is_read_from_a_pipe() -> None:
    with SPACE.open("rb") as file, subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        assert load_space(f"/dev/fd/{cat.stdout.fileno()}").domains == load_space(SPACE).domains


def test_a_space_that_no_job_carries_is_refused(tmp_path: Path) -> None:
    raw = yaml.safe_load(SPACE.read_text())
    raw["corpus"]["domains"] = {f"d{i}": {"kind": "files", "path": f"/shared/{'x' * 900}"} for i in range(100)}
    long = tmp_path / "long.yaml"
    long.write_text(yaml.safe_dump(raw))
    with pytest.raises(
        SpaceError, match=r"long.yaml: 1\d\d,\d{3} bytes .* a job carries 100,000; put it at /shared/a/"
    ):
        SubmittedRun.of(long, "/shared/a")


class Cluster:
    """Stands for Ray's client: a job that says ``log``, ends with status 3, and can hardly be stopped."""

    def __init__(self, log: Sequence[str], *, is_terminal: bool) -> None:
        self._log = log
        self._status = JobStatus.SUCCEEDED if is_terminal else JobStatus.RUNNING
        self.deleted: list[str] = []

    def submit_job(self, **job: Any) -> str:
        return "job"

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for text in self._log:
            yield text

    def get_job_status(self, job: str) -> JobStatus:
        return self._status

    def get_job_info(self, job: str) -> SimpleNamespace:
        return SimpleNamespace(driver_exit_code=3)

    def stop_job(self, job: str) -> bool:
        return True

    def delete_job(self, job: str) -> None:
        self.deleted.append(job)


def asked_of(cluster: Cluster) -> tuple[int, list[str], list[str]]:
    """Exit status, lines and lines beside them of what is asked there."""
    out: list[str] = []
    beside: list[str] = []
    status = SubmittedJobs(cast(Any, cluster)).ask(["status"], tell=out.append, tell_beside=beside.append)
    return status, out, beside


def test_a_last_line_without_an_end_is_passed_on() -> None:
    cluster = Cluster(["\x1fone\nRay's own\n\x1et", "wo\n\x1fthr", "ee"], is_terminal=True)
    assert asked_of(cluster) == (3, ["one", "three"], ["two"])
    assert cluster.deleted == ["job"]


def test_a_job_that_does_not_stop_hides_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_STOP_SECONDS", "-11")
    cluster = Cluster(["\x1fone\n"], is_terminal=False)
    status, out, [beside] = asked_of(cluster)
    assert (status, out) == (3, ["one"])
    assert "job job: has not ended" in beside
    assert not cluster.deleted


def test_a_run_folder_of_the_jobs_own_is_refused() -> None:
    with pytest.raises(RunError, match="must be an absolute path on the cluster"):
        SubmittedRun.of(SPACE, "runs/a")
