"""Errors as JSON: each says what is wrong in a sentence and, where known, the field, its value and the choices."""

import errno
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from raysplit.errors import RaysplitError, RunError, unknown

_SHOWN = 120
"""Characters of a wrong value that are sent back."""


_NO_FIELDS = ("query", "body", "path", "header", "int", "none")
_TOLD = {
    "missing": "is needed and not given",
    "extra_forbidden": "is not known here; /openapi.json tells what is",
    "model_type": "must be an object; /openapi.json shows it",
}
"""What pydantic says less helpfully, by its type of error."""


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
            value=None if value is None else _shown(value),
            choices=None if choices is None else [str(choice) for choice in choices],
        )


def unknown_value(status: int, field: str, what: str, value: object, known: Sequence[object]) -> Refused:
    """A value outside a set of choices."""
    return Refused(status, f"{field}: {unknown(what, _shown(value), known)}", field=field, value=value, choices=known)


def of_validation(errors: Sequence[Any], *, status: int = 422) -> Refused:
    """The first of pydantic's errors; the number of the others is told."""
    first, field = errors[0], _field(errors[0]["loc"])
    n_more = len({_field(error["loc"]) for error in errors}) - 1
    more = f" (and {n_more} more)" if n_more else ""
    choices = first.get("ctx", {}).get("expected") if first["type"] == "literal_error" else None
    value = first["input"]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in _TOLD:
        message = _TOLD[first["type"]]
    said = first["type"] in ("missing", "json_invalid") or first["msg"].startswith("Value error, ")  # shows it itself
    told = "" if said else f", got {_shown(value)}"
    return Refused(
        status,
        f"{field or 'body'}: {message}{told}{more}",
        field=field,
        value=None if first["type"] in ("missing", "json_invalid") else value,
        choices=None if choices is None else [choice.strip(" '") for choice in choices.replace(" or ", ",").split(",")],
    )


def _field(loc: Sequence[int | str]) -> str | None:
    """Without where it was given, and without which of a field's types refused it."""
    parts = [str(part) for part in loc if part not in _NO_FIELDS and not str(part).startswith("literal[")]
    return ".".join(parts) or None


def of_error(error: RaysplitError, *, has_law: bool) -> Refused:
    """One of raysplit's own errors: without a law nothing about it can be asked yet, a full disk takes nothing more."""
    if isinstance(error, RunError):
        cause = error.__cause__
        full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        return Refused(507 if full else 503, str(error))
    return Refused(422 if has_law else 409, str(error))


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
