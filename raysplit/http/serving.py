"""A web application under uvicorn in a thread of its own: bound before anyone is told where."""

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from raysplit.errors import RunError
from raysplit.http.binding import bind

_START_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server; as a context manager it is closed at the end."""

    url: str
    _server: uvicorn.Server = field(repr=False)
    _thread: threading.Thread = field(repr=False)
    _closing: threading.Event = field(repr=False)

    def close(self) -> None:
        """Answer what is being asked, end the streams, and stop."""
        self._closing.set()
        self._server.should_exit = True
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self.close()


def serve_app(
    app: ASGIApp, *, host: str, port: int, linger_seconds: int, closing: threading.Event | None = None
) -> Server:
    """Serve until the handle is closed.

    Args:
        app: what answers.
        host: what to bind to.
        port: 0 for any that is free; the handle's url says which.
        linger_seconds: for requests that are being answered when the server closes.
        closing: set when it does.

    Raises:
        RunError: the address cannot be bound.
    """
    bound = bind(host, port)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=linger_seconds
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="raysplit-http", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            server.should_exit = True  # late as it is, it would keep the port for itself
            thread.join(timeout=linger_seconds)
            bound.close()
            raise RunError(f"http://{host}:{port}: the server did not start")
        time.sleep(0.005)
    shown = f"[{host}]" if ":" in host else host
    return Server(
        url=f"http://{shown}:{bound.getsockname()[1]}",
        _server=server,
        _thread=thread,
        _closing=closing or threading.Event(),
    )
