"""Where and to whom a live law is served over HTTP."""

import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from raysplit.errors import RunError

DEFAULT_ADDRESS = "127.0.0.1:8350"
TOKEN_VARIABLE = "RAYSPLIT_TOKEN"
_DIGEST = "sha256:"
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpOptions:
    """Checked when made.

    Raises:
        RunError: no port, an empty token, a name that no host has, or an address that others reach without a token.
    """

    host: str = "127.0.0.1"
    port: int = 0
    """0 for any that is free."""
    token: str | None = field(default=None, repr=False)
    """What writers must send, or its `digest`; without one nobody may write."""
    open_reading: bool = True
    """Whether one may read without it."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which the server may be asked beside its own; ``*.NAME`` for all below one."""

    def __post_init__(self) -> None:
        for name in self.allowed_hosts:
            if not is_host_name(name.removeprefix("*.")) and not is_address(name):
                raise RunError(
                    f"--allow-host {name}: is not a host's name; give it without http://, port and path, such as "
                    "law.example.com or *.example.com"
                )
        if not 0 <= self.port <= 65535:
            raise RunError(f"http://{self.host}:{self.port}: cannot be bound: a port is a number from 0 to 65535")
        check_token(self.token)
        if self.token is None and not self.open_reading:
            raise RunError(f"reading is closed and there is no token to open it; set {TOKEN_VARIABLE}")
        if self.token is None and not is_loopback(self.host):
            raise RunError(
                f"{self.host} is reached from other machines: a token is needed for writing; set {TOKEN_VARIABLE}"
            )

    def lacks(self, asked: "HttpOptions") -> list[str]:
        """What somebody asks for that a law served by these options does not give."""
        given = {
            "--closed-reading": self.open_reading and not asked.open_reading,
            "--allow-host": not set(asked.allowed_hosts) <= set(self.allowed_hosts),
            TOKEN_VARIABLE: asked.token is not None and digest(asked.token) != digest(self.token or ""),
        }
        return [name for name, is_lacking in given.items() if is_lacking]


def read_http_options(address: str, *, open_reading: bool = True, allowed_hosts: Sequence[str] = ()) -> HttpOptions:
    """``HOST:PORT``, ``:PORT`` or ``PORT`` (on loopback), and the token from the environment.

    Raises:
        RunError: the address is not of that form, or as `HttpOptions`.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:
        raise RunError(f"--http {address}: must be HOST:PORT or PORT, such as {DEFAULT_ADDRESS}; no http://, no path")
    token = os.environ.get(TOKEN_VARIABLE, "").strip() or None  # a file that it was read from ends with its line
    return HttpOptions(
        host=host.strip("[]") or "127.0.0.1",
        port=int(port),
        token=token,
        open_reading=open_reading,
        allowed_hosts=tuple(allowed_hosts),
    )


def check_token(token: str | None) -> None:
    """Refuse a token that no header can carry; the message does not show it.

    Raises:
        RunError: it is empty, or holds more than printable ASCII.
    """
    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise RunError("token: is empty, or has characters that a header cannot carry; use letters, digits and signs")


def digest(token: str) -> str:
    """What a server needs to know of a token; that of a digest is itself."""
    return token if token.startswith(_DIGEST) else _hashed(token)


def is_token(given: str, token: str) -> bool:
    """Whether who gives this knows the token, in constant time; its digest does not open anything."""
    return hmac.compare_digest(_hashed(given), digest(token))


def _hashed(token: str) -> str:
    return _DIGEST + hashlib.sha256(token.encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine is reached by a name or an address."""
    if not is_address(host):
        return host.lower().rstrip(".") == "localhost"
    address = ipaddress.ip_address(host)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_host_name(name: str) -> bool:
    """Whether a host can have it, with a dot at its end or without."""
    return _HOST_NAME.fullmatch(name) is not None


def is_address(host: str) -> bool:
    """Whether it is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
