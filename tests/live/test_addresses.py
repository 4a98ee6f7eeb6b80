"""What is at an address is found out within seconds, and said in a line."""

import socket
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest

from raysplit.errors import RunError
from raysplit.live import addresses
from raysplit.live.addresses import check_address, join_error


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(addresses, "_PATIENCE_SECONDS", 0.5)


@pytest.fixture
def web_port() -> Iterator[int]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_nothing_listens(port: int) -> None:
    with pytest.raises(RunError, match=rf"^Ray cluster 127.0.0.1:{port}: nothing listens there \(Connection refused\)"):
        check_address(f"127.0.0.1:{port}")


def test_a_host_without_a_name() -> None:
    with pytest.raises(RunError, match=r"^Ray cluster head.invalid:6379: nothing listens there \("):
        check_address("head.invalid:6379")


def test_a_web_server_listens(web_port: int) -> None:
    with pytest.raises(RunError, match=r"what listens there is no head of a Ray cluster; give HOST:PORT of its head"):
        check_address(f"127.0.0.1:{web_port}")


def test_what_listens_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(RunError, match="what listens there is no head of a Ray cluster"):
            check_address(address)


@pytest.mark.parametrize(
    "address", ["", "head", "local", "head:", ":6379", "head:port", "head:0", "head:70000", "a b:1"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(RunError, match=r"is not HOST:PORT; give HOST:PORT of its head .* or auto"):
        check_address(address)


def test_auto_goes_by_the_environment_and_says_so(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(RunError, match=rf"^Ray cluster 127.0.0.1:{port} \(auto, by RAY_ADDRESS\): nothing listens"):
        check_address("auto")


def test_auto_where_no_cluster_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> str:
        raise ConnectionError("Could not find any running Ray instance.\nPlease ...")

    monkeypatch.setattr("ray._private.services.get_ray_address_from_environment", none)
    with pytest.raises(
        RunError, match=r"^Ray cluster auto: none runs on this node; start one with `ray start --head`$"
    ):
        check_address("auto")


def test_what_ray_says_becomes_a_line() -> None:
    said = str(join_error("head:6379", RuntimeError("Version mismatch:\n  Ray: 2.60\n  Ray: 2.61")))
    assert said.startswith("Ray cluster head:6379: cannot be joined: Version mismatch: Ray: 2.60 Ray: 2.61; if it asks")
    assert "\n" not in said
