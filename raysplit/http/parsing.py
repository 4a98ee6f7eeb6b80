"""The question that a request makes, by its query or by its body."""

import codecs
from collections.abc import Sequence
from typing import Any

from fastapi import Request
from pydantic import ValidationError

from raysplit.http.refusals import Refused, of_mistake
from raysplit.live.mistakes import mistake_of
from raysplit.live.questions import A, Question, of_query

MAX_BODY_BYTES = 8 * 2**20
"""Room for `raysplit.live.observations.MAX_BATCH` rows with every field given."""


def question_in_query(question: type[Question[A]], query: Sequence[tuple[str, str]]) -> Question[A]:
    """Raises: Refused: the query makes no such question."""
    try:
        return of_query(question, query)
    except ValidationError as error:
        raise of_mistake(mistake_of(error.errors(include_url=False))) from error


def question_in_body(question: type[Question[Any]], body: bytes) -> Question[Any]:
    """Raises: Refused: the body is not of this shape."""
    assert question.body is not None
    try:
        # A mark at its head is what editors on Windows write.
        return question.body.model_validate_json(body.removeprefix(codecs.BOM_UTF8)).question()
    except ValidationError as error:
        raise of_mistake(mistake_of(error.errors(include_url=False))) from error


async def read_body(request: Request) -> bytes:
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
