"""The experts behind one OpenAI-compatible completion endpoint: /v1/models and /v1/completions, streamed or not.

A model's name is that of an expert, ``routed`` (the router's first choice for each prompt) or ``mixture`` (all experts,
with weights that follow the text).
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from raysplit.errors import ExpertError, unknown
from raysplit.experts.expert_set import ExpertSet, Route
from raysplit.experts.generation import Piece, Sampling
from raysplit.experts.routing import Routing
from raysplit.http.hosts import Hosts, OwnHosts
from raysplit.http.options import is_token
from raysplit.http.serving import Server, serve_app

ROUTED, MIXTURE = "routed", "mixture"
_LINGER_SECONDS = 30
"""How long completions under way may go on after the end of serving."""


class CompletionRequest(BaseModel):
    """As OpenAI's, of which the fields that change nothing here are taken and not used (``user``)."""

    model_config = ConfigDict(extra="forbid")

    model: str
    prompt: str | list[str] = ""
    max_tokens: int = Field(default=16, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    n: int = Field(default=1, ge=1, le=1)
    echo: bool = False
    user: str | None = None

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def sampling(self) -> Sampling:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(stop),
        )


def serve_experts(
    expert_set: ExpertSet, *, host: str, port: int, token: str | None, allowed_hosts: Sequence[str] = ()
) -> Server:
    """Serve experts until the handle is closed; OpenAI's clients take its url and ``/v1``.

    Args:
        expert_set: what is served.
        host: address to bind to.
        port: 0 for any that is free.
        token: the bearer token that every request must carry; None for none.
        allowed_hosts: names, beside its own, by which it may be asked. Requests by any other name are refused, against
            DNS rebinding: a web page points a name of its own at this address.

    Raises:
        ExpertError: as `make_app`.
        RunError: the address cannot be bound.
    """
    app = OwnHosts(make_app(expert_set, token=token), Hosts(host, allowed_hosts))
    return serve_app(app, host=host, port=port, linger_seconds=_LINGER_SECONDS)


def make_app(expert_set: ExpertSet, *, token: str | None) -> FastAPI:
    """The application.

    Args:
        expert_set: what is served.
        token: the bearer token that every request must carry; None for none.

    Raises:
        ExpertError: an expert has the name of one of the endpoint's own models.
    """
    if taken := [name for name in (ROUTED, MIXTURE) if name in expert_set.names]:
        raise ExpertError(
            f"{expert_set.experts.origin}: the expert {taken[0]!r} has the name of a model that the endpoint makes of "
            "all experts; serve copies of the experts' folders, this one under another name"
        )
    app = FastAPI(title="raysplit experts", docs_url=None, redoc_url=None)
    models: dict[str, Routing | str] = {
        ROUTED: expert_set.default_routing(),
        MIXTURE: Routing(router="uniform", top=None, updated=True),
        **{name: name for name in expert_set.names},
    }
    started = int(time.time())

    def bearing(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token is not None and not is_token(given, token):
            raise HTTPException(401, "the token is missing or wrong; send Authorization: Bearer TOKEN")

    checked = Annotated[None, Depends(bearing)]

    def known(name: str) -> Routing | str:
        if name not in models:
            raise HTTPException(404, unknown("model", name, models))
        return models[name]

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        problem = error.errors()[0]
        return _error(400, f"{'.'.join(map(str, problem['loc'][1:]))}: {problem['msg']}")

    @app.exception_handler(ExpertError)
    def impossible(request: Request, error: ExpertError) -> JSONResponse:
        return _error(400, str(error))

    @app.get("/v1/models")
    def list_models(_: checked) -> dict[str, Any]:
        return {"object": "list", "data": [_model(name, started) for name in models]}

    @app.get("/v1/models/{name}")
    def one_model(name: str, _: checked) -> dict[str, Any]:
        known(name)
        return _model(name, started)

    @app.post("/v1/completions", response_model=None)
    def complete(asked: CompletionRequest, _: checked) -> dict[str, Any] | StreamingResponse:
        how = known(asked.model)
        if not asked.prompts:
            raise HTTPException(400, "prompt: is an empty list; give a text, or several")
        # What is wrong with a prompt shows here, before the first byte is sent.
        begun = [expert_set.generate(prompt, how, asked.sampling) for prompt in asked.prompts]
        about = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time())}
        if asked.stream:
            return StreamingResponse(_events(about, asked, begun), media_type="text/event-stream")
        choices = []
        n_written = 0
        for index, (prompt, (route, pieces)) in enumerate(zip(asked.prompts, begun, strict=True)):
            written = list(pieces)
            text = (prompt if asked.echo else "") + "".join(piece.text for piece in written)
            choices.append(_choice(index, text, written[-1], route))
            n_written += written[-1].n_tokens
        n_read = sum(len(expert_set.prompt_tokens(prompt)) for prompt in asked.prompts)
        usage = {"prompt_tokens": n_read, "completion_tokens": n_written, "total_tokens": n_read + n_written}
        return {**about, "model": asked.model, "choices": choices, "usage": usage}

    return app


def _events(
    about: dict[str, Any], asked: CompletionRequest, begun: Iterable[tuple[Route, Iterator[Piece]]]
) -> Iterator[str]:
    """Server-sent events as OpenAI's clients read them, the prompts one after another."""
    for index, (prompt, (route, pieces)) in enumerate(zip(asked.prompts, begun, strict=True)):
        echoed = [Piece(text=prompt, n_tokens=0)] if asked.echo else []
        for piece in chain(echoed, pieces):
            event = {**about, "model": asked.model, "choices": [_choice(index, piece.text, piece, route)]}
            yield f"data: {json.dumps(event)}\n\n"
    yield "data: [DONE]\n\n"


def _choice(index: int, text: str, last: Piece, route: Route) -> dict[str, Any]:
    """OpenAI's fields, and ``route``: what was chosen, and what it costs."""
    chosen = {
        "weights": route.weights,
        "is_fallback": route.is_fallback,
        "flops_per_token": route.flops_per_token,
        "router_flops": route.router_flops,
    }
    return {"index": index, "text": text, "logprobs": None, "finish_reason": last.ended, "route": chosen}


def _model(name: str, started: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": started, "owned_by": "raysplit"}


def _error(status: int, message: str) -> JSONResponse:
    kinds = {401: "authentication_error", 404: "not_found_error"}
    body = {"message": message, "type": kinds.get(status, "invalid_request_error"), "param": None, "code": None}
    return JSONResponse({"error": body}, status_code=status)
