"""A training job's client over HTTP against the real server, and servers that are none."""

import http.server
import json
import math
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import TypeAdapter

from raysplit import strict_json
from raysplit.cli import main
from raysplit.errors import RunError, TableError
from raysplit.http.client import HttpClient
from raysplit.http.face import HttpFace
from raysplit.http.options import HttpOptions
from raysplit.live.answers import Status
from raysplit.live.service import LawService
from raysplit.runs import Observation
from raysplit.trainers.outside_run import OutsideRun
from tests.http.served import ASKED, TOKEN, measure, opened

SEEN = Observation(
    n_params=20_000, pretrain_tokens=777_000, specialize_tokens=333_000, domain=ASKED.domains[0], loss=3.25, seed=7
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LawService, str]]:
    with opened(tmp_path_factory.mktemp("served") / "journal") as service:
        measure(service, 12)
        server = HttpFace(HttpOptions(token=TOKEN)).serve(service)
        yield service, server.url
        server.close()


def test_reports_are_stored_once(served: tuple[LawService, str]) -> None:
    service, url = served
    before = service.status().n_observations
    client = HttpClient(url, TOKEN)
    assert client.observe([SEEN, replace(SEEN, seed=8, wall_seconds=2.5)]).n_new == 2
    said = client.observe([SEEN])
    assert (said.n_new, said.n_repeated, said.n_known) == (0, 1, before + 2)
    assert 7 in service.observations()["seed"].tolist()


def test_commands_ask_an_address_as_they_ask_a_folder(served: tuple[LawService, str]) -> None:
    service, url = served
    said = CliRunner().invoke(main, ["status", url, "--json"], catch_exceptions=False)
    assert json.loads(said.stdout)["n_observations"] == service.status().n_observations
    said = CliRunner().invoke(main, ["advise", url, "--json"], catch_exceptions=False)
    assert json.loads(said.stdout)["split"]["n_params"] == service.advise().advice.split.n_params
    assert "asked the live law" in said.stderr


def test_a_sweep_without_a_budget_has_a_status(served: tuple[LawService, str]) -> None:
    told = replace(served[0].status(), budget_flops=math.inf)
    said = json.loads(strict_json.dumps(asdict(told)))
    assert said["budget_flops"] is None
    assert TypeAdapter(Status).validate_python(said) == told


def test_the_answer_is_the_laws_own(served: tuple[LawService, str]) -> None:
    service, url = served
    for observation in (SEEN, replace(SEEN, loss=90.0)):
        over_http, here = HttpClient(url).should_go_on(observation), service.should_go_on(observation)
        assert (over_http.go_on, over_http.why) == (here.go_on, here.why)
        assert over_http.law is not None
        assert here.law is not None
        assert replace(over_http.law, age_seconds=0.0) == replace(here.law, age_seconds=0.0)


def test_an_ill_run_is_stopped_from_afar(served: tuple[LawService, str], tmp_path: Path) -> None:
    _, url = served
    run = OutsideRun(
        HttpClient(url, TOKEN), n_params=20_000, domain=ASKED.domains[0], pretrain_tokens=777_000,
        kept_in=tmp_path / "kept", patience_seconds=30,
    )  # fmt: skip
    assert run.should_go_on(tokens=100_000, loss=3.0)
    assert not run.should_go_on(tokens=100_000, loss=90.0)
    assert "something is wrong with this run" in run.last_answer.why
    run.close()


class TestRefusals:
    def test_of_rows(self, served: tuple[LawService, str]) -> None:
        client = HttpClient(served[1], TOKEN)
        with pytest.raises(TableError, match="unknown domain 'nonsense'"):
            client.observe([replace(SEEN, domain="nonsense")])
        with pytest.raises(TableError, match="is known of this run"):
            client.observe([replace(SEEN, loss=3.5)])

    def test_of_tokens(self, served: tuple[LawService, str]) -> None:
        with pytest.raises(RunError, match="not the server's token"):
            HttpClient(served[1], "wrong").observe([SEEN])
        with pytest.raises(RunError, match="a token is needed"):
            HttpClient(served[1]).observe([SEEN])

    def test_of_addresses(self) -> None:
        with pytest.raises(RunError, match="url must begin with http://"):
            HttpClient("ftp://x")
        with pytest.raises(RunError, match="the live law cannot be reached"):
            HttpClient("http://127.0.0.1:1").observe([SEEN])


class TestProxies:
    """As a company's environment names them; nothing listens at port 1."""

    @pytest.fixture(autouse=True)
    def _a_company(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:1")
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")

    @pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST"])
    def test_this_machine_is_asked_directly(self, served: tuple[LawService, str], name: str) -> None:
        assert HttpClient(served[1].replace("127.0.0.1", name)).should_go_on(SEEN).go_on

    @pytest.mark.parametrize("url", ["http://law.example:8350", "https://law.example"])
    def test_any_other_through_the_proxy_which_is_named(self, url: str) -> None:
        with pytest.raises(
            RunError, match=r"through the proxy .*127\.0\.0\.1:1 of https?_proxy; no_proxy=law\.example"
        ) as e:
            HttpClient(url, TOKEN).observe([SEEN])
        assert "secret" not in str(e.value)

    def test_not_where_no_proxy_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("no_proxy", "law.invalid")
        with pytest.raises(RunError, match="cannot be reached") as refused:
            HttpClient("http://law.invalid:8350").should_go_on(SEEN)
        assert "proxy" not in str(refused.value)

    def test_what_a_proxy_answers_is_not_taken_for_the_law_s(
        self, no_law: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", no_law)
        with pytest.raises(RunError, match=r"HTTP 502 Bad Gateway \(through the proxy"):
            HttpClient("http://law.example").observe([SEEN])


def test_a_token_may_come_out_of_a_file(served: tuple[LawService, str]) -> None:
    assert HttpClient(f" {served[1].replace('http', 'HTTP')}/ ", f"{TOKEN}\n").observe([SEEN]).n_known
    with pytest.raises(RunError, match="characters that a header cannot carry") as refused:
        HttpClient(served[1], "geheim\nzwei")
    assert "geheim" not in str(refused.value)


class _NoLaw(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        if self.path.startswith("/moved"):
            self.send_response(301)
            self.send_header("Location", "https://law.example/v1/observations")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if self.path.startswith("/cut"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            return None
        body = b"<html>" if "observations" in self.path else b"[1]"
        self.send_response(502 if "observations" in self.path else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def no_law() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _NoLaw)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_is_no_live_law(no_law: str) -> None:
    client = HttpClient(no_law)
    for path, said in {
        "/moved": "leads to https://law.example/v1/observations; give the address",
        "/cut": "cannot be reached: IncompleteRead",
        ":x y": "cannot be reached: nonnumeric port",
    }.items():
        with pytest.raises(RunError, match=said):
            HttpClient(no_law + path, TOKEN).observe([SEEN])
    with pytest.raises(RunError, match="HTTP 502"):
        client.observe([SEEN])
    with pytest.raises(RunError, match="is this a live law"):
        client.should_go_on(SEEN)
