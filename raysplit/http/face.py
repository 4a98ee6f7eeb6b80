"""HTTP as a face of the law actor (`raysplit.live.face`), which imports the server where it serves."""

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raysplit.http.options import HttpOptions, digest
from raysplit.live.questions import AnsweringLaw

if TYPE_CHECKING:
    from raysplit.http.serving import Server

_LINGER_SECONDS = 3


@dataclass(frozen=True, slots=True)
class HttpFace:
    """Serves by these options."""

    options: HttpOptions

    def serve(self, law: AnsweringLaw) -> "Server":
        """Serve a law of this process, asked from several threads, until the handle is closed.

        Raises:
            RunError: the address cannot be bound.
        """
        from raysplit.http.app import create_app
        from raysplit.http.hosts import Hosts
        from raysplit.http.serving import serve_app

        asked, closing = self.options, threading.Event()
        hosts = Hosts(asked.host, asked.allowed_hosts)
        app = create_app(law, token=asked.token, open_reading=asked.open_reading, hosts=hosts, closing=closing)
        return serve_app(app, host=asked.host, port=asked.port, linger_seconds=_LINGER_SECONDS, closing=closing)

    def at(self, url: str) -> "HttpFace":
        """The same with the port that was found, and of the token only what tells it."""
        token = None if self.options.token is None else digest(self.options.token)
        return HttpFace(replace(self.options, port=int(url.rpartition(":")[2]), token=token))

    def lacks(self, asked: "HttpFace") -> list[str]:
        """What somebody asks for that a law served by these options does not give."""
        return self.options.lacks(asked.options)
