"""The pages of HTTP, from its OpenAPI description, and of Python, from signatures and docstrings."""

import importlib
import inspect
import re
from enum import Enum
from typing import Any

from docs.generators.docstrings import cell, field_docs, one_line, table
from raysplit.http.app import create_app
from raysplit.live import answers

_HTTP = """\
# HTTP reference

[The law over HTTP](http.md) says what is open to whom. This page has every route with its fields, from the description
that the server itself gives at `/openapi.json`.

Numbers may be written as everywhere: `3e21`, `1.3B`. A refusal has the fields of `Refusal`, at the end.
"""
_PYTHON = """\
# Python reference

What is meant to be used from Python, from signatures and docstrings. `import raysplit` loads neither Ray nor torch; the
law and the split need neither. A method of a live law is awaited under `law.aio`.
"""
_PUBLIC = {
    "A live law": (
        "raysplit", ["connect"], "raysplit.live.client", ["LiveLaw"], "raysplit.http.client", ["HttpClient"],
    ),
    "Training of your own": (
        "raysplit.trainers.callback", ["LiveLawCallback"], "raysplit.trainers.outside_run", ["OutsideRun"],
        "raysplit.trainers.model_params", ["count_params"],
    ),
    "Ray Tune": ("raysplit.sweep.grid_spec", ["spec_of_grid"], "raysplit.sweep.tune_plan", ["TunePlan"]),
    "Tables, law and split": (
        "raysplit.runs", ["Observation", "read_runs"], "raysplit.law", ["fit_law", "Law", "Prediction", "FitStatus"],
        "raysplit.split", ["Problem", "Split", "Advice", "fit_for_decision", "advise", "render_advice"],
    ),
    "Search spaces": ("raysplit.space", ["load_space", "parse_space", "dump_space"]),
    "Experts": ("raysplit.experts", ["ExpertSet", "Routing", "Sampling"], "raysplit.discover.clusterer", ["Clusterer"]),
}  # fmt: skip


def http_reference() -> str:
    described = create_app(_Unasked()).openapi()  # type: ignore[arg-type]
    parts = [_HTTP]
    for path, operations in described["paths"].items():
        parts += [_route(method, path, operation) for method, operation in operations.items()]
    parts.append("## Shapes of answers and bodies\n")
    for name, schema in sorted(described["components"]["schemas"].items()):
        if "properties" in schema:
            parts.append(_shape(name, schema))
    return "\n".join(parts)


class _Unasked:
    """A law that is described and not asked."""

    def ask(self, question: object) -> None:
        raise AssertionError(question)

    def stamp(self) -> None:
        return None


def _route(method: str, path: str, operation: dict[str, Any]) -> str:
    words = one_line(operation.get("description") or operation.get("summary", ""))
    rows = [
        [f"`{field['name']}`", _kind(field["schema"]), "yes" if field.get("required") else "", _words(field)]
        for field in operation.get("parameters", ())
    ]
    body = operation.get("requestBody")
    sends = f"Takes {_kind(_content(body))} as JSON.\n\n" if body else ""
    success = operation["responses"].get("200", {})
    gives = f"Gives {_kind(_content(success)) or 'text'}.\n"
    query = table(["field of the query", "kind", "needed", "what"], rows) + "\n" if rows else ""
    return f"## `{method.upper()} {path}`\n\n{cell(words)}\n\n{query}{sends}{gives}"


def _content(described: dict[str, Any]) -> dict[str, Any]:
    of_kind: list[dict[str, Any]] = list(described.get("content", {}).values())
    schema: dict[str, Any] = of_kind[0].get("schema", {}) if of_kind else {}
    return schema


def _words(field: dict[str, Any]) -> str:
    schema = field.get("schema", {})
    said = field.get("description") or schema.get("description") or ""
    default = schema.get("default")
    return cell(said) + (f" Default: `{default}`." if default not in (None, [], (), "") else "")


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(filter(None, map(_kind, schema["anyOf"]))))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {})) or 'values'}"
    return str(schema.get("type", ""))


