"""Weights & Biases: its table of runs as CSV, and what its API gives as CSV or JSON lines; no package is needed.

Three layouts are read. The export button's CSV has ``Name``, ``State`` and one column for each setting and result. The
API's own example (docs.wandb.ai, "Import and export data") writes columns ``name``, ``config`` and ``summary`` whose
cells are whole mappings. JSON lines hold the same as objects, one run a line:
``{"name": run.name, "state": run.state, "config": dict(run.config), "summary": dict(run.summary)}``.
"""

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path

from raysplit.errors import TableError
from raysplit.imports.ends import notes_on_ends, unusable
from raysplit.imports.found import Found, FoundRow, flatten
from raysplit.tables import EndColumns, end_columns, read_table

_WHOLE = frozenset(("config", "summary"))
"""Columns whose cells are whole mappings."""
_OF_RUNS = frozenset(("Created", "Runtime", "Sweep", "User"))
"""Columns that W&B's table of runs has, and a history has not."""
_NUMBERS_OF_REPR = re.compile(r"(?<=[:\[(,\s])(-?(?:nan|inf))(?=\s*[,}\])])")


def read_wandb(path: Path) -> Found:
    """One row a run, with its summary: the last value of every metric.

    Raises:
        TableError: the file cannot be read, or a line or cell of it is no mapping.
    """
    table = read_table(path)
    ends = end_columns(table.names, table.rows)
    return Found(
        kind="wandb",
        origin=str(path),
        rows=[_row(f"{path}: {row.place}", row.cells, ends) for row in table.rows],
        notes=(*table.notes, *notes_on_ends(table.rows, ends)),
        are_runs=not (_WHOLE | _OF_RUNS).isdisjoint(table.names),
    )


def _row(where: str, run: Mapping[str, object], ends: EndColumns) -> FoundRow:
    whole = {k: _mapping(v, where, k) if k in _WHOLE else v for k, v in run.items()}
    if isinstance(config := whole.get("config"), Mapping):
        # The raw API gives each setting with its description around it.
        whole["config"] = {k: v["value"] if isinstance(v, Mapping) and "value" in v else v for k, v in config.items()}
    return FoundRow(
        run=str(run.get("name", run.get("Name", run.get("id", where.rpartition(": ")[2])))),
        where=where,
        values=dict(flatten(whole)),
        unusable=unusable(run, ends),
        is_run_name=False,  # W&B lets many runs have one name
    )


def _mapping(value: object, where: str, column: str) -> object:
    """The mapping in a cell of text, written as JSON or as Python shows it; a value that is no text as it is.

    Raises:
        TableError: the text is no mapping.
    """
    if not isinstance(value, str):
        return value
    for parse in (json.loads, lambda text: ast.literal_eval(_NUMBERS_OF_REPR.sub(r"'\1'", text))):
        try:
            found = parse(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, Mapping):
            return found
    raise TableError(f"{where}: column {column!r} is no mapping such as {{'n_params': 160000000}}, got {value[:80]!r}")
