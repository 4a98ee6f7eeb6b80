"""A sweep handed to a cluster of three raylets from outside, watched and stopped as a user does it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ray.job_submission import JobSubmissionClient

from tests.conftest import free_port
from tests.ray.sweeps import records, tiny_space, write_space

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        " " in sys.executable, reason="Ray 2.60 starts no workers on a cluster whose Python lies in a path with spaces"
    ),
]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """As the cluster files set it: the virtual environment on the PATH, no token asked for."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Not pytest's folder: its path leaves no room for a socket's name.
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as temp:
        yield kept | {"PATH": path, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": temp, "RAY_worker_niceness": "0"}


@pytest.fixture(scope="module")
def dashboard(environment: dict[str, str]) -> Iterator[str]:
    """A head that trains nothing and two nodes that do, by `ray start`; the address of the dashboard."""
    ray = [str(Path(sys.executable).parent / "ray"), "start", "--disable-usage-stats", "--block"]
    nodes: list[subprocess.Popen[bytes]] = []

    def join(*options: str, n_before: int, dashboard_port: int) -> bool:
        """Start a node and wait for it; whether it lives."""
        # The agent of another cluster's node may have the usual port, and a head without one takes no job.
        command = [*ray, f"--dashboard-agent-listen-port={free_port()}", *options]
        node = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        wait_for(lambda: n_nodes(dashboard_port) > n_before or node.poll() is not None, seconds=180)
        if node.poll() is None:
            nodes.append(node)
            return True
        end(node)
        return False

    # One after the other: nodes that start at once on one machine take each other's ports. And a busy machine may be
    # slower than the 30 s that Ray waits for its own raylet.
    try:
        for _ in range(3):
            port, dashboard_port = free_port(), free_port()
            head = (
                "--head", "--num-cpus=0", f"--port={port}", f"--dashboard-port={dashboard_port}",
                "--include-dashboard=true", f"--ray-client-server-port={free_port()}",
            )  # fmt: skip
            if join(*head, n_before=0, dashboard_port=dashboard_port):
                break
        for _ in range(4):
            if len(nodes) < 3:
                join(f"--address=127.0.0.1:{port}", "--num-cpus=1", n_before=len(nodes), dashboard_port=dashboard_port)
        assert len(nodes) == 3
        yield f"http://127.0.0.1:{dashboard_port}"
    finally:
        for node in reversed(nodes):
            end(node)


def end(node: subprocess.Popen[bytes]) -> None:
    """Its processes with it, at once: in order they take half a minute."""
    with suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


def n_nodes(dashboard_port: int) -> int:
    """That the dashboard knows of, as soon as it answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{dashboard_port}/nodes?view=summary", timeout=5) as answer:
            return len(json.load(answer)["data"]["summary"])
    except OSError:
        return 0


def wait_for(ready: Callable[[], bool], *, seconds: float, else_told: Callable[[], str] = str) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, f"not within the time; {else_told()}"
        time.sleep(0.5)


def said_by_jobs(dashboard: str) -> str:
    jobs = JobSubmissionClient(dashboard)
    return "\n".join(jobs.get_job_logs(job.submission_id or "") for job in jobs.list_jobs())


def test_a_sweep_is_submitted_watched_and_stopped(
    home: Path, corpus_folder: Path, dashboard: str, environment: dict[str, str], tmp_path: Path
) -> None:
    def raysplit(*arguments: object, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "raysplit", *map(str, arguments)], env=environment, cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240,
        )  # fmt: skip
        assert done.returncode == status, done.stdout
        return done.stdout

    out = tmp_path / "run"
    # Long enough to be stopped in the middle.
    grids = {"pretrain_tokens": [65_536, 131_072, 262_144], "specialize_tokens": [32_768, 65_536]}
    space = write_space(tmp_path / "space.yaml", tiny_space(home / "texts", sweep=grids))
    assert "no job that was submitted" in raysplit("stop", out, "--address", dashboard, status=2)
    shutil.copytree(corpus_folder, out / "corpus")
    law_url = f"http://127.0.0.1:{free_port()}"
    served = ("--http", law_url.removeprefix("http://"))
    assert "submitted: job" in raysplit("submit", space, "--out", out, "--address", dashboard, *served)
    assert "runs already: job" in raysplit("submit", space, "--out", out, "--address", dashboard, *served)
    wait_for(lambda: len(records(out, "measurement")) > 0, seconds=300, else_told=lambda: said_by_jobs(dashboard))
    assert "observations" in raysplit("status", out, "--address", dashboard)
    [law] = [line for line in raysplit("status", law_url, "--json").splitlines() if line.startswith("{")]
    assert json.loads(law)["n_observations"] > 0
    n_measured = len(records(out, "measurement"))
    assert "stopped" in raysplit("stop", out, "--address", dashboard)
    assert not (out / "live.json").exists(), "the law actor has ended with its sweep"
    assert len(records(out, "measurement")) >= n_measured
    assert "not ended" in raysplit("status", out)
    assert "no job that was submitted" in raysplit("stop", out, "--address", dashboard, status=2)
