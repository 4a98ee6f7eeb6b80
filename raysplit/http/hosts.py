"""By which names the server may be asked.

A page of another site can have its own name lead to this machine (DNS rebinding), and the browser then lets it read all
that is answered. What it cannot do is to send another `Host` than that name.
"""

import socket
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from raysplit.http.options import is_address, is_host_name, is_loopback
from raysplit.http.refusals import Refused


class Hosts:
    """The names of a server: on loopback localhost and loopback's addresses, else every address and its own names."""

    def __init__(self, bound: str, allowed: Sequence[str] = ()) -> None:
        """Look up this machine's names where others may ask by them.

        Args:
            bound: what the server is bound to.
            allowed: further names, ``*.NAME`` for all below one.
        """
        self._is_private = is_loopback(bound)
        own = () if self._is_private else _names_of_this_machine(bound)
        self.names = tuple(dict.fromkeys(name.lower().rstrip(".") for name in (*own, *allowed)))

    def allows(self, asked: str) -> bool:
        """Whether the server may be asked by a `Host`, with or without a port."""
        name = _name_in(asked)
        if is_loopback(name):
            return True
        if is_address(name):  # a name that was made to lead here is none
            return not self._is_private or name in self.names
        return any(name == known or (known.startswith("*.") and name.endswith(known[1:])) for known in self.names)


class OwnHosts:
    """ASGI middleware that answers only who asks by one of the server's names."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        asked = Headers(scope=scope).getlist("host")
        # HTTP/1.0 knows no Host, and no browser speaks it: a probe of a load balancer may.
        if (not asked and scope["http_version"] == "1.0") or (len(asked) == 1 and self._hosts.allows(asked[0])):
            return await self._app(scope, receive, send)
        name = _name_in(asked[0]) if len(asked) == 1 else ""
        refused = Refused(
            421,
            "Host: the server is not asked by this name; whoever started it can allow it with --allow-host "
            + (name if is_host_name(name) else "NAME"),
            field="Host",
            value=", ".join(asked),
            choices=["localhost", *self._hosts.names],
        )
        answer = JSONResponse(refused.refusal.model_dump(), status_code=refused.status)
        return await answer(scope, receive, send)


def _name_in(host: str) -> str:
    """Without port, brackets and the dot at its end, in small letters."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    if name.count(":") == 1:
        name = name.partition(":")[0]
    return name.rstrip(".")


def _names_of_this_machine(bound: str) -> tuple[str, ...]:
    name = socket.gethostname()
    return (*(() if is_address(bound) else (bound,)), name, f"{name.partition('.')[0]}.local", socket.getfqdn())
