"""The law actor's own HTTP server: there as long as the actor, and again after the actor's process was killed."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from raysplit.errors import RunError
from raysplit.http.face import HttpFace
from raysplit.http.options import HttpOptions
from raysplit.live.actor import start_law_actor
from raysplit.live.client import NAMESPACE, LiveLaw
from raysplit.live.run_spec import RunSpec
from raysplit.ray_private import kept_in_cluster
from tests.design.doubles import spec

ASKED = spec()
RUN = RunSpec(spec=ASKED, bytes_per_token=dict.fromkeys(ASKED.domains, 2.0))
ROW = {"n_params": 14_000, "pretrain_tokens": 300_000, "specialize_tokens": 0, "domain": "domain-0", "loss": 3.5}
TOKEN = "correct horse"


@pytest.fixture(scope="module")
def joined(ray_address: str) -> None:
    assert ray.is_initialized()


def start(name: str, journal: Path, http: HttpOptions) -> Any:
    return start_law_actor(name, RUN, journal, face=HttpFace(http))


def answer(url: str) -> dict[str, Any]:
    """Of a server that may still be coming back."""
    deadline = time.monotonic() + 60
    while True:
        try:
            status: dict[str, Any] = httpx.get(f"{url}/v1/status", trust_env=False, timeout=30).json()
            return status
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def process_that_listens(port: int) -> int:
    """Its process id, as the kernel tells it."""
    wanted = f":{port:04X}"
    inodes = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(wanted) and line.split()[3] == "0A"
    }
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) in {f"socket:[{i}]" for i in inodes} for fd in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:  # gone meanwhile
            continue
    raise AssertionError(f"nobody listens on {port}")


@pytest.mark.usefixtures("joined")
def test_it_comes_back_with_the_actor(tmp_path: Path, port: int) -> None:
    options = HttpOptions(host="127.0.0.1", port=port, token=TOKEN)
    actor = start("http-comes-back", tmp_path / "journal", options)
    try:
        url = ray.get(actor.serve.remote(HttpFace(options)))
        assert url == f"http://127.0.0.1:{port}"
        taken = httpx.post(
            f"{url}/v1/observations",
            json={"schema_version": 1, "observations": [ROW]},
            headers={"Authorization": f"Bearer {TOKEN}"},
            trust_env=False,
        )
        assert taken.json() == {"n_new": 1, "n_repeated": 0, "n_known": 1}
        os.kill(process_that_listens(port), signal.SIGKILL)
        assert answer(url)["n_observations"] == 1
    finally:
        ray.kill(actor)


@pytest.mark.usefixtures("joined")
def test_a_server_asked_for_later_comes_back_as_well_as_soon_as_its_port_is_free(tmp_path: Path) -> None:
    actor = start_law_actor("http-later", RUN, tmp_path / "journal")
    try:
        url = ray.get(actor.serve.remote(HttpFace(HttpOptions(host="127.0.0.1", port=0, token=TOKEN))))
        port = int(url.rpartition(":")[2])
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            os.kill(process_that_listens(port), signal.SIGKILL)
            deadline = time.monotonic() + 60
            while True:
                try:
                    other.bind(("127.0.0.1", port))
                    break
                except OSError:  # the killed process is not gone yet
                    assert time.monotonic() < deadline
            other.listen()
            while not (trouble := LiveLaw(actor).status().trouble):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert trouble.startswith("not served over HTTP since the restart: ")
            assert "Address already in use" in trouble
        assert answer(url)["n_observations"] == 0
        while LiveLaw(actor).status().trouble:
            assert time.monotonic() < deadline
        headers = {"Authorization": f"Bearer {TOKEN}"}
        told = {"schema_version": 1, "observations": [ROW]}
        assert httpx.post(f"{url}/v1/observations", json=told, trust_env=False).status_code == 401
        assert httpx.post(f"{url}/v1/observations", json=told, headers=headers, trust_env=False).status_code == 200
        stored = kept_in_cluster(f"face-{actor._actor_id.hex()}".encode(), namespace=NAMESPACE)
        assert stored
        assert TOKEN.encode() not in stored
    finally:
        ray.kill(actor)


@pytest.mark.usefixtures("joined")
def test_a_taken_address_is_told_at_the_start(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = HttpOptions(host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(RunError, match="cannot be bound: Address already in use"):
            start("http-taken", tmp_path / "journal", options)
    with pytest.raises(ValueError, match="law-http-taken"):
        ray.get_actor("law-http-taken", namespace="raysplit")
