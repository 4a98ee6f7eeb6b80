"""Where and to whom a live law is served over HTTP."""

import os
from dataclasses import dataclass, field

from raysplit.errors import RunError

TOKEN_VARIABLE = "RAYSPLIT_TOKEN"


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpOptions:
    """As `raysplit.live.http.serve_in_thread` takes them."""

    host: str
    port: int
    token: str | None = field(default=None, repr=False)
    open_reading: bool = True


def read_http_options(address: str, *, open_reading: bool = True) -> HttpOptions:
    """``HOST:PORT``, ``:PORT`` or ``PORT`` (on loopback), and the token from the environment.

    Raises:
        RunError: the address is not of that form.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise RunError(f"--http {address}: must be HOST:PORT or PORT, with a port from 0 to 65535")
    token = os.environ.get(TOKEN_VARIABLE) or None
    return HttpOptions(host=host.strip("[]") or "127.0.0.1", port=int(port), token=token, open_reading=open_reading)
