"""The web application: the routes of the law, its page, its metrics, and every error as JSON."""

import hashlib
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

import raysplit
from raysplit.errors import RaysplitError
from raysplit.http.access import reader, writer
from raysplit.http.hosts import Hosts, OwnHosts
from raysplit.http.methods import HeadAndOptions, methods_of
from raysplit.http.metrics import CONTENT_TYPE, Counted, Metrics
from raysplit.http.pictures import page_routes
from raysplit.http.refusals import Refused, of_error, of_mistake
from raysplit.http.routes import Rights, routes
from raysplit.live.mistakes import mistake_of
from raysplit.live.questions import QUESTIONS, AnsweringLaw
from raysplit.pictures.style import style_sheet

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}
_PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def create_app(
    law: AnsweringLaw,
    *,
    token: str | None = None,
    open_reading: bool = True,
    hosts: Hosts | None = None,
    closing: threading.Event | None = None,
) -> FastAPI:
    """The HTTP face of a live law.

    Args:
        law: asked from several threads.
        token: what writers must send; without one nobody may write.
        open_reading: whether one may read without it. The empty page and /healthz can always be read.
        hosts: by which names it may be asked; by any where None.
        closing: set by the server when its streams must end.
    """
    app = FastAPI(
        title="raysplit",
        summary="The law of a running sweep",
        version=raysplit.__version__,
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    metrics = Metrics(law)
    app.add_middleware(Counted, metrics=metrics)
    app.add_middleware(HeadAndOptions, routes=app.routes)
    if hosts is not None:
        app.add_middleware(OwnHosts, hosts=hosts)
    read = reader(token, open_reading=open_reading)
    app.include_router(
        routes(
            law,
            rights=Rights(
                read=read, write=writer(token), reading_is_open=open_reading, takes_observations=token is not None
            ),
            closing=closing or threading.Event(),
        )
    )
    app.include_router(page_routes(law, read=read))
    _add_errors(app, law)
    _add_page(app)

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """Whether the server answers at all."""
        return "ok\n"

    @app.get("/metrics", response_class=PlainTextResponse, dependencies=[Depends(read)])
    def figures() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description and the bodies that routes read themselves."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        _, bodies = models_json_schema(
            [(question.body, "validation") for question in QUESTIONS if question.body],
            ref_template="#/components/schemas/{model}",
        )
        schema["components"]["schemas"] |= bodies["$defs"]
        app.openapi_schema = schema
    return app.openapi_schema


def _add_errors(app: FastAPI, law: AnsweringLaw) -> None:
    def answer(refused: Refused) -> JSONResponse:
        return JSONResponse(refused.refusal.model_dump(), status_code=refused.status, headers=refused.headers)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer(of_mistake(mistake_of(error.errors())))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        status = error.status_code
        what = {404: f"there is nothing at {request.url.path[:120]}", 405: f"{request.method} cannot be used here"}
        headers = dict(error.headers or {})
        if status == 405:
            headers["Allow"] = ", ".join(methods_of(app.routes, request.scope))
        return answer(Refused(status, what.get(status, str(error.detail)), headers=headers))

    @app.exception_handler(RaysplitError)
    async def own(_: Request, error: RaysplitError) -> JSONResponse:
        return answer(of_error(error, has_law=law.stamp() is not None))


def _add_page(app: FastAPI) -> None:
    """The page's files, read once; a name outside this list reaches no file."""
    contents = {file.name: file.read_bytes() for file in (files("raysplit.live") / "page").iterdir()}
    contents["colours.css"] = style_sheet().encode()
    for name, content in contents.items():
        plain_name = name.removesuffix(".gz")
        kind = _KINDS.get(plain_name.rpartition(".")[2])
        if kind is None:
            continue
        path = "/" if name == "index.html" else f"/page/{plain_name}"
        headers = {**_PAGE_HEADERS, "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}
        if name != plain_name:  # every browser takes it
            headers["Content-Encoding"] = "gzip"
        sender = _sender(content, f"{kind}; charset=utf-8", headers)
        app.add_api_route(path, sender, methods=["GET"], include_in_schema=False)


def _sender(content: bytes, kind: str, headers: dict[str, str]) -> Callable[[Request], Response]:
    def send(request: Request) -> Response:
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return send
