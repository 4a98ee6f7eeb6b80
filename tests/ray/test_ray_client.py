"""The live law through Ray Client, from a process that is not on the cluster."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from raysplit.live.client import LiveLaw, actor_name
from tests.conftest import REPOSITORY
from tests.ray import live


@pytest.fixture
def client_address(ray_address: str, port: int) -> Iterator[str]:
    """Of a Ray Client server before the tests' cluster."""
    module = [sys.executable, "-m", "ray.util.client.server", "--mode", "specific-server"]
    server = subprocess.Popen(
        [*module, "--address", ray_address, "--host", "127.0.0.1", "--port", str(port)], stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            assert server.poll() is None, "no Ray Client server"
            assert time.monotonic() < end, "no Ray Client server in time"
            time.sleep(0.1)
    yield f"ray://127.0.0.1:{port}"
    server.kill()
    server.wait()


def test_the_same_answers_from_outside_the_cluster(client_address: str, tmp_path: Path) -> None:
    name, rows = f"afar-{tmp_path.name}", live.observations(121)
    actor = live.start(name, tmp_path / "journal")
    try:
        live.law_of(actor).observe(rows[:120])
        live.settled(actor, 120)
        asking = subprocess.run(
            [sys.executable, "-m", "tests.ray.through_client", actor_name(name), client_address, "120"],
            capture_output=True, text=True, cwd=REPOSITORY, timeout=120,
        )  # fmt: skip
        assert asking.returncode == 0, asking.stderr
        told = json.loads(asking.stdout)
        here = LiveLaw(actor)
        prediction = here.predict(
            live.ASKED.domains[0], n_params=90_000, pretrain_tokens=4e6, specialize_tokens=1e6, version=1
        )
        assert told["loss"] == told["later"] == prediction.mean
        assert told["split"] == here.advise(version=1).advice.split.pretrain_tokens
        assert told["n_observations"] == here.status().n_observations == 121
        assert "pretrain_tokens" in told["refusal"]
        assert "-1" in told["refusal"]
    finally:
        ray.kill(actor)
