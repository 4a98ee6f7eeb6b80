"""Tables that nobody's tool wrote, or any tool's: one run a row, and perhaps a column that says how it ended."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from raysplit.imports.found import Found, FoundRow, flatten
from raysplit.tables import Row, is_well, read_table, state_column

_RUN_NAMES = ("trial", "run", "run_name", "run_id", "name", "trial_id")
_OF_OPTUNA = {"number", "value", "state"}
"""Columns of ``study.trials_dataframe()``, beside ``params_...`` and ``user_attrs_...``."""
_SHOWN = 40
"""Characters of a state; some write the whole error there."""


def read_plain(path: Path, *, encoding: str | None = None, sheet: str | None = None) -> Found:
    """Any table, one run a row; a column such as ``trial`` or ``run`` names it, one such as ``status`` tells its end.

    Raises:
        TableError: the file cannot be read.
    """
    table = read_table(path, encoding=encoding, sheet=sheet)
    is_optuna = set(table.names) >= _OF_OPTUNA
    named = {name.casefold(): name for name in reversed(table.names)}
    run_column = "number" if is_optuna else next((named[name] for name in _RUN_NAMES if name in named), None)
    state = state_column(table.names)
    rows = [_row(path, row, run_column, state, is_optuna=is_optuna) for row in table.rows]
    notes = (*table.notes, *_notes_on_states(table.rows, state))
    return Found(kind="csv", origin=str(path), rows=rows, notes=notes, objective="value" if is_optuna else "")


def _row(path: Path, row: Row, run_column: str | None, state: str | None, *, is_optuna: bool) -> FoundRow:
    ending = row.cells.get(state) if state else None
    run = row.cells.get(run_column) if run_column else None
    values = dict(flatten(row.cells))
    return FoundRow(
        run=row.place.partition(" (")[0] if run is None else str(run),
        where=f"{path}: {row.place}",
        values={_of_optuna(name): value for name, value in values.items()} if is_optuna else values,
        unusable=f"{state} {str(ending)[:_SHOWN]}" if ending is not None and is_well(ending) is False else "",
        is_named=run is not None,
    )


def _of_optuna(name: str) -> str:
    """``params.lr`` of ``params_lr``, as other tools join names."""
    container = next((c for c in ("params", "user_attrs") if name.startswith(f"{c}_")), None)
    return name.replace("_", ".", 1) if container == "params" else name.replace("user_attrs_", "user_attrs.", 1)


def _notes_on_states(rows: Sequence[Row], column: str | None) -> list[str]:
    """What was assumed of runs whose end is not told, or told in a word that is not known."""
    if column is None:
        return ["no column says how runs ended (status, state): every row is taken as a finished run"]
    states = Counter(str(row.cells.get(column, "")) for row in rows)
    notes = [f"{states['']} rows without a {column} are taken as finished"] if states[""] else []
    if unknown := {state: n for state, n in states.items() if state and is_well(state) is None}:
        shown = ", ".join(repr(state[:_SHOWN]) for state in list(unknown)[:3]) + (", ..." if len(unknown) > 3 else "")
        notes.append(f"{column} {shown} of {sum(unknown.values())} rows is not known: taken as finished")
    return notes
