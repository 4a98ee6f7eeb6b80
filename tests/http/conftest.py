"""The server that several modules here ask: of the law that each of them opens."""

from collections.abc import Iterator

import pytest

from raysplit.http.face import HttpFace
from raysplit.http.options import HttpOptions
from raysplit.http.serving import Server
from raysplit.live.service import LawService
from tests.http.served import TOKEN


@pytest.fixture
def server(service: LawService) -> Iterator[Server]:
    server = HttpFace(HttpOptions(token=TOKEN)).serve(service)
    yield server
    server.close()
