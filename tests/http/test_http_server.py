"""The server as it runs: a thread with a socket, streams that follow the journal, bodies that are cut off in time."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn
from httpx_sse import connect_sse

from raysplit.errors import RunError
from raysplit.http import stream
from raysplit.http.face import HttpFace
from raysplit.http.options import HttpOptions
from raysplit.http.parsing import MAX_BODY_BYTES
from raysplit.http.serving import Server
from raysplit.live.service import LawService
from tests.http.served import TOKEN, measure, opened


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LawService]:
    with opened(tmp_path / "journal.jsonl") as service:
        measure(service, 6)
        yield service


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        yield client


def follow(client: httpx.Client, n: int, **headers: str) -> list[int]:
    """Numbers of the first ``n`` records of a stream."""
    seqs: list[int] = []
    with client.stream("GET", "/v1/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                seqs.append(json.loads(line[6:])["seq"])
            if len(seqs) == n:
                break
    return seqs


def test_a_stream_tells_of_the_past_and_of_what_comes(service: LawService, client: httpx.Client) -> None:
    n = len(service.journal.records)
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(lambda: follow(client, n + 3))
        threading.Event().wait(0.3)
        measure(service, 3)
        assert later.result(timeout=30) == list(range(n + 3))


def test_a_stream_goes_on_where_it_broke_off(service: LawService, client: httpx.Client) -> None:
    n = len(service.journal.records)
    assert follow(client, n - 3, **{"Last-Event-ID": "2"}) == list(range(3, n))


def test_a_stream_of_another_journal_begins_anew(client: httpx.Client) -> None:
    assert follow(client, 2, **{"Last-Event-ID": "1000"}) == [0, 1]


def test_a_quiet_stream_gives_signs_of_life(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.5)
    with client.stream("GET", "/v1/events?kind=nothing") as answer:
        assert next(line for line in answer.iter_lines() if line.startswith(":")) == ": still here"


def test_every_event_of_a_stream_is_a_record(
    service: LawService, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a reader of server-sent events that takes every blank line for the end of one."""
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.0)
    n = len(service.journal.records)
    found = []
    with connect_sse(client, "GET", "/v1/events") as source:
        for event in source.iter_sse():
            found.append((event.id, json.loads(event.data)["seq"], event.retry))
            if len(found) == n:  # and signs of life in between
                measure(service, 1)
            if len(found) > n:
                break
    assert found == [(str(seq), seq, None if seq else 1000) for seq in range(n + 1)]


def test_the_head_of_a_stream_does_not_wait_for_its_end(client: httpx.Client) -> None:
    for _ in range(100):  # more than streams may be open
        answer = client.head("/v1/events?kind=nothing")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
    assert follow(client, 1) == [0]


def test_streams_end_when_the_server_closes(service: LawService) -> None:
    server = HttpFace(HttpOptions()).serve(service)
    with httpx.Client(base_url=server.url, trust_env=False) as client, client.stream("GET", "/v1/events") as answer:
        lines = answer.iter_lines()
        next(lines)
        server.close()
        assert any(line.startswith("data: ") for line in lines)  # and no error
        with pytest.raises(httpx.ConnectError):
            client.get("/healthz")


def test_a_long_body_is_refused_before_it_is_read(service: LawService, server: Server) -> None:
    """The length is told and nothing sent: an answer that comes all the same did not wait for the body."""
    before = len(service.journal.records)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as link:
        head = f"POST /v1/observations HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        link.sendall((head + "Content-Type: application/json\r\nContent-Length: 10000000\r\n\r\n").encode())
        assert link.recv(100).startswith(b"HTTP/1.1 413 ")
    assert len(service.journal.records) == before


def test_a_long_body_that_hides_its_length_is_cut_off(service: LawService, client: httpx.Client) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 2**16
            yield b"[" * 2**16

    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    try:
        answer = client.post("/v1/observations", content=endless(), headers=headers)
    except httpx.WriteError:  # it hung up while we were still sending
        pass
    else:
        assert answer.status_code == 413
    assert sent < 3 * MAX_BODY_BYTES
    assert client.get("/v1/status").status_code == 200


def test_many_ask_at_once(service: LawService, client: httpx.Client) -> None:
    expected = service.advise().advice.split.pretrain_tokens
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("/v1/advise").json(), range(64)))
    assert {answer["advice"]["split"]["pretrain_tokens"] for answer in answers} == {expected}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "some-host"])
def test_only_loopback_is_served_without_a_token(service: LawService, host: str) -> None:
    with pytest.raises(RunError, match="a token is needed"):
        HttpFace(HttpOptions(host=host)).serve(service)


def test_a_token_opens_it_to_other_machines(service: LawService) -> None:
    server = HttpFace(HttpOptions(host="0.0.0.0", token=TOKEN)).serve(service)
    port = server.url.rpartition(":")[2]
    assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).text == "ok\n"
    server.close()


def test_an_address_that_is_taken_is_named(service: LawService, server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(RunError, match=f"{port}: cannot be bound: Address already in use"):
        HttpFace(HttpOptions(port=port)).serve(service)


def test_an_address_that_makes_no_sense_is_named(service: LawService) -> None:
    with pytest.raises(RunError, match="70000: cannot be bound"):
        HttpFace(HttpOptions(port=70000)).serve(service)


def test_nobody_could_read(service: LawService) -> None:
    with pytest.raises(RunError, match="reading is closed"):
        HttpFace(HttpOptions(open_reading=False)).serve(service)


def test_a_server_that_does_not_start_in_time_leaves_its_port(
    service: LawService, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    startup = uvicorn.Server.startup

    async def late(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.sleep(0.5)
        await startup(server, sockets)

    monkeypatch.setattr(uvicorn.Server, "startup", late)
    monkeypatch.setattr("raysplit.http.serving._START_SECONDS", 0.1)
    with pytest.raises(RunError, match="the server did not start"):
        HttpFace(HttpOptions(port=port)).serve(service)
    monkeypatch.undo()
    server = HttpFace(HttpOptions(port=port)).serve(service)
    assert httpx.get(f"{server.url}/v1/status", trust_env=False).status_code == 200
    server.close()
