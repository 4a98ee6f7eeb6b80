"""What the page shows of a law: the advice in words and the pictures, in the page's own colours."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from raysplit.errors import LawError, SplitError
from raysplit.http import told
from raysplit.http.asked import AskAdvice
from raysplit.http.law import ServedLaw
from raysplit.pictures import curve_picture, path_picture, tree_picture
from raysplit.pictures.spec import Spec
from raysplit.pictures.style import styled_by_page
from raysplit.split.tables import advice_facts, advice_tables

_Width = Annotated[int, Field(ge=280, le=4000, description="Of the picture, CSS pixels.")]


class AskPicture(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: _Width


class AskShown(AskAdvice):
    """A question that may differ from the sweep's own target, and how wide its picture may be."""

    width: _Width


def page_routes(law: ServedLaw, *, read: Callable[..., None]) -> APIRouter:
    """Routes for the page alone: they change with it, and are no part of the API.

    Args:
        law: asked from several threads.
        read: a dependency that refuses who may not.
    """
    router = APIRouter(prefix="/page", dependencies=[Depends(read)], include_in_schema=False)

    @router.get("/advice")
    def advice(ask: Annotated[AskShown, Query()]) -> Response:
        """An advice, its rows of words, and the curve of the advised size with what was measured of it."""
        live = law.advise(ask.question(), version=ask.version)
        n_params = live.advice.split.n_params
        question = replace(ask.question(), n_params=(n_params,))
        curve = law.curve(question, n_params=n_params, version=ask.version)
        picture = curve_picture(live.advice, curve, width=ask.width, readings=curve.points, moved=curve.moved)
        return _shown(
            {
                "advice": told.ADVICE.dump_python(live.advice, mode="json"),
                "law": told.STAMP.dump_python(live.law, mode="json"),
                "facts": [asdict(fact) for fact in advice_facts(live.advice)],
                "tables": [asdict(table) for table in advice_tables(live.advice)],
                "curve": picture,
            }
        )

    @router.get("/moved")
    def moved(ask: Annotated[AskPicture, Query()]) -> Response:
        """How the advice at the sweep's own target moved, law by law."""
        steps = []
        for stamp in law.laws():
            try:
                steps.append(told.step(law.advise(version=stamp.version)))
            except (LawError, SplitError):  # no longer kept, or of too few domains
                continue
        if not steps:
            return _shown({})
        steps.sort(key=lambda step: (step.n_observations, step.version))
        sizes = sorted({size.split.n_params for size in law.advise().advice.sizes})
        return _shown(path_picture(steps, sizes=sizes, regret_tolerance=0.0, width=ask.width))

    @router.get("/tree")
    def tree(ask: Annotated[AskPicture, Query()]) -> Response:
        """Every trunk and branch and how far it has come."""
        trials = law.trials()
        try:
            domains = list(law.advise().advice.weights)
        except (LawError, SplitError):  # no law yet
            domains = sorted({trial.domain for trial in trials} - {""})
        return _shown(tree_picture(trials, domains=domains, width=ask.width) if trials else {})

    return router


def _shown(content: Spec | dict[str, Any]) -> Response:
    text = styled_by_page(json.dumps(content))
    return Response(text, media_type="application/json", headers={"Cache-Control": "no-store"})
