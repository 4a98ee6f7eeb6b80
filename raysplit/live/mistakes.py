"""What is wrong with a question, as a sentence with its field, from pydantic's many errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raysplit.errors import unknown

_SHOWN = 120
"""Characters of a wrong value that are shown."""
_NO_FIELDS = ("query", "body", "path", "header", "int", "float", "str", "none", "constrained-int", "constrained-float")
_TOLD = {
    "missing": "is needed and not given",
    "missing_argument": "is needed and not given",
    "missing_keyword_only_argument": "is needed and not given",
    "extra_forbidden": "is not known here; /openapi.json tells what is",
    "unexpected_keyword_argument": "is not known here; /openapi.json tells what is",
    "model_type": "must be an object; /openapi.json shows it",
}
"""Type of pydantic's error -> words that help more than its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """The first thing that is wrong."""

    message: str
    field: str | None
    value: str | None
    choices: list[str] | None


def mistake_of(errors: Sequence[Any], *, known: Sequence[str] = ()) -> Mistake:
    """The first of `pydantic.ValidationError.errors`, with the number of the others; ``known`` are possible fields."""
    first, field = errors[0], _field(errors[0]["loc"])
    n_more = len({_field(error["loc"]) for error in errors}) - 1
    more = f" (and {n_more} more)" if n_more else ""
    choices = first.get("ctx", {}).get("expected") if first["type"] == "literal_error" else None
    value, is_missing = first["input"], first["type"].startswith("missing")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "unexpected_keyword_argument" and known:
        return Mistake(message=unknown("field of this question", field, known), field=field, value=None, choices=None)
    message = _TOLD.get(first["type"], message)
    shows_it = is_missing or first["type"] == "json_invalid" or first["msg"].startswith("Value error, ")
    told = "" if shows_it else f", got {shown(value)}"
    return Mistake(
        message=f"{field or 'body'}: {message}{told}{more}",
        field=field,
        value=None if is_missing or first["type"] == "json_invalid" else shown(value),
        choices=None if choices is None else [choice.strip(" '") for choice in choices.replace(" or ", ",").split(",")],
    )


def shown(value: object) -> str:
    """A wrong value, cut where it is long."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _field(loc: Sequence[int | str]) -> str | None:
    """The field of an error, without where it was given and without which of the field's types refused it."""
    parts = [str(part) for part in loc if part not in _NO_FIELDS and not str(part).startswith("literal[")]
    return ".".join(parts) or None
