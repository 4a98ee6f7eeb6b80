"""The routes under /v1, made of the list of questions: the query or the body of each is its fields.

Whatever takes more than a moment runs in a thread.
"""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import SkipJsonSchema
from starlette.concurrency import run_in_threadpool

from raysplit.http.parsing import question_in_body, question_in_query, read_body
from raysplit.http.refusals import Refusal, Refused
from raysplit.http.stream import stream
from raysplit.live.answers import LawStamp, Status
from raysplit.live.questions import QUESTIONS, AnsweringLaw, AskEvents, AskStatus, Question, query_schema
from raysplit.runs import MAX_COUNT

_MAX_STREAMS = 64
_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refusal, "description": "Refused; the message says why."}
}
_NOT_STORED: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": "Nothing was stored."} for status in (503, 507)
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "One `Event` a message, its number as the id.", "content": {"text/event-stream": {}}}
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing(Status):
    """Where the sweep stands, and what this server lets one do."""

    law: LawStamp | None
    reading_is_open: bool
    takes_observations: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Rights:
    """Who may do what on a server."""

    read: Callable[..., Awaitable[None]]
    """A dependency that refuses who may not read."""
    write: Callable[..., Awaitable[None]]
    reading_is_open: bool
    takes_observations: bool


def routes(law: AnsweringLaw, *, rights: Rights, closing: threading.Event) -> APIRouter:
    """A route for every question that goes over HTTP.

    Args:
        law: asked from several threads; `stamp` must answer at once.
        rights: who may ask.
        closing: set when streams must end.
    """
    router = APIRouter(responses=_REFUSALS)
    for question in QUESTIONS:
        if question is AskEvents:
            _add_stream(router, law, rights, closing)
        elif question.path:
            _add(router, law, rights, question)
    return router


def _add(router: APIRouter, law: AnsweringLaw, rights: Rights, question: type[Question[Any]]) -> None:
    is_status = question is AskStatus
    kind = TypeAdapter(Standing if is_status else question.answer)

    def answer(asked: Question[Any]) -> Response:
        found = law.ask(asked)
        return _json(kind.dump_json(_standing(law, rights, found) if is_status else found))

    router.add_api_route(
        question.path,
        _by_body(question, answer) if question.body else _by_query(question, answer),
        methods=["POST" if question.body else "GET"],
        name=question.name,
        description=question.__doc__,
        response_model=Standing if is_status else question.answer,
        dependencies=[Depends(rights.write if question.writes else rights.read)],
        responses=_NOT_STORED if question.writes else None,
        openapi_extra=_body_schema(question.body) if question.body else _query_parameters(question),
    )


def _standing(law: AnsweringLaw, rights: Rights, status: Status) -> Standing:
    return Standing(
        **asdict(status), law=law.stamp(), reading_is_open=rights.reading_is_open,
        takes_observations=rights.takes_observations,
    )  # fmt: skip


def _by_query(question: type[Question[Any]], answer: Callable[[Question[Any]], Response]) -> Callable[..., Response]:
    def get(request: Request) -> Response:
        return answer(question_in_query(question, request.query_params.multi_items()))

    return get


def _by_body(
    question: type[Question[Any]], answer: Callable[[Question[Any]], Response]
) -> Callable[..., Awaitable[Response]]:
    async def post(request: Request) -> Response:
        body = await read_body(request)
        return await run_in_threadpool(lambda: answer(question_in_body(question, body)))

    return post


def _add_stream(router: APIRouter, law: AnsweringLaw, rights: Rights, closing: threading.Event) -> None:
    n_streams = 0

    @router.get(
        AskEvents.path, name=AskEvents.name, description=AskEvents.__doc__, response_class=StreamingResponse,
        dependencies=[Depends(rights.read)], responses=_STREAM, openapi_extra=_query_parameters(AskEvents),
    )  # fmt: skip
    async def events(
        request: Request,
        last_event_id: Annotated[int | SkipJsonSchema[None], Header(ge=-1, le=MAX_COUNT)] = None,
    ) -> Response:
        nonlocal n_streams
        asked = question_in_query(AskEvents, request.query_params.multi_items())
        assert isinstance(asked, AskEvents)
        if n_streams >= _MAX_STREAMS:
            raise Refused(429, f"{n_streams} streams are open already", headers={"Retry-After": "10"})
        after = asked.after if last_event_id is None else last_event_id

        async def counted() -> AsyncIterator[bytes]:
            nonlocal n_streams
            n_streams += 1
            try:
                async for part in stream(law, after=after, kinds=asked.kind, closing=closing):
                    yield part
            finally:
                n_streams -= 1

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(counted(), media_type="text/event-stream", headers=headers)


def _query_parameters(question: type[Question[Any]]) -> dict[str, Any]:
    """OpenAPI's words for a question's fields."""
    schema = query_schema(question)
    needed, found = schema.get("required", []), []
    for name, field in schema["properties"].items():
        about = {"description": field.pop("description")} if "description" in field else {}
        found.append({"name": name, "in": "query", "required": name in needed, "schema": field, **about})
    return {"parameters": found}


def _body_schema(body: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's words for a body that the route reads itself."""
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})
