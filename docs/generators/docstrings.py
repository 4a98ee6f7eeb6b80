"""What the source says of classes and their fields."""

import ast
import inspect
import re
import textwrap


def field_docs(model: type) -> dict[str, str]:
    """The string below each field of a class and of the classes that it inherits from, on one line."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not cls.__module__.startswith("raysplit"):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                found[field.target.id] = one_line(str(text.value.value))  # type: ignore[attr-defined]
    return found


def one_line(text: str) -> str:
    """A docstring's words without its line ends."""
    return re.sub(r"\s+", " ", text).strip()


def cell(text: str) -> str:
    """As a cell of a table in Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("``", "`")


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Rows under their heads; the cells are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
