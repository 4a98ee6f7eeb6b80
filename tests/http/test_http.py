"""The law over HTTP: the same answers as the service's own, and clear refusals of everything else."""

import errno
import json
import re
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from raysplit.errors import RunError
from raysplit.http.app import create_app
from raysplit.http.options import digest
from raysplit.http.parsing import MAX_BODY_BYTES
from raysplit.journal.old import upgrade
from raysplit.live.observations import MAX_BATCH
from raysplit.live.service import LawService
from raysplit.runs import Observation
from raysplit.split import Advice
from tests.http.served import ASKED, TOKEN, measure, opened

WRITER = {"Authorization": f"Bearer {TOKEN}"}
ROW: dict[str, Any] = {
    "n_params": 14_000, "pretrain_tokens": 300_000, "specialize_tokens": 0, "domain": "domain-0", "loss": 3.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LawService]:
    """In mid-sweep, its second round begun."""
    with opened(tmp_path_factory.mktemp("http") / "journal.jsonl") as service:
        measure(service, 30)
        yield service


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[LawService]:
    """Nothing measured yet."""
    with opened(tmp_path / "journal.jsonl") as service:
        yield service


@pytest.fixture(scope="module")
def client(service: LawService) -> TestClient:
    return TestClient(create_app(service, token=TOKEN))


def batch(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"schema_version": 1, "observations": list(rows)}


@pytest.mark.parametrize(
    ("query", "question"),
    [
        ("", {}),
        ("?budget_flops=3e12", {"budget_flops": 3e12}),
        ("?n_params=14000&accounting=per-expert", {"n_params": 14_000, "accounting": "per-expert"}),
        ("?seeds=independent", {"seeds": "independent"}),
        ("?n_params=14k&n_params=0.036M&budget_flops=3.2T", {"n_params": (14_000, 36_000), "budget_flops": 3.2e12}),
        ("?weight=domain-1%3D3&weight=domain-0%3D0.5", {"weights": {"domain-1": 3.0, "domain-0": 0.5}}),
    ],
)
def test_advice_is_the_services_own(
    client: TestClient, service: LawService, query: str, question: dict[str, Any]
) -> None:
    for _ in range(2):  # the second answer is one that was kept
        answer = client.get(f"/v1/advise{query}").json()
        live = service.advise(**question)
        assert Advice.from_json(json.dumps(answer["advice"])) == live.advice
        assert answer["law"]["version"] == live.law.version
        assert answer["law"]["n_observations"] == live.law.n_observations


def test_different_questions_get_different_answers(client: TestClient) -> None:
    queries = ["", "?budget_flops=3e12", "?weight=domain-1%3D3", "?n_params=14000"]
    losses = {client.get(f"/v1/advise{query}").json()["advice"]["loss"]["mean"] for query in queries}
    assert len(losses) == len(queries)


def test_a_prediction_is_the_services_own(client: TestClient, service: LawService) -> None:
    point = {"n_params": 20_000, "pretrain_tokens": 700_000, "specialize_tokens": 200_000}
    answer = client.get("/v1/predict", params={"domain": "domain-1", "level": 0.5, **point}).json()
    said = service.predict("domain-1", level=0.5, **point)
    assert (answer["mean"], answer["low"], answer["high"]) == (said.mean, said.low, said.high)
    assert answer["level"] == 0.5


def test_curve_trials_status_and_law_are_the_services_own(client: TestClient, service: LawService) -> None:
    curve = client.get("/v1/curve", params={"at_n_params": 36_000}).json()
    own = service.curve(at_n_params=36_000)
    assert curve["n_params"] == 36_000
    assert curve["loss"] == list(own.loss)
    assert [tuple(point) for point in curve["moved"]] == list(own.moved) != []
    trials = client.get("/v1/trials").json()
    assert [(t["name"], t["state"]) for t in trials] == [(t.name, t.state) for t in service.trials()]
    status = client.get("/v1/status").json()
    assert status["n_observations"] == len(service.observations())
    assert status["law"]["n_observations"] == status["n_observations"]
    assert status["takes_observations"] is True
    law = client.get("/v1/law").json()
    assert law["law"] == json.loads(service.law().to_json())
    assert client.get("/v1/laws").json()[-1]["version"] == law["stamp"]["version"]