def _shape(name: str, schema: dict[str, Any]) -> str:
    source = getattr(answers, name, None)
    own = field_docs(source) if source else {}
    rows = [
        [f"`{field}`", _kind(kind), cell(kind.get("description") or own.get(field, ""))]
        for field, kind in schema["properties"].items()
    ]
    words = cell(one_line((source and source.__doc__) or schema.get("description", "")))
    words = "" if words.startswith(f"{name}(") else words + "\n\n" if words else ""
    return f"### {name}\n\n{words}{table(['field', 'kind', 'what'], rows)}"


def python_reference() -> str:
    parts = [_PYTHON]
    for title, listed in _PUBLIC.items():
        parts.append(f"## {title}\n")
        for module, names in zip(listed[::2], listed[1::2], strict=True):
            parts += [_thing(str(module), name) for name in names]
    return "\n".join(parts)


def _thing(module: str, name: str) -> str:
    thing = getattr(importlib.import_module(module), name)
    if not inspect.isclass(thing):
        return f"### {name}\n\n`from {module} import {name}`\n\n{_signature(name, thing)}\n\n{_docs(thing)}"
    if issubclass(thing, Enum):
        return f"### {name}\n\n`from {module} import {name}`\n\n{_docs(thing)}" + table(
            ["value", "what"], [[f"`{member}`", cell(str(value.value))] for member, value in thing.__members__.items()]
        )
    fields = [[f"`{field}`", cell(words)] for field, words in field_docs(thing).items()]
    methods = [_method(name, member, value) for member, value in inspect.getmembers(thing) if _is_own(member, value)]
    told = table(["field", "what"], fields) + "\n" if fields else ""
    head = f"### {name}\n\n`from {module} import {name}`\n\n{_signature(name, thing)}\n\n"
    return "".join((head, _docs(thing), told, *methods))


def _is_own(member: str, value: Any) -> bool:
    """A method of ours with a docstring, and not one of a library's base class."""
    is_ours = str(getattr(value, "__module__", "")).startswith("raysplit") or type(value).__name__ == "QuestionMethod"
    return not member.startswith("_") and is_ours and not inspect.isclass(value) and bool(value.__doc__)


def _method(owner: str, name: str, value: Any) -> str:
    asked = getattr(value, "question", None)
    signature = _signature(name, asked or value)
    return f"**`{owner}.{name}`**\n\n{signature}\n\n{_docs(asked or value)}"


def _signature(name: str, thing: Any) -> str:
    try:
        parameters = list(inspect.signature(thing).parameters.values())
    except ValueError:
        return ""
    by_alias = {"weight": "weights"}  # of HTTP's query; in Python the field's own name
    plain = [
        p.replace(annotation=inspect.Parameter.empty, name=by_alias.get(p.name, p.name))
        for p in parameters
        if p.name not in ("self", "cls")
    ]
    shown = [p if p.default is p.empty or _is_short(p.default) else p.replace(default=...) for p in plain]
    text = str(inspect.Signature(shown)).replace("Ellipsis", "...")
    return f"`{name}{text}`"


def _is_short(default: Any) -> bool:
    return " at 0x" not in repr(default) and len(repr(default)) < 40 and "<" not in repr(default)


def _docs(thing: Any) -> str:
    text = inspect.getdoc(thing) or ""
    if text.startswith(f"{getattr(thing, '__name__', '')}("):  # a dataclass's own, which says nothing
        return ""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        head, _, rest = paragraph.partition("\n")
        if re.fullmatch(r"(Args|Raises|Returns|Yields|Attributes):", head):
            paragraphs.append(f"{head}\n\n" + "\n".join(f"- {cell(item)}" for item in _items(rest)))
        else:
            paragraphs.append(cell(one_line(paragraph)))
    return "\n\n".join(paragraphs) + "\n\n"


def _items(block: str) -> list[str]:
    """Entries of a section of a docstring, each on one line with its name as code."""
    items: list[str] = []
    margin = min((len(line) - len(line.lstrip()) for line in block.splitlines() if line.strip()), default=0)
    for line in block.splitlines():
        if len(line) - len(line.lstrip()) == margin:
            name, colon, words = line.strip().partition(": ")
            items.append(f"`{name}`: {words}" if colon else line.strip())
        elif items:
            items[-1] += " " + line.strip()
    return items
