"""Notebooks from scripts whose cells begin with `# %%`: the script is what is edited and tested."""

import json
import re
from typing import Any

_CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def as_notebook(script: str) -> str:
    """The same cells as a notebook of format 4.5, without outputs."""
    _, *parts = _CELL.split(script)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    cells = [_cell(i, body.strip("\n"), is_words=bool(kind)) for i, (kind, body) in enumerate(pairs)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1) + "\n"


def _cell(number: int, body: str, *, is_words: bool) -> dict[str, Any]:
    lines = [re.sub(r"^# ?", "", line) for line in body.split("\n")] if is_words else body.split("\n")
    source = [f"{line}\n" for line in lines[:-1]] + lines[-1:]
    cell: dict[str, Any] = {"id": f"cell-{number}", "metadata": {}, "source": source}
    return (
        {"cell_type": "markdown", **cell}
        if is_words
        else {"cell_type": "code", **cell, "execution_count": None, "outputs": []}
    )