def test_observations_come_in_pages(client: TestClient, service: LawService) -> None:
    found: list[dict[str, Any]] = []
    while True:
        page = client.get("/v1/observations", params={"offset": len(found), "limit": 7}).json()
        found += page["observations"]
        if not page["observations"]:
            break
        assert len(page["observations"]) <= 7
    frame = service.observations()
    assert [row["loss"] for row in found] == frame["loss"].tolist()
    assert page["n_known"] == len(frame)


def test_a_law_can_be_asked_for_by_its_version(client: TestClient) -> None:
    version = client.get("/v1/laws").json()[-1]["version"]
    assert client.get("/v1/advise", params={"version": version}).json()["law"]["version"] == version
    for route in (
        "/v1/advise",
        "/v1/law",
        "/v1/curve",
        "/v1/predict?domain=domain-0&n_params=1&pretrain_tokens=1&specialize_tokens=1",
    ):
        answer = client.get(route + ("&" if "?" in route else "?") + "version=999")
        assert answer.status_code == 404
        assert str(version) in answer.json()["choices"]
        assert answer.json()["field"] == "version"


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("/v1/advise?budget_flops=nan", "budget_flops"),
        ("/v1/advise?budget_flops=-1", "budget_flops"),
        ("/v1/advise?budget_flops=inf", "budget_flops"),
        ("/v1/advise?budget_flops=much", "budget_flops"),
        ("/v1/advise?budget_flop=3e12", "budget_flop"),
        ("/v1/advise?accounting=shard", "accounting"),
        ("/v1/advise?n_params=0", "n_params"),
        ("/v1/advise?n_params=15000", "n_params"),
        ("/v1/advise?weight=domain-0", "weight"),
        ("/v1/advise?weight=domain-0%3D-1", "weight"),
        ("/v1/advise?weight=domain-9%3D1", "weights"),
        ("/v1/advise?version=0", "version"),
        ("/v1/curve?at_n_params=7", "model size"),
        ("/v1/predict?domain=domain-0&n_params=1e4&pretrain_tokens=-5&specialize_tokens=0", "pretrain_tokens"),
        ("/v1/predict?domain=domain-0&n_params=1e4&pretrain_tokens=nan&specialize_tokens=0", "pretrain_tokens"),
        ("/v1/predict?domain=domain-0&n_params=1e4&pretrain_tokens=1&specialize_tokens=0&level=1", "level"),
        ("/v1/predict?domain=..%2F..%2Fetc%2Fpasswd&n_params=1e4&pretrain_tokens=1&specialize_tokens=0", "domain"),
        ("/v1/predict?domain=domain-0", "n_params"),
        ("/v1/observations?limit=100000", "limit"),
        ("/v1/events?after=x", "after"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_name(client: TestClient, url: str, field: str) -> None:
    answer = client.get(url)
    assert answer.status_code == 422
    assert field in answer.json()["message"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/v1/advise?budget_flops=3,5e12", "got '3,5e12'; the decimal mark is a point here: write 3.5e12"),
        ("/v1/advise?n_params=1,3B", "n_params.0: expected a number such as 250k, 2M or 3e21, got '1,3B'; the decimal"),
        ("/v1/advise?n_params=14000.5", "n_params.0: expected a whole number, got '14000.5'"),
        ("/v1/advise?budget_flops=1e999999999", "expected a number below 1e308, got '1e999999999'"),
        (f"/v1/advise?n_params={'9' * 5000}", "expected a number such as"),
    ],
)
def test_a_number_that_cannot_be_read_is_refused_with_the_remedy(client: TestClient, url: str, message: str) -> None:
    answer = client.get(url)
    assert answer.status_code == 422
    assert message in answer.json()["message"]


