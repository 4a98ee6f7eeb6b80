"""The routes under /v1, each of them a method of the law; whatever takes more than a moment runs in a thread."""

import codecs
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.json_schema import SkipJsonSchema
from starlette.concurrency import run_in_threadpool

from raysplit.errors import LawError, SplitError
from raysplit.http import told
from raysplit.http.asked import (
    MAX_BODY_BYTES,
    AskAdvice,
    AskCurve,
    AskEvents,
    AskLoss,
    AskRows,
    Batch,
    Row,
    ThisLaw,
    key_of,
)
from raysplit.http.law import ServedLaw
from raysplit.http.refusals import Refusal, Refused, of_validation, unknown_value
from raysplit.http.stream import stream
from raysplit.live.answers import Accepted, Curve, GoOn, LawStamp, LiveAdvice, TrialState
from raysplit.runs import MAX_COUNT

_Body = TypeVar("_Body", bound=BaseModel)

_KEPT_ANSWERS = 256
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


def _takes(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's words for a body that the route reads itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def routes(
    law: ServedLaw,
    *,
    read: Callable[..., None],
    write: Callable[..., None],
    reading_is_open: bool,
    takes_observations: bool,
    closing: threading.Event,
) -> APIRouter:
    """Ask and tell a law.

    Args:
        law: asked from several threads.
        read, write: dependencies that refuse who may not.
        reading_is_open, takes_observations: told at /v1/status.
        closing: set when streams must end.
    """
    router = APIRouter(prefix="/v1", responses=_REFUSALS)
    reading, writing = [Depends(read)], [Depends(write)]
    kept: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()  # touched by the event loop alone
    n_streams = 0

    def check_version(version: int | None) -> None:
        if version is not None:
            known = [stamp.version for stamp in law.laws()]
            if version not in known:
                raise unknown_value(404, "version", "law version", version, known)

    @router.get("/advise", response_model=LiveAdvice, dependencies=reading)
    async def advise(ask: Annotated[AskAdvice, Query()]) -> Response:
        """The best split of the sweep's target, or of a budget, sizes, weights and accounting of your own."""
        question = ask.question()

        def answer() -> tuple[bytes, LawStamp]:
            check_version(ask.version)
            live = law.advise(question, version=ask.version)
            return told.advice_json(live.advice), live.law

        stamp = law.stamp()
        if ask.version is None and stamp is not None and (known := kept.get((stamp.version, *key_of(question)))):
            return _json(told.with_stamp(known, stamp))
        advice, its_law = await run_in_threadpool(answer)
        if ask.version is None:
            kept[its_law.version, *key_of(question)] = advice
            while len(kept) > _KEPT_ANSWERS:
                kept.popitem(last=False)
        return _json(told.with_stamp(advice, its_law))

    @router.get("/predict", response_model=told.Predicted, dependencies=reading)
    def predict(ask: Annotated[AskLoss, Query()]) -> Response:
        """The loss that the law expects at a point, with the interval of one measurement there."""
        check_version(ask.version)
        domains = law.law(ask.version).domains
        if ask.domain not in domains:
            raise unknown_value(422, "domain", "domain", ask.domain, domains)
        live = law.predict(
            ask.domain,
            n_params=ask.n_params,
            pretrain_tokens=ask.pretrain_tokens,
            specialize_tokens=ask.specialize_tokens,
            level=ask.level,
            version=ask.version,
        )
        found = told.predicted(live, ask.level)
        if not np.isfinite([found.mean, found.low, found.high]).all():
            at = f"D = {ask.pretrain_tokens:g}, D' = {ask.specialize_tokens:g}"
            raise Refused(422, f"pretrain_tokens: the law has no loss at {at}", field="pretrain_tokens")
        return _json(found.model_dump_json().encode())

    @router.get("/curve", response_model=Curve, dependencies=reading)
    def curve(ask: Annotated[AskCurve, Query()]) -> Response:
        """The best loss against D / T at one size, its interval, and the measured splits of about this budget."""
        check_version(ask.version)
        return _json(told.CURVE.dump_json(law.curve(ask.question(), n_params=ask.at_n_params, version=ask.version)))

    @router.get("/law", response_model=told.WholeLaw, dependencies=reading)
    def whole_law(ask: Annotated[ThisLaw, Query()]) -> Response:
        """The fitted law itself, as `raysplit fit` writes it."""
        check_version(ask.version)
        text = law.law(ask.version).to_json().encode()
        stamp = law.stamp() if ask.version is None else next(s for s in law.laws() if s.version == ask.version)
        assert stamp is not None
        return _json(b'{"law":' + text + b',"stamp":' + told.STAMP.dump_json(stamp) + b"}")

    @router.get("/laws", response_model=list[LawStamp], dependencies=reading)
    def laws() -> Response:
        """Every law that can be asked for by its version, oldest first."""
        return _json(told.STAMPS.dump_json(law.laws()))

    @router.get("/history", response_model=list[told.Step], dependencies=reading)
    def history() -> Response:
        """How the advice at the sweep's own target moved: what every law that is kept says about it, oldest first."""
        steps = []
        for stamp in law.laws():
            try:
                steps.append(told.step(law.advise(version=stamp.version)))
            except (LawError, SplitError):  # no longer kept, or of too few domains
                continue
        return _json(told.STEPS.dump_json(steps))

    @router.get("/status", response_model=told.Standing, dependencies=reading)
    def status() -> Response:
        """Where the sweep stands."""
        now = told.standing(
            law.status(), law.stamp(), reading_is_open=reading_is_open, takes_observations=takes_observations
        )
        return _json(now.model_dump_json().encode())

    @router.get("/trials", response_model=list[TrialState], dependencies=reading)
    def trials() -> Response:
        """Every trunk and branch of the sweep and how far it has come."""
        return _json(told.TRIALS.dump_json(law.trials()))

    @router.get("/observations", response_model=told.Rows, dependencies=reading)
    def observations(ask: Annotated[AskRows, Query()]) -> Response:
        """What the law knows, a page at a time, ordered by size, tokens and domain."""
        return _json(told.rows(law.observations(), offset=ask.offset, limit=ask.limit).model_dump_json().encode())

    @router.post(
        "/observations",
        response_model=Accepted,
        dependencies=writing,
        responses=_NOT_STORED,
        openapi_extra=_takes(Batch),
    )
    async def observe(request: Request) -> Response:
        """Add runs measured elsewhere: all of a batch is on disk when this answers, or nothing of it.

        The same observations again change nothing.
        """
        body = await _read(request)
        return await run_in_threadpool(
            lambda: _json(
                told.ACCEPTED.dump_json(law.observe([row.observation() for row in _parse(Batch, body).observations]))
            )
        )

    @router.post("/should-go-on", response_model=GoOn, dependencies=reading, openapi_extra=_takes(Row))
    async def should_go_on(request: Request) -> Response:
        """Whether a run that raysplit did not start is worth its next tokens; nothing is stored."""
        body = await _read(request)
        return await run_in_threadpool(
            lambda: _json(told.GO_ON.dump_json(law.should_go_on(_parse(Row, body).observation())))
        )

    @router.get("/events", response_class=StreamingResponse, dependencies=reading, responses=_STREAM)
    async def events(
        ask: Annotated[AskEvents, Query()],
        last_event_id: Annotated[int | SkipJsonSchema[None], Header(ge=-1, le=MAX_COUNT)] = None,
    ) -> Response:
        """The sweep's records as they are written: server-sent events, resumed by `Last-Event-ID` or `after`."""
        nonlocal n_streams
        if n_streams >= _MAX_STREAMS:
            raise Refused(429, f"{n_streams} streams are open already", headers={"Retry-After": "10"})
        after = ask.after if last_event_id is None else last_event_id

        async def counted() -> AsyncIterator[bytes]:
            nonlocal n_streams
            n_streams += 1
            try:
                async for part in stream(law, after=after, kinds=ask.kind, closing=closing):
                    yield part
            finally:
                n_streams -= 1

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(counted(), media_type="text/event-stream", headers=headers)

    return router


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


async def _read(request: Request) -> bytes:
    """A JSON body, refused by its length before it has come in whole.

    Raises:
        Refused: too long, or not said to be JSON.
    """
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said != "application/json":
        raise Refused(415, "Content-Type: must be application/json", field="Content-Type", value=said)
    too_long = Refused(
        413,
        f"body: more than {MAX_BODY_BYTES} bytes; send several smaller ones",
        field="body",
        headers={"Connection": "close"},  # or the server would read on to the body's end
    )
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        raise too_long
    parts, n_bytes = [], 0
    async for part in request.stream():
        parts.append(part)
        n_bytes += len(part)
        if n_bytes > MAX_BODY_BYTES:
            raise too_long
    return b"".join(parts)


def _parse(model: type[_Body], body: bytes) -> _Body:
    """Raises: Refused: the body is not of this shape."""
    try:
        return TypeAdapter(model).validate_json(body.removeprefix(codecs.BOM_UTF8))  # as editors on Windows write it
    except ValidationError as error:
        raise of_validation(error.errors(include_url=False)) from error
