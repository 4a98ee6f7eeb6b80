"""Errors as JSON: each says what is wrong in a sentence and, where known, the field, its value and the choices."""

import errno
from collections.abc import Iterable

from pydantic import BaseModel

from raysplit.errors import RaysplitError, RunError, UnknownValue
from raysplit.live.mistakes import Mistake, shown


class Refusal(BaseModel):
    """Why a request was refused."""

    message: str
    field: str | None = None
    value: str | None = None
    choices: list[str] | None = None


class Refused(Exception):
    """A request that ends with this status and a `Refusal`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        value: object = None,
        choices: Iterable[object] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        self.refusal = Refusal(
            message=message,
            field=field,
            value=None if value is None else shown(value),
            choices=None if choices is None else [str(choice) for choice in choices],
        )


def of_mistake(mistake: Mistake, *, status: int = 422) -> Refused:
    """A question that cannot be."""
    return Refused(status, mistake.message, field=mistake.field, value=mistake.value, choices=mistake.choices)


def of_error(error: RaysplitError, *, has_law: bool) -> Refused:
    """One of raysplit's own errors: without a law nothing about it can be asked yet, a full disk takes nothing more."""
    if isinstance(error, RunError):
        cause = error.__cause__
        full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        return Refused(507 if full else 503, str(error))
    if isinstance(error, UnknownValue):
        status = 404 if error.field == "version" else 422
        return Refused(status, str(error), field=error.field, value=error.value, choices=error.choices)
    return Refused(422 if has_law else 409, str(error))
