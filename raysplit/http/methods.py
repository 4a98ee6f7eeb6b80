"""HEAD and OPTIONS, the same on every route."""

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def methods_of(routes: list[BaseRoute], scope: Scope) -> list[str]:
    """What can be done at a path; nothing where there is nothing."""
    asked = ((method, {**scope, "method": method}) for method in ("GET", "POST"))
    found = [method for method, tried in asked if any(route.matches(tried)[0] is Match.FULL for route in routes)]
    return [*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"] if found else []


class HeadAndOptions:
    """ASGI middleware: HEAD is GET without its body, OPTIONS says what can be done at a path."""

    def __init__(self, app: ASGIApp, routes: list[BaseRoute]) -> None:
        self._app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and (known := methods_of(self._routes, scope)):
            return await Response(status_code=204, headers={"Allow": ", ".join(known)})(scope, receive, send)
        if scope["type"] == "http" and scope["method"] == "HEAD":
            return await self._head(scope, receive, send)
        return await self._app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_ended = False

        async def only_the_head(message: Message) -> None:
            nonlocal has_ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not has_ended:
                has_ended = True
                await send({"type": "http.response.body", "body": b""})
            if has_ended and message.get("more_body"):
                raise OSError("the head is all that was asked for")  # as for a client that hung up: ends a stream

        try:
            await self._app({**scope, "method": "GET"}, receive, only_the_head)
        except (OSError, ClientDisconnect):
            if not has_ended:
                raise
