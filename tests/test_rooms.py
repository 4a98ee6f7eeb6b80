"""The house: within a room imports are at most five deep, and a class has its name for itself."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import raysplit

PACKAGE = Path(raysplit.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
MOST_LEVELS = 5


def imports_of(module: Path) -> set[str]:
    """Names of all that a module imports, within functions and for types alone too."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_imports_are_at_most_five_deep(room: str) -> None:
    """Of its modules; `__init__`, which only names what others may use, is none of them."""
    modules = {f"raysplit.{room}.{path.stem}": path for path in PACKAGE.glob(f"{room}/*.py") if path.stem != "__init__"}
    below = {name: imports_of(path) & modules.keys() - {name} for name, path in modules.items()}

    def longest(name: str, above: tuple[str, ...] = ()) -> tuple[str, ...]:
        assert name not in above, f"a cycle: {above}"
        return (*max((longest(each, (*above, name)) for each in below[name]), key=len, default=()), name)

    deepest = max((longest(name) for name in modules), key=len)
    assert len(deepest) <= MOST_LEVELS, " < ".join(deepest)


def test_no_two_public_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not {name for name, n in names.items() if n > 1}
