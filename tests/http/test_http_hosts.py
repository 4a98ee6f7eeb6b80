"""By which names the server answers: a page of another site, whose name was made to lead here, reads nothing."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from raysplit.errors import RunError
from raysplit.http.face import HttpFace
from raysplit.http.hosts import Hosts
from raysplit.http.options import HttpOptions, digest, read_http_options
from raysplit.http.serving import Server
from raysplit.live.service import LawService
from tests.http.served import TOKEN, opened

LOOPBACK = ["localhost", "LOCALHOST:8350", "localhost.:80", "127.0.0.1:8350", "127.8.9.1", "[::1]:8350", "[::1]", "::1"]
FOREIGN = ["evil.example", "evil.example:8350", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost", ""]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LawService]:
    with opened(tmp_path_factory.mktemp("hosts") / "journal") as service:
        yield service


@pytest.fixture(scope="module")
def server(service: LawService) -> Iterator[Server]:
    server = HttpFace(HttpOptions(token=TOKEN, allowed_hosts=("law.example",))).serve(service)
    yield server
    server.close()


@pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_on_loopback_it_is_asked_as_loopback(bound: str) -> None:
    hosts = Hosts(bound)
    assert [asked for asked in LOOPBACK if not hosts.allows(asked)] == []
    assert [
        asked for asked in [*FOREIGN, "10.0.0.5", "0.0.0.0:8350", socket.gethostname()] if hosts.allows(asked)
    ] == []


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "10.0.0.5", "node17.cluster"])
def test_elsewhere_it_is_asked_by_addresses_and_its_own_names(bound: str) -> None:
    """An address is no name that somebody made to lead here; which ones lead here, a container cannot know."""
    hosts = Hosts(bound)
    own = [socket.gethostname(), f"{socket.gethostname().upper()}:8350", "10.0.0.5", "192.0.2.7:80", "[2001:db8::1]:80"]
    assert [asked for asked in [*LOOPBACK, *own] if not hosts.allows(asked)] == []
    assert [asked for asked in FOREIGN if hosts.allows(asked)] == []
    assert hosts.allows("node17.cluster:8350") == (bound == "node17.cluster")


def test_further_names_are_allowed_one_by_one() -> None:
    hosts = Hosts("127.0.0.1", ("Law.Example.", "*.lab.example", "10.0.0.5"))
    assert all(
        map(hosts.allows, ["law.example:443", "LAW.EXAMPLE.", "a.lab.example", "a.b.lab.example", "10.0.0.5:80"])
    )
    assert not any(
        map(hosts.allows, ["a.law.example", "lab.example", "evillab.example", "lab.example.evil", "10.0.0.6"])
    )


@pytest.mark.parametrize("name", ["http://law.example", "law.example:8350", "law.example/x", "*", "", "*.", "a b", "é"])
def test_a_name_that_no_host_has_is_refused(name: str) -> None:
    with pytest.raises(RunError, match="is not a host's name"):
        read_http_options("8350", allowed_hosts=[name])


@pytest.mark.parametrize("path", ["/", "/v1/status", "/v1/events", "/metrics", "/healthz", "/openapi.json", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_a_foreign_name_is_refused_everywhere(server: Server, method: str, path: str) -> None:
    answer = httpx.request(method, server.url + path, headers={"Host": "evil.example"}, trust_env=False)
    assert answer.status_code == 421
    if method != "HEAD":
        said = answer.json()
        assert said["message"].endswith("--allow-host evil.example")
        assert (said["field"], said["value"], said["choices"]) == ("Host", "evil.example", ["localhost", "law.example"])


@pytest.mark.parametrize("host", ["localhost:1234", "law.example", "[::1]:80"])
def test_a_known_name_is_answered(server: Server, host: str) -> None:
    assert httpx.get(f"{server.url}/v1/status", headers={"Host": host}, trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /healthz HTTP/1.0\r\n", 200),  # a load balancer's probe
        ("GET /healthz HTTP/1.0\r\nHost: evil.example\r\n", 421),
        ("GET /healthz HTTP/1.1\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost:\r\n", 421),
    ],
)
def test_a_request_without_one_name(server: Server, head: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30) as link:
        link.sendall(f"{head}Connection: close\r\n\r\n".encode())
        assert int(link.recv(100).split()[1]) == status


def test_another_site_s_script_gets_no_leave(server: Server) -> None:
    """What needs leave to be asked from another site, as JSON and tokens do, is not given any."""
    asks = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{server.url}/v1/should-go-on", headers=asks, trust_env=False)
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8350", "127.0.0.1:8350/", "localhost", "https://law.example:443"]
)
def test_an_address_to_bind_is_no_url(address: str) -> None:
    with pytest.raises(RunError, match=r"must be HOST:PORT or PORT, such as 127\.0\.0\.1:8350; no http://"):
        read_http_options(address)


def test_a_token_may_come_out_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSPLIT_TOKEN", f" {TOKEN}\r\n")
    assert read_http_options("8350").token == TOKEN
    monkeypatch.setenv("RAYSPLIT_TOKEN", "geheim\nzwei")
    with pytest.raises(RunError, match="characters that a header cannot carry") as refused:
        read_http_options("8350")
    assert "geheim" not in str(refused.value)


def test_what_a_law_that_is_served_already_cannot_give_is_named() -> None:
    def options(token: str | None, *, closed: bool = False, names: tuple[str, ...] = ()) -> HttpOptions:
        return HttpOptions(host="127.0.0.1", port=0, token=token, open_reading=not closed, allowed_hosts=names)

    served = options(digest("a"), names=("law.example",))
    for asked in (served, options("a"), options(None), options("a", names=("law.example",))):
        assert served.lacks(asked) == []
    assert served.lacks(options("b", closed=True, names=("x.example",))) == [
        "--closed-reading", "--allow-host", "RAYSPLIT_TOKEN",
    ]  # fmt: skip
    assert options(None).lacks(options("a")) == ["RAYSPLIT_TOKEN"]


def test_a_restarted_server_keeps_its_names(tmp_path: Path) -> None:
    """What is handed on to a law actor carries them."""
    assert read_http_options("8350", allowed_hosts=["law.example"]).allowed_hosts == ("law.example",)
