"""Where and to whom a live law is served over HTTP."""

import hashlib
import hmac
import ipaddress
import os
from dataclasses import dataclass, field

from raysplit.errors import RunError

TOKEN_VARIABLE = "RAYSPLIT_TOKEN"
_DIGEST = "sha256:"


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpOptions:
    """Checked when made.

    Raises:
        RunError: no port, an empty token, or an address that others reach without a token.
    """

    host: str
    port: int
    """0 for any that is free."""
    token: str | None = field(default=None, repr=False)
    """What writers must send, or its `digest`; without one nobody may write."""
    open_reading: bool = True
    """Whether one may read without it."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise RunError(f"http://{self.host}:{self.port}: cannot be bound: a port is a number from 0 to 65535")
        if self.token is not None and not self.token:
            raise RunError("token: is empty")
        if self.token is None and not self.open_reading:
            raise RunError(f"reading is closed and there is no token to open it; set {TOKEN_VARIABLE}")
        if self.token is None and not _is_loopback(self.host):
            raise RunError(
                f"{self.host} is reached from other machines: a token is needed for writing; set {TOKEN_VARIABLE}"
            )


def read_http_options(address: str, *, open_reading: bool = True) -> HttpOptions:
    """``HOST:PORT``, ``:PORT`` or ``PORT`` (on loopback), and the token from the environment.

    Raises:
        RunError: the address is not of that form, or as `HttpOptions`.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise RunError(f"--http {address}: must be HOST:PORT or PORT")
    token = os.environ.get(TOKEN_VARIABLE) or None
    return HttpOptions(host=host.strip("[]") or "127.0.0.1", port=int(port), token=token, open_reading=open_reading)


def digest(token: str) -> str:
    """What a server needs to know of a token; that of a digest is itself."""
    return token if token.startswith(_DIGEST) else _hashed(token)


def is_token(given: str, token: str) -> bool:
    """Whether who gives this knows the token, in constant time; its digest does not open anything."""
    return hmac.compare_digest(_hashed(given), digest(token))


def _hashed(token: str) -> str:
    return _DIGEST + hashlib.sha256(token.encode()).hexdigest()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
