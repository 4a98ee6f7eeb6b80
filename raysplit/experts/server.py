"""The endpoint under uvicorn: bound before it is told where, in a thread of its own."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from raysplit.experts.app import make_app
from raysplit.experts.expert_set import ExpertSet
from raysplit.http.binding import bind

_END_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class ExpertServer:
    """A server that runs until `close`; also a context manager."""

    url: str
    _server: uvicorn.Server
    _thread: threading.Thread

    @classmethod
    def start(
        cls, expert_set: ExpertSet, *, host: str, port: int, token: str | None, allowed_hosts: Sequence[str] = ()
    ) -> Self:
        """Serve at an address; port 0 takes one that is free.

        Without a token only requests to this host's own names are answered, and to ``allowed_hosts``, so that a page
        in somebody's browser cannot reach the server by a name that it has pointed here.

        Raises:
            RunError: the address cannot be bound.
        """
        bound = bind(host, port)
        app = make_app(expert_set, token=token)
        if token is None and ":" not in host:  # the middleware cannot read the address [::1]
            app.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost", "127.0.0.1", *allowed_hosts])
        config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        name = f"[{host}]" if ":" in host else host
        return cls(url=f"http://{name}:{bound.getsockname()[1]}/v1", _server=server, _thread=thread)

    def close(self) -> None:
        """Let requests under way end, then stop."""
        self._server.should_exit = True
        self._thread.join(timeout=_END_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self.close()
