"""The page of messages: every error of ours that the code can raise, in its words, with what is filled in."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import raysplit
from docs.generators.docstrings import cell, one_line, table

PACKAGE = Path(raysplit.__file__).parent
_TREES = {
    str(path.relative_to(PACKAGE)): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
_BASES = ("RaysplitError", "Unreadable", "Divergence", "Damaged", "Refused")
"""What people read: errors and their subclasses, what a build or a sweep says of what it passed over, and refusals over
HTTP.
"""
_CHECKED_IN = (
    "imports/rows.py", "ladder.py", "live/questions.py", "machines.py", "quantities.py", "runs.py", "section.py",
    "space.py", "sweep/grid_spec.py",
)  # fmt: skip
"""Where the schemas of a search space, a table's cells and a question raise ValueError; it comes out as one of ours."""
_OTHERS = {
    "ValueError": "A value that a schema refuses; the error that comes out of it names the field.",
    "HTTPException": "A refusal of the experts' endpoint, as `Refused`.",
    "option": "An option of the command line that cannot be read; the error names the option.",
    "finding": "What `raysplit doctor` finds: what is wrong; what mends it.",
}
_INTRODUCTION = """\
# Messages

Every error that raysplit itself raises, in its own words, with the part of the code that says it. Words in
capitals are filled in: the file, the field, the value, the choices. A message says what to do where one thing mends it.
[Questions and errors](faq.md) has the common ones with more words.

On the command line such an error is one line on the error stream, `raysplit: MESSAGE`, and status 2. In Python it is an
exception of the kind that is named, all of them `raysplit.errors.RaysplitError`. Over HTTP it is the field `message` of
a refusal. What is not in this list and shows a traceback is a defect: please report it.
"""


def messages() -> str:
    parts = [_INTRODUCTION, _kinds()]
    rooms: dict[str, list[list[str]]] = {}
    for inner, tree in _TREES.items():
        room = inner.partition("/")[0].removesuffix(".py")
        for node in ast.walk(tree):
            rooms.setdefault(room, []).extend(_said_by(node, inner) if isinstance(node, ast.Call) else ())
    for room, rows in rooms.items():
        if rows:
            unique = [list(row) for row in dict.fromkeys(map(tuple, rows))]
            parts.append(f"## {room}\n\n" + table(["message", "kind", "said in"], unique))
    return "\n".join(parts)


def _classes() -> dict[str, str]:
    """Every class of `_BASES` and below with its docstring; those of errors.py come first."""
    found: dict[str, str] = {}
    trees = [_TREES["errors.py"], *(_TREES.values())]
    for _ in range(2):  # a class may be defined after one that it is the base of
        for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            if node.name in _BASES or bases & found.keys():
                found[node.name] = one_line(ast.get_docstring(node) or "")
    return found


KINDS = _classes()


def _kinds() -> str:
    rows = [[f"`{name}`", cell(words)] for name, words in (KINDS | _OTHERS).items()]
    return "## Kinds\n\n" + table(["kind", "what"], rows)


def _said_by(call: ast.Call, inner: str) -> Iterator[list[str]]:
    """The row of a call that makes an error, raised there or handed on."""
    kind = ast.unparse(call.func).rpartition(".")[2]
    words = ""
    if kind == "Finding":
        parts = {keyword.arg: keyword.value for keyword in call.keywords}
        kind, words = "finding", f"{_words(parts['what'])}; {_words(parts['remedy'])}"
    elif kind == "fail" and inner.startswith("cli/"):
        kind, words = "option", _words(call.args[0])
    elif kind == "UnknownValue":
        field, what = (_words(argument) for argument in call.args[:2])
        words = f"{field}: unknown {what} VALUE (did you mean NEAREST?). Known: CHOICES"
    elif kind in KINDS or kind == "HTTPException" or (kind == "ValueError" and inner in _CHECKED_IN):
        at = {"Refused": 1, "HTTPException": 1}.get(kind, 0)
        words = _words(call.args[at]) if call.args else ""
    if re.search("[a-z]{2}", words):  # else it hands on another error's
        yield [cell(words), f"`{kind}`", f"`{inner}`"]


def _words(node: ast.AST) -> str:
    """A message with its filled-in parts as words in capitals."""
    match node:
        case ast.Constant(value=str(text)):
            return text.replace("\n", " ")
        case ast.JoinedStr(values=values):
            return "".join(map(_words, values))
        case ast.FormattedValue(value=value):
            return _words(value) if _is_said(value) else _placeholder(value)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _words(left) + _words(right)
        case ast.IfExp(body=body, orelse=other):
            return " / ".join(filter(None, (_words(body), _words(other))))
        case ast.Call(func=ast.Name(id="unknown"), args=[what, *_]):
            return f"unknown {_words(what)} VALUE (did you mean NEAREST?). Known: CHOICES"
    return _placeholder(node)


def _is_said(node: ast.AST) -> bool:
    """Whether a filled-in part has words of its own."""
    is_unknown = isinstance(node, ast.Call) and ast.unparse(node.func) == "unknown"
    return is_unknown or isinstance(node, ast.Constant | ast.JoinedStr | ast.IfExp)


def _placeholder(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name):
            return name.strip("_").upper()
        case ast.Attribute(attr=name):
            return name.strip("_").upper()
        case ast.BoolOp(values=[first, *_]):
            return _placeholder(first)
        case ast.Call(func=func, args=[argument, *_]):
            return _placeholder(argument) if not isinstance(argument, ast.Constant) else _placeholder(func)
        case ast.Call(func=ast.Attribute(value=value)) | ast.Subscript(value=value):
            return _placeholder(value)
        case ast.IfExp(body=body):
            return _placeholder(body)
    return "VALUE"
