"""Any table, whoever wrote it: one run a row, and perhaps a column that says how the run ended."""

from pathlib import Path

from raysplit.imports.ends import notes_on_ends, unusable
from raysplit.imports.found import Found, FoundRow, flatten
from raysplit.imports.names import plain_name
from raysplit.tables import EndColumns, Row, end_columns, read_table

_RUN_NAMES = ("trial", "run", "run_name", "run_id", "trial_id", "experiment_key", "sys_id", "name")
"""Plain names of columns that name runs; the last one may name models."""
_OF_OPTUNA = {"number", "value", "state"}
"""Columns of ``study.trials_dataframe()``, beside ``params_...`` and ``user_attrs_...``."""


def read_plain(path: Path, *, encoding: str | None = None, sheet: str | None = None) -> Found:
    """Read any table, one run a row; a column such as ``trial`` or ``run`` names it, and ``status`` tells its end.

    Raises:
        TableError: the file cannot be read.
    """
    table = read_table(path, encoding=encoding, sheet=sheet)
    is_optuna = set(table.names) >= _OF_OPTUNA
    named = {plain_name(name): name for name in reversed(table.names)}
    run_column = "number" if is_optuna else next((named[name] for name in _RUN_NAMES if name in named), None)
    ends = end_columns(table.names, table.rows)
    rows = [_row(path, row, run_column, ends, is_optuna=is_optuna) for row in table.rows]
    notes = (*table.notes, *notes_on_ends(table.rows, ends))
    return Found(kind="csv", origin=str(path), rows=rows, notes=notes, objective="value" if is_optuna else "")


def _row(path: Path, row: Row, run_column: str | None, ends: EndColumns, *, is_optuna: bool) -> FoundRow:
    run = row.cells.get(run_column) if run_column else None
    values = dict(flatten(row.cells))
    return FoundRow(
        run=row.place.partition(" (")[0] if run is None else str(run),
        where=f"{path}: {row.place}",
        values={_of_optuna(name): value for name, value in values.items()} if is_optuna else values,
        unusable=unusable(row.cells, ends),
        is_named=run is not None,
        is_run_name=run is not None and plain_name(str(run_column)) != _RUN_NAMES[-1],
    )


def _of_optuna(name: str) -> str:
    """``params.lr`` for ``params_lr``, as other tools join names."""
    container = next((c for c in ("params", "user_attrs") if name.startswith(f"{c}_")), None)
    return name.replace("_", ".", 1) if container == "params" else name.replace("user_attrs_", "user_attrs.", 1)
