"""Weights & Biases: the runs table exported as CSV, and what its API gives as CSV or JSON lines; no package is needed.

Three layouts are read. The export button's CSV has one column a setting or result beside ``Name`` and ``State``. The
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
from raysplit.imports.found import Found, FoundRow, flatten
from raysplit.tables import read_table

_WHOLE, _STATES = frozenset(("config", "summary")), frozenset(("state", "State"))
"""Columns of whole mappings, and of how a run ended."""
_NUMBERS_OF_REPR = re.compile(r"(?<=[:\[(,\s])(-?(?:nan|inf))(?=\s*[,}\])])")


def read_wandb(path: Path) -> Found:
    """One row a run, as its summary has it: the last value of every metric.

    Raises:
        TableError: the file cannot be read, or a line or cell of it is no mapping.
    """
    table = read_table(path)
    rows = [_row(f"{path}: {row.place}", row.cells) for row in table.rows]
    has_states = not _STATES.isdisjoint(table.names)
    notes = [] if has_states else ["no column says how runs ended (state): every one is taken as finished"]
    are_runs = has_states or not _WHOLE.isdisjoint(table.names)  # and no history of one
    return Found(kind="wandb", origin=str(path), rows=rows, notes=notes, are_runs=are_runs)


def _row(where: str, run: Mapping[str, object]) -> FoundRow:
    whole = {k: _mapping(v, where, k) if k in _WHOLE else v for k, v in run.items()}
    if isinstance(config := whole.get("config"), Mapping):
        # The raw API gives each setting with its description around it.
        whole["config"] = {k: v["value"] if isinstance(v, Mapping) and "value" in v else v for k, v in config.items()}
    state = str(run.get("state", run.get("State", "finished"))).lower()
    return FoundRow(
        run=str(run.get("name", run.get("Name", run.get("id", where.rpartition(": ")[2])))),
        where=where,
        values=dict(flatten(whole)),
        unusable="" if state == "finished" else state,
    )


def _mapping(value: object, where: str, column: str) -> object:
    """A cell that holds a mapping, as JSON or as Python shows it; any other value as it is."""
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
