"""Who may read and who may write: a bearer token.

The dependencies are coroutines, though nothing in them waits: FastAPI would give others a thread of their own.
"""

from collections.abc import Awaitable, Callable

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from raysplit.http.options import is_token
from raysplit.http.refusals import Refused

_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="The token that the server was started with.")
_given = Depends(_bearer)


def reader(token: str | None, *, open_reading: bool) -> Callable[..., Awaitable[None]]:
    """A dependency that lets readers in."""

    async def admit(given: HTTPAuthorizationCredentials | None = _given) -> None:
        _check(token, given)

    return _anyone if open_reading else admit


def writer(token: str | None) -> Callable[..., Awaitable[None]]:
    """A dependency that lets writers in; without a token there are none."""

    async def admit(given: HTTPAuthorizationCredentials | None = _given) -> None:
        if token is None:
            raise Refused(403, "this server was started without a token and takes no observations")
        _check(token, given)

    return admit


async def _anyone() -> None:
    """Whose dependency asks for no token, so that OpenAPI asks for none either."""


def _check(token: str | None, given: HTTPAuthorizationCredentials | None) -> None:
    said = "send Authorization: Bearer TOKEN"
    if given is None:
        raise Refused(401, f"a token is needed: {said}", headers={"WWW-Authenticate": "Bearer"})
    if token is None or not is_token(given.credentials, token):
        headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        raise Refused(401, f"this is not the server's token: {said}", headers=headers)
