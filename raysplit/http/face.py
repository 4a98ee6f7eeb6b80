"""HTTP as a face of the law actor (`raysplit.live.face`), which imports the server where it serves."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raysplit.http.options import HttpOptions, digest
from raysplit.live.questions import Asks

if TYPE_CHECKING:
    from raysplit.http.server import Server


@dataclass(frozen=True, slots=True)
class HttpFace:
    """Serves by these options."""

    options: HttpOptions

    def serve(self, law: Asks) -> "Server":
        """Serve a law of this process until the handle is closed.

        Raises:
            RunError: the address cannot be bound.
        """
        from raysplit.http.server import serve_in_thread

        asked = self.options
        return serve_in_thread(
            law, host=asked.host, port=asked.port, token=asked.token, open_reading=asked.open_reading,
            allowed_hosts=asked.allowed_hosts,
        )  # fmt: skip

    def at(self, url: str) -> "HttpFace":
        """The same with the port that was found, and of the token only what tells it."""
        token = None if self.options.token is None else digest(self.options.token)
        return HttpFace(replace(self.options, port=int(url.rpartition(":")[2]), token=token))

    def lacks(self, asked: "HttpFace") -> list[str]:
        """What somebody asks for that a law served by these options does not give."""
        return self.options.lacks(asked.options)
