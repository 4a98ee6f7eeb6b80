"""The page of the search space's schema: every field with its unit, default, values and reason."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.generators.docstrings import cell, field_docs, one_line, table
from raysplit.quantities import format_count
from raysplit.section import Section
from raysplit.space import Space

_WRITTEN_BY_NOBODY = {"counted", "sources"}
"""A base's counts, which a command finds itself; sources are written as `domains` are."""
_UNIT_OF_NAME = {
    "batch_tokens": "tokens a step",
    "n_params": "parameters",
    "sizes": "parameters",
    "model_sizes": "parameters",
    "up_to": "parameters",
    "reference_params": "parameters",
    "budget_flops": "FLOPs",
    "device_memory": "bytes",
    "vocab_size": "entries",
    "context_length": "tokens",
    "reference": "learning rate",
    "shingle_words": "words",
    "utilization": "share of 1",
    "threshold": "share of 1",
    "regret_tolerance": "share of the loss",
    "max_epochs": "passes over the text",
    "micro_batch_sequences": "sequences",
    "cpus_per_worker": "CPUs",
    "gpus_per_worker": "GPUs",
    "gpus_per_node": "GPUs",
    "split_on": "characters, or tokens",
}
_UNIT_OF_END = {
    "_tokens": "tokens", "_bytes": "bytes", "_seconds": "seconds", "_minutes": "minutes", "_fraction": "share of 1",
    "_share": "share of 1",
}  # fmt: skip
_INTRODUCTION = """\
# Configuration

A search space is one YAML file. This page has every field of it, from the classes that read it
([raysplit/space.py](../raysplit/space.py), [raysplit/machines.py](../raysplit/machines.py)). Numbers may be written as
people write them, such as `250k`, `2M` or `3e21` ([Numbers](numbers.md)). An unknown field is refused, with the nearest
name that there is. `raysplit plan SPACE` checks a file and trains nothing. [Examples](../search_spaces/README.md) are
listed by purpose.

*Needed* stands where there is no default. *None* is a field that may be left out; its reason says what happens then.
"""


def configuration() -> str:
    return _INTRODUCTION + "".join(f"\n{section}" for section in _sections(Space, ""))


def _sections(model: type[Section], path: str) -> Iterator[str]:
    title = path or "the file itself"
    yield f"## `{title}`\n\n{_about(model)}{_fields(model)}" if path else f"## The file itself\n\n{_fields(model)}"
    for name, field in model.model_fields.items():
        for inner in _sections_in(field.annotation) if name not in _WRITTEN_BY_NOBODY else ():
            yield from _sections(inner, f"{path}.{name}".lstrip(".") + _key(field.annotation))


def _about(model: type[Section]) -> str:
    return f"{cell(one_line(model.__doc__))}\n\n" if model.__doc__ else ""


def _key(annotation: Any) -> str:
    """What stands between a field's name and the section's own fields."""
    text = str(annotation)
    return ".NAME" if "dict[" in text else "[]" if "tuple[" in text else ""


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _sections_in(inner)]


def _fields(model: type[Section]) -> str:
    reasons = field_docs(model)
    rows = [
        [f"`{name}`", _unit(name), _default(field), _values(field), cell(reasons.get(name, ""))]
        for name, field in model.model_fields.items()
        if name != "counted"
    ]
    return table(["field", "unit", "default", "values", "what it is, and why"], rows)


def _unit(name: str) -> str:
    by_end = next((unit for end, unit in _UNIT_OF_END.items() if name.endswith(end)), "")
    return _UNIT_OF_NAME.get(name, by_end)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, Section):
        return "as below"
    if isinstance(value, dict | tuple):
        return f"`{list(value)}`" if value else "none"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 100_000 and value % 1000 == 0:
        return f"`{format_count(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(field: FieldInfo) -> str:
    """Choices and limits, those of a list's members too."""
    return ", ".join(dict.fromkeys(_said_of(field.annotation, field.metadata)))


def _said_of(annotation: Any, metadata: Sequence[Any]) -> Iterator[str]:
    """Of a type and what stands beside it in its annotation."""
    if limits := " ".join(f"{_LIMITS[type(limit)]} {_bound(limit):g}" for limit in metadata if type(limit) in _LIMITS):
        yield limits
    if annotation is bool:
        yield "`true`, `false`"
    if get_origin(annotation) is Literal:
        yield from (f"`{choice}`" for choice in get_args(annotation))
    elif get_origin(annotation) is Annotated:
        inner, *beside = get_args(annotation)
        yield from _said_of(inner, [part for one in beside for part in getattr(one, "metadata", [one])])
    else:
        is_list = get_origin(annotation) is tuple
        for inner in get_args(annotation):
            if not _sections_in(inner):
                yield from (f"{said} each" if is_list else said for said in _said_of(inner, ()))


_LIMITS = {Gt: "above", Ge: "from", Lt: "below", Le: "to"}


def _bound(limit: Any) -> float:
    return float(next(getattr(limit, name) for name in ("gt", "ge", "lt", "le") if hasattr(limit, name)))
