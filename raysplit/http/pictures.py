"""What the page shows of a law: the advice in words and the pictures, in the page's own colours."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from raysplit.errors import LawError, SplitError
from raysplit.http.parsing import question_in_query
from raysplit.live.answers import LiveAdvice
from raysplit.live.questions import AnsweringLaw, AskAdvice, AskCurve
from raysplit.pictures import curve_picture, path_picture, tree_picture
from raysplit.pictures.spec import Spec
from raysplit.pictures.style import styled_by_page
from raysplit.split import Advice
from raysplit.split.tables import advice_facts, advice_tables

_ADVICE = TypeAdapter(LiveAdvice)
Width = Annotated[int, Query(ge=280, le=4000, description="Of the picture, CSS pixels.")]


def page_routes(law: AnsweringLaw, *, read: Callable[..., Awaitable[None]]) -> APIRouter:
    """Routes for the page alone: they change with it, and are no part of the API.

    Args:
        law: asked from several threads.
        read: a dependency that refuses who may not.
    """
    router = APIRouter(prefix="/page", dependencies=[Depends(read)], include_in_schema=False)

    def curve_of(advice: Advice, query: Sequence[tuple[str, str]], width: int) -> Spec:
        own = [("n_params", str(advice.split.n_params)), *((k, v) for k, v in query if k != "n_params")]
        curve = law.ask(question_in_query(AskCurve, own))
        return curve_picture(advice, curve, width=width, readings=curve.points, moved=curve.moved)

    @router.get("/advice")
    def advice(request: Request, width: Width) -> Response:
        """An advice, its rows of words, and the curve of the advised size with what was measured of it.

        From bases there is no share of pretraining, and no curve of it.
        """
        query = [(name, value) for name, value in request.query_params.multi_items() if name != "width"]
        live = law.ask(question_in_query(AskAdvice, query))
        picture = None if live.advice.bases else curve_of(live.advice, query, width)
        return _shown(
            {
                **_ADVICE.dump_python(live, mode="json"),
                "facts": [asdict(fact) for fact in advice_facts(live.advice)],
                "tables": [asdict(table) for table in advice_tables(live.advice)],
                "curve": picture,
            }
        )

    @router.get("/moved")
    def moved(width: Width) -> Response:
        """How the advice at the sweep's own target moved, law by law."""
        steps = sorted(law.history(), key=lambda step: (step.n_observations, step.version))
        if not steps:
            return _shown({})
        sizes = sorted({size.split.n_params for size in law.advise().advice.sizes})
        return _shown(path_picture(steps, sizes=sizes, regret_tolerance=0.0, width=width))

    @router.get("/tree")
    def tree(width: Width) -> Response:
        """Every trunk and branch and how far it has come."""
        trials = law.trials()
        try:
            domains = list(law.advise().advice.weights)
        except (LawError, SplitError):  # no law yet
            domains = sorted({trial.domain for trial in trials} - {""})
        return _shown(tree_picture(trials, domains=domains, width=width) if trials else {})

    return router


def _shown(content: Spec | dict[str, Any]) -> Response:
    text = styled_by_page(json.dumps(content))
    return Response(text, media_type="application/json", headers={"Cache-Control": "no-store"})
