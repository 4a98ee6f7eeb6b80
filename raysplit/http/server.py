"""The HTTP server in a thread of the process that holds the law, with an event loop of its own."""

import threading
import time
from dataclasses import dataclass, field

import uvicorn

from raysplit.errors import RunError
from raysplit.http.app import create_app
from raysplit.http.binding import bind
from raysplit.http.hosts import Hosts
from raysplit.http.options import HttpOptions
from raysplit.live.questions import Asks

_START_SECONDS = 30.0
_LINGER_SECONDS = 3
"""For requests that are being answered when the server closes."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server."""

    url: str
    _server: uvicorn.Server = field(repr=False)
    _thread: threading.Thread = field(repr=False)
    _closing: threading.Event = field(repr=False)

    def close(self) -> None:
        """Answer what is being asked, end the streams, and stop."""
        self._closing.set()
        self._server.should_exit = True
        self._thread.join()


def serve_in_thread(
    law: Asks,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    open_reading: bool = True,
    allowed_hosts: tuple[str, ...] = (),
) -> Server:
    """Serve a law over HTTP until the handle is closed.

    Args:
        law: asked from several threads.
        host: what to bind to; anything but loopback needs a token.
        port: 0 for any that is free; the handle's url says which.
        token: what writers must send; without one nobody may write.
        open_reading: whether one may read without it.
        allowed_hosts: names by which it may be asked beside its own.

    Raises:
        RunError: the address cannot be bound, or is open to others without a token.
    """
    # Checks them.
    HttpOptions(host=host, port=port, token=token, open_reading=open_reading, allowed_hosts=allowed_hosts)
    closing, hosts = threading.Event(), Hosts(host, allowed_hosts)
    app = create_app(law, token=token, open_reading=open_reading, hosts=hosts, closing=closing)
    bound = bind(host, port)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=_LINGER_SECONDS
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="raysplit-http", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            server.should_exit = True  # late as it is, it would keep the port for itself
            thread.join(timeout=_LINGER_SECONDS)
            bound.close()
            raise RunError(f"http://{host}:{port}: the server did not start")
        time.sleep(0.005)
    shown = f"[{host}]" if ":" in host else host
    return Server(url=f"http://{shown}:{bound.getsockname()[1]}", _server=server, _thread=thread, _closing=closing)
