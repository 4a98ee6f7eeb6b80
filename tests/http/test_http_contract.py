"""Schemathesis holds the server to its own OpenAPI description: whatever is asked, it answers as described."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from raysplit.http.app import create_app
from raysplit.live.service import LawService
from tests.http.served import TOKEN, measure, opened

ROUTES = [
    *(
        ("GET", f"/v1/{name}")
        for name in ("advise", "predict", "curve", "law", "laws", "status", "trials", "endings", "events", "history")
    ),
    ("GET", "/v1/observations"),
    ("POST", "/v1/observations"),
    ("POST", "/v1/should-go-on"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
]
# All but `positive_data_acceptance`: the schema cannot say which domains, versions and sums of tokens there are.
PROMISES = (
    "content_type_conformance",
    "negative_data_rejection",
    "not_a_server_error",
    "response_headers_conformance",
    "response_schema_conformance",
    "status_code_conformance",
    "unsupported_method",
)
load_all_checks()


CHECKED: list[Any] = [CHECKS.get_one(name) for name in PROMISES]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LawService]:
    with opened(tmp_path_factory.mktemp("contract") / "journal.jsonl") as service:
        measure(service, 12)
        yield service


@pytest.fixture(scope="module")
def described(service: LawService) -> Any:
    closing = threading.Event()
    closing.set()  # so that streams end
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(service, token=TOKEN, closing=closing))


def test_every_route_is_described(described: Any) -> None:
    assert {(o.ok().method.upper(), o.ok().path) for o in described.get_all_operations()} == set(ROUTES)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_answer_is_as_described(
    described: Any, service: LawService, method: str, path: str, mode: GenerationMode
) -> None:
    operation = described[path][method]
    if mode is GenerationMode.NEGATIVE and not (operation.query or operation.body):
        pytest.skip("takes nothing that could be wrong")

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    def ask(case: Case) -> None:
        before = len(service.journal.records)
        answer = case.call(headers={"Authorization": f"Bearer {TOKEN}"})
        case.validate_response(answer, checks=CHECKED)
        if answer.status_code >= 400:
            assert "message" in answer.json()
            assert len(service.journal.records) == before

    ask()