def test_a_plus_that_an_address_turned_into_a_blank_is_put_back(client: TestClient) -> None:
    """Python writes 3e21 as 3e+21."""
    for budget in ("3e+11", "3e%2B11", "3e11"):
        assert client.get(f"/v1/advise?budget_flops={budget}").json()["advice"]["budget_flops"] == 3e11
    assert client.get("/v1/advise?budget_flops=3+11").status_code == 422


@pytest.mark.parametrize(
    ("url", "field", "message"),
    [
        ("/v1/advise?budget=3", "budget", "budget: is not known here; /openapi.json tells what is, got 3"),
        ("/v1/advise?accounting=both", "accounting", "accounting: Input should be 'shared' or 'per-expert', got both"),
        ("/v1/advise?version=x&n_params=y", "n_params.0", "got 'y' (and 1 more)"),
        ("/v1/predict?n_params=1&pretrain_tokens=1&specialize_tokens=1", "domain", "domain: is needed and not given"),
    ],
)
def test_a_mistake_is_told_once_and_by_its_field(client: TestClient, url: str, field: str, message: str) -> None:
    said = client.get(url).json()
    assert said["message"].endswith(message)
    assert said["field"] == field


def test_a_byte_order_mark_is_no_mistake(client: TestClient) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(ROW | {"loss": 3.0}).encode()
    answer = client.post("/v1/should-go-on", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


def test_the_page_works_below_a_path_of_a_proxy_s(client: TestClient) -> None:
    """As under /user/me/proxy/8350/ of a JupyterHub: no address of the page begins at the root."""
    page = client.get("/").text
    scripts = re.findall(r'"page/(?!vega)[a-z]+\.js"', page)  # Vega is given all that it draws
    texts = [page, *(client.get("/" + name.strip('"')).text for name in scripts)]
    assert len(scripts) > 5
    assert [found for text in texts for found in re.findall(r"""["'`]/[a-z][^"'`]*""", text)] == []


def test_a_browser_that_has_a_file_gets_it_no_second_time(client: TestClient) -> None:
    first = client.get("/page/vega.js")
    assert first.headers["Content-Encoding"] == "gzip"
    assert int(first.headers["Content-Length"]) < 400_000 < len(first.content)
    again = client.get("/page/vega.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/page/page.css", headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_pictures_come_in_the_colours_of_the_page(client: TestClient) -> None:
    sheet = client.get("/page/colours.css").text
    for path in ("advice", "moved", "tree"):
        text = client.get(f"/page/{path}?width=400").text
        assert not re.findall("#[0-9a-f]{6}", text)
        assert {f"--{name}:" for name in re.findall(r"var\(--(\w+)\)", text)} <= set(sheet.split())
        assert client.get(f"/page/{path}?width=much").status_code == 422


def test_choices_are_told(client: TestClient) -> None:
    accounting = client.get("/v1/advise?accounting=shard").json()
    assert accounting["choices"] == ["shared", "per-expert"]
    assert accounting["value"] == "shard"
    domain = client.get("/v1/predict?domain=domain-7&n_params=1&pretrain_tokens=1&specialize_tokens=1").json()
    assert domain["choices"] == list(ASKED.domains)
    assert "did you mean" in domain["message"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"loss": float("nan")}, "loss"),
        ({"loss": float("inf")}, "loss"),
        ({"loss": 0}, "loss"),
        ({"loss": "low"}, "loss"),
        ({"pretrain_tokens": -1}, "pretrain_tokens"),
        ({"pretrain_tokens": 0.5}, "pretrain_tokens"),
        ({"n_params": 10**400}, "n_params"),
        ({"n_params": True}, "n_params"),
        ({"domain": "domain-9"}, "domain-0, domain-1"),
        ({"domain": "../../etc/passwd"}, "domain"),
        ({"trial": "../../etc/passwd"}, "trial"),
        ({"trial": "a\u0000b"}, "trial"),
        ({"pretrain_tokens": 0, "specialize_tokens": 0}, "saw no tokens"),
        ({"pretrain_token": 5}, "pretrain_token"),
        ({"loss": 9.0, "pretrain_tokens": 250_000}, "is known of this run"),
    ],
)
def test_an_impossible_observation_stores_nothing(
    client: TestClient, service: LawService, change: dict[str, Any], named: str
) -> None:
    before = len(service.journal.records)
    body = json.dumps(
        batch(ROW | {"loss": 3.0}, ROW | {"seed": 5} | change | ({"seed": 0} if "known" in named else {}))
    )
    answer = client.post("/v1/observations", content=body, headers=WRITER | {"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert named in answer.json()["message"]
    assert len(service.journal.records) == before


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ('{"schema_version": 2, "observations": []}', 422, "schema_version"),
        ('{"observations": []}', 422, "schema_version"),
        ('{"schema_version": 1, "observations": []}', 422, "observations"),
        ("[]", 422, "body"),
        ("{", 422, "JSON"),
        ("[" * 100_000, 422, "JSON"),
        ("\x00", 422, "JSON"),
        ("", 422, "JSON"),
        ("[" + "17," * (MAX_BODY_BYTES // 3 + 1) + "17]", 413, str(MAX_BODY_BYTES)),
        (json.dumps(batch(*[ROW] * (MAX_BATCH + 1))), 422, str(MAX_BATCH)),
    ],
    ids=["version", "no version", "no rows", "a list", "cut", "deep", "zero", "empty", "too long", "too many rows"],
)
def test_a_body_that_is_no_batch_stores_nothing(
    client: TestClient, service: LawService, body: str, status: int, named: str
) -> None:
    before = len(service.journal.records)
    answer = client.post("/v1/observations", content=body, headers=WRITER | {"Content-Type": "application/json"})
    assert answer.status_code == status
    assert named in answer.json()["message"]
    assert len(answer.content) < 2000
    assert len(service.journal.records) == before


def test_only_json_is_taken(client: TestClient) -> None:
    assert client.post("/v1/observations", data={"a": "b"}, headers=WRITER).status_code == 415


def test_observations_are_taken_once(fresh: LawService) -> None:
    client = TestClient(create_app(fresh, token=TOKEN))
    rows = batch(ROW, ROW | {"seed": 1, "loss": 3.6, "pretrain_tokens": 3e5, "trial": "from elsewhere"})
    first = client.post("/v1/observations", json=rows, headers=WRITER).json()
    again = client.post("/v1/observations", json=rows, headers=WRITER).json()
    assert first == {"n_new": 2, "n_repeated": 0, "n_known": 2}
    assert again == {"n_new": 0, "n_repeated": 2, "n_known": 2}
    known = client.get("/v1/observations").json()["observations"]
    assert [(row["seed"], row["loss"], row["trial"], row["flops"]) for row in known] == [
        (0, 3.5, "", None), (1, 3.6, "from elsewhere", None),
    ]  # fmt: skip


def test_numbers_of_a_row_may_be_written_as_people_do(fresh: LawService) -> None:
    client = TestClient(create_app(fresh, token=TOKEN))
    written = {
        "n_params": "8.2M",
        "pretrain_tokens": "1,234,567",
        "specialize_tokens": "0.067B tokens",
        "flops": "3e21",
    }
    assert client.post("/v1/observations", json=batch(ROW | written), headers=WRITER).status_code == 200
    [known] = client.get("/v1/observations").json()["observations"]
    assert (known["n_params"], known["pretrain_tokens"], known["specialize_tokens"]) == (
        8_200_000,
        1_234_567,
        67_000_000,
    )
    assert known["flops"] == 3e21
    longest = json.dumps(batch(ROW)).replace("14000", "9" * 5000)
    answer = client.post("/v1/observations", content=longest, headers=WRITER | {"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert len(answer.content) < 2000


def test_whether_to_go_on_is_the_services_own(client: TestClient, service: LawService) -> None:
    answer = client.post("/v1/should-go-on", json=ROW | {"loss": 50.0, "pretrain_tokens": 500_000}).json()
    assert answer["go_on"] is False
    assert "wrong with this run" in answer["why"]
    assert client.post("/v1/should-go-on", json=ROW | {"domain": "domain-9"}).status_code == 422


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer ", f"Basic {TOKEN}", "Bearer \xff"])
def test_writing_needs_the_token(client: TestClient, service: LawService, given: str | None) -> None:
    before = len(service.journal.records)
    headers = {} if given is None else {b"Authorization": given.encode("latin-1")}
    answer = client.post("/v1/observations", json=batch(ROW), headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "token" in answer.json()["message"]
    assert TOKEN not in answer.text
    assert len(service.journal.records) == before


def test_without_a_token_nobody_writes(service: LawService) -> None:
    client = TestClient(create_app(service))
    assert client.get("/v1/status").json()["takes_observations"] is False
    assert client.post("/v1/observations", json=batch(ROW), headers=WRITER).status_code == 403


def test_reading_can_be_closed(service: LawService) -> None:
    client = TestClient(create_app(service, token=TOKEN, open_reading=False))
    for route in ("advise", "curve", "law", "laws", "status", "trials", "observations", "events"):
        assert client.get(f"/v1/{route}").status_code == 401, route
    assert client.get("/metrics").status_code == 401
    assert client.get("/v1/status", headers=WRITER).status_code == 200
    assert client.get("/").status_code == client.get("/healthz").status_code == 200


def test_a_server_may_know_no_more_than_the_tokens_digest(service: LawService) -> None:
    known = digest(TOKEN)
    client = TestClient(create_app(service, token=known))
    assert TOKEN not in known
    assert digest(known) == known
    for given, status in ((TOKEN, 200), (known, 401), (TOKEN + "x", 401)):
        headers = {"Authorization": f"Bearer {given}"}
        assert client.post("/v1/observations", json=batch(ROW), headers=headers).status_code == status, given


def test_before_there_is_a_law_it_says_so(fresh: LawService) -> None:
    client = TestClient(create_app(fresh, token=TOKEN))
    for route in ("advise", "curve", "law", "predict?domain=domain-0&n_params=1&pretrain_tokens=1&specialize_tokens=1"):
        answer = client.get(f"/v1/{route}")
        assert answer.status_code == 409, route
        assert "no observations yet" in answer.json()["message"]
    assert client.get("/v1/laws").json() == client.get("/v1/trials").json() == []
    assert client.get("/v1/status").json()["law"] is None
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize(("code", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EIO, 503)])
def test_a_disk_that_refuses_is_told(
    fresh: LawService, monkeypatch: pytest.MonkeyPatch, code: int, status: int
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RunError("journal.jsonl: record 0 not stored") from OSError(code, "the disk")

    monkeypatch.setattr(fresh.journal, "append", refuse)
    client = TestClient(create_app(fresh, token=TOKEN))
    answer = client.post("/v1/observations", json=batch(ROW), headers=WRITER)
    assert answer.status_code == status
    assert "not stored" in answer.json()["message"]
    assert client.get("/v1/observations").json()["n_known"] == 0


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/page/../app.py", "/page/%2e%2e/app.py", "/page/page.css/", "/etc/passwd"]
)
def test_there_is_nothing_elsewhere(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "message" in answer.json()


def test_an_event_holds_no_long_lists(service: LawService) -> None:
    lines = closing_client(service).get("/v1/events?kind=round").text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [event["data"]["n_trials"] for event in events] == [
        len(record.data["trials"]) for record in service.journal.records if record.kind == "round"
    ]


ASKED_BY_GET = [
    "/",
    "/page/page.css",
    "/page/vega.js",
    "/page/advice?width=400",
    "/page/moved?width=400",
    "/page/tree?width=400",
    "/healthz",
    "/metrics",
    "/openapi.json",
    "/v1/advise",
    "/v1/predict?domain=domain-0&n_params=2e4&pretrain_tokens=7e5&specialize_tokens=0",
    "/v1/curve",
    "/v1/law",
    "/v1/laws",
    "/v1/history",
    "/v1/status",
    "/v1/trials",
    "/v1/observations",
    "/v1/events",
]


def closing_client(service: LawService) -> TestClient:
    """Of a server that is closing, whose streams end with what there is."""
    closing = threading.Event()
    closing.set()
    return TestClient(create_app(service, token=TOKEN, closing=closing))


@pytest.mark.parametrize("url", ASKED_BY_GET)
def test_head_is_get_without_its_body(service: LawService, url: str) -> None:
    client = closing_client(service)
    whole, head = client.get(url), client.head(url)
    assert whole.status_code == head.status_code == 200
    assert head.content == b""
    assert head.headers.keys() == whole.headers.keys()
    assert head.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize(
    ("url", "status"), [("/nothing", 404), ("/v1/advise?budget_flops=-1", 422), ("/v1/should-go-on", 405)]
)
def test_head_is_refused_as_get_is(client: TestClient, url: str, status: int) -> None:
    answer = client.head(url)
    assert (answer.status_code, answer.content) == (status, b"")


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/v1/status", "GET, HEAD, OPTIONS"), ("/v1/observations", "GET, POST, HEAD, OPTIONS"),
     ("/v1/should-go-on", "POST, OPTIONS"), ("/", "GET, HEAD, OPTIONS")],
)  # fmt: skip
def test_what_can_be_done_is_told(client: TestClient, path: str, methods: str) -> None:
    asked, refused = client.options(path), client.delete(path)
    assert (asked.status_code, asked.content) == (204, b"")
    assert refused.status_code == 405
    assert asked.headers["allow"] == refused.headers["allow"] == methods
    assert client.options("/nothing").status_code == 404


def strict(text: str) -> Any:
    """As other languages read JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_without_an_end_are_null_for_every_reader(tmp_path: Path) -> None:
    """As an older raysplit has left them in the journal."""
    with opened(tmp_path / "journal") as written:
        measure(written, 30)
        written.observe([Observation(**{**ROW, "loss": 3.25, "flops": 1e15, "wall_seconds": 7.0})])
        journal = written.journal
    old = []
    for record in journal.records:
        data = json.loads(json.dumps(record.data))
        if record.kind == "round":
            data |= {"spare_flops": float("inf"), "rate": float("inf")}
        if record.kind == "measurement":
            data["wall_seconds"] = float("nan")
        if record.kind == "observation":
            data["rows"][0] |= {"flops": float("inf"), "wall_seconds": float("-inf")}
        body = json.dumps({"seq": record.seq, "time": record.time, "kind": record.kind, "data": data})
        old.append(f'{body[:-1]}, "crc": "{zlib.crc32(body.encode()):08x}"}}\n')
    assert sum("Infinity" in line for line in old) > 1
    (tmp_path / "old.jsonl").write_text("".join(old))
    assert upgrade(tmp_path / "old") == len(old)
    with opened(tmp_path / "old") as service:
        client = closing_client(service)
        for url in ASKED_BY_GET:
            answer = client.get(url)
            assert answer.status_code == 200, url
            if answer.headers["content-type"] == "application/json":
                strict(answer.text)
        lines = client.get("/v1/events").text.splitlines()
        events = [strict(line[6:]) for line in lines if line.startswith("data: ")]
        assert len(events) == len(old)
        assert {event["data"]["spare_flops"] for event in events if event["kind"] == "round"} == {None}
        service.journal.append("finish", {"why": "a test", "rate": float("inf")})
    with opened(tmp_path / "old") as service:
        assert service.trials()
    lines = [line for path in (tmp_path / "old").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert len([strict(line) for line in lines]) > len(old)


def test_metrics_are_what_prometheus_reads(client: TestClient, service: LawService) -> None:
    text_string_to_metric_families = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families
    client.get("/v1/status")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["raysplit_observations",] == len(service.observations())
    assert samples["raysplit_advised_pretrain_share",] == service.advise().advice.pretrain_share.mean
    states = [trial.state for trial in service.trials()]
    assert samples["raysplit_trials", ("state", "done")] == states.count("done")
    assert samples["raysplit_http_requests_total", ("method", "GET"), ("route", "/v1/status"), ("status", "200")] >= 1
    buckets = [
        v for k, v in samples.items() if k[0] == "raysplit_http_request_seconds_bucket" and ("route", "/v1/status") in k
    ]
    assert buckets == sorted(buckets)
