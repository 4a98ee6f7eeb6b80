"""The server that several modules here ask: of the law that each of them opens."""

from collections.abc import Iterator

import pytest

from raysplit.http.server import Server, serve_in_thread
from raysplit.live.service import LawService
from tests.http.served import TOKEN


@pytest.fixture
def server(service: LawService) -> Iterator[Server]:
    server = serve_in_thread(service, token=TOKEN)
    yield server
    server.close()
