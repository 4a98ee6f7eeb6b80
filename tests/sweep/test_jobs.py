"""What is handed to a cluster as a job: a command that its shell runs there, and what travels with it."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from raysplit.errors import RunError, SpaceError
from raysplit.space import load_space
from raysplit.sweep.jobs import SubmittedRun
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


def test_a_run_folder_of_the_jobs_own_is_refused() -> None:
    with pytest.raises(RunError, match="must be an absolute path on the cluster"):
        SubmittedRun.of(SPACE, "runs/a")
