"""The page of messages: every error of ours that the code can raise, in its words, with what is filled in."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import raysplit
from docs.generators.docstrings import cell, one_line, table
from raysplit import errors

PACKAGE = Path(raysplit.__file__).parent
_KINDS = {
    name: thing for name, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, Exception)
}
_CHECKS = ("ValueError",)
"""What the schemas of a search space, of a table's cells and of a question raise; it comes out as one of ours."""
_CHECKED_IN = ("space.py", "machines.py", "section.py", "quantities.py", "live/questions.py")
_INTRODUCTION = """\
# Messages

Every error that raysplit itself raises, in its own words, with the part of the code that raises it. Words in
capitals are filled in: the file, the field, the value, the choices. A message says what to do where one thing mends it.
[Questions and errors](faq.md) has the common ones with more words.

On the command line such an error is one line on the error stream, `raysplit: MESSAGE`, and status 2. In Python it is an
exception of the kind that is named, all of them `raysplit.errors.RaysplitError`. Over HTTP it is the field `message` of
a refusal. What is not in this list and shows a traceback is a defect: please report it.
"""


def messages() -> str:
    parts = [_INTRODUCTION, _kinds()]
    rooms: dict[str, list[list[str]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        inner = path.relative_to(PACKAGE)
        rooms.setdefault(inner.parts[0].removesuffix(".py"), []).extend(_raised_in(path, str(inner)))
    for room, rows in rooms.items():
        if rows:
            unique = [list(row) for row in dict.fromkeys(map(tuple, rows))]
            parts.append(f"## {room}\n\n" + table(["message", "kind", "raised in"], unique))
    return "\n".join(parts)


def _kinds() -> str:
    rows = [[f"`{name}`", cell(one_line(kind.__doc__ or ""))] for name, kind in _KINDS.items()]
    return "## Kinds\n\n" + table(["kind", "what"], rows)


def _raised_in(path: Path, inner: str) -> Iterator[list[str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
            continue
        kind = ast.unparse(node.exc.func)
        if kind in _KINDS or (kind in _CHECKS and inner in _CHECKED_IN):
            argument = node.exc.args[-1] if kind == "UnknownValue" else node.exc.args[0]
            words = _words(argument)
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
