"""What docs/http.md says is so."""

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from raysplit.http import routes, stream
from raysplit.http.app import create_app
from raysplit.http.hosts import Hosts
from tests.http.served import TOKEN, opened

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
ASKED = re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \| (yes|no) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("bound", "asked", "answered"), ASKED)
def test_by_which_name(bound: str, asked: str, answered: str) -> None:
    assert Hosts(bound).allows(asked) == (answered == "yes")


def test_every_route_and_number(tmp_path: Path) -> None:
    with opened(tmp_path / "journal") as service:
        described = TestClient(create_app(service, token=TOKEN)).get("/openapi.json").json()["paths"]
    there = {(method.upper(), path) for path, operations in described.items() for method in operations}
    assert set(re.findall(r"^\| `(GET|POST) (/[^`]*)` \|", PAGE, re.MULTILINE)) == there
    assert len(ASKED) == 8
    assert f"a comment comes every {stream.HEARTBEAT_SECONDS:.0f} s" in PAGE
    assert f"{routes._MAX_STREAMS} streams may be open at once" in PAGE


@pytest.mark.parametrize(
    ("token", "open_reading", "reads", "writes"),
    [(None, True, 200, 403), (TOKEN, True, 200, 401), (TOKEN, False, 401, 401)],
)
def test_who_may_without_sending_it(
    tmp_path: Path, token: str | None, open_reading: bool, reads: int, writes: int
) -> None:
    with opened(tmp_path / "journal") as service:
        client = TestClient(create_app(service, token=token, open_reading=open_reading))
        assert client.get("/v1/status").status_code == reads
        assert client.post("/v1/observations", json={}).status_code == writes
        for path in ("/", "/page/page.css", "/healthz", "/openapi.json"):
            assert client.get(path).status_code == 200
