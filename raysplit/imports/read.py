"""Read a source, whichever tool made it."""

from collections.abc import Mapping
from pathlib import Path

from raysplit.errors import TableError, unknown
from raysplit.files import suffix_of
from raysplit.imports import mlflow, plain, tune, wandb
from raysplit.imports.columns import choose_columns
from raysplit.imports.found import Found
from raysplit.imports.rows import Imported, take_rows
from raysplit.tables import SUFFIXES

KINDS = ("csv", "wandb", "mlflow", "tune")
"""What can be read; csv is any table, of Parquet, Excel or JSON too."""

_ROWS_LOOKED_AT = 20
"""For the names of columns, by which the tool is told: JSON has none where a run has nothing."""


def import_runs(
    source: Path,
    *,
    kind: str | None = None,
    columns: Mapping[str, str] | None = None,
    constants: Mapping[str, str] | None = None,
    all_points: bool = False,
    encoding: str | None = None,
    sheet: str | None = None,
) -> Imported:
    """A table of runs from what another tool recorded.

    Args:
        source: a file, an ``mlruns`` folder, or a folder of Ray Tune experiments.
        kind: one of `KINDS`; guessed when None.
        columns: which column is which of `raysplit.imports.FIELDS`, where the guess would be wrong. The loss's may hold
            ``{domain}``, for a column a domain; a run that has a domain of its own is then read on that alone.
        constants: values by field that hold for every run.
        all_points: take every row of a history and every report of Ray Tune as a measurement, not just each run's
            last. Only losses after a cooldown can be compared, so this is right only where each was made after one.
        encoding: of a table as text that is neither UTF-8 nor UTF-16, as Python names it.
        sheet: of a workbook that has several.

    Raises:
        TableError: the source cannot be read, columns are missing or ambiguous, a value is impossible, or no run is
            usable.
    """
    kind = kind or ("csv" if encoding or sheet else guess_kind(source))
    found = _read(source, kind, all_points=all_points, encoding=encoding, sheet=sheet)
    choices = choose_columns(found, columns=columns or {}, constants=constants or {})
    return take_rows(found, choices, all_points=all_points)


def guess_kind(source: Path) -> str:
    """Which tool made a source, by its layout.

    Raises:
        TableError: there is no such file or folder, or it is like none that is known.
    """
    if source.is_dir():
        if tune.is_experiment(source):
            return "tune"
        if mlflow.is_store(source):
            return "mlflow"
        raise TableError(
            f"{source}: holds neither trials of Ray Tune (params.json beside result.json) nor runs of MLflow "
            "(meta.yaml with a run_id); of W&B, give the runs table as CSV or JSON lines"
        )
    if not source.exists():
        raise TableError(f"{source}: there is no such file or folder")
    if suffix_of(source) not in SUFFIXES:
        raise TableError(
            f"{source}: {unknown('kind of file', suffix_of(source), SUFFIXES)}, or a folder of MLflow or Ray Tune"
        )
    names = {name for row in plain.read_cells(source)[:_ROWS_LOOKED_AT] for name in row}
    if {"run_id", "experiment_id"} <= names:
        return "mlflow"
    if {"Name", "State"} <= names or {"config", "summary"} <= names:
        return "wandb"
    return "csv"


def _read(source: Path, kind: str, *, all_points: bool, encoding: str | None, sheet: str | None) -> Found:
    if kind not in KINDS:
        raise TableError(unknown("kind of source", kind, KINDS))
    if not source.exists():
        raise TableError(f"{source}: there is no such file or folder")
    if kind == "tune":
        if not source.is_dir():
            raise TableError(f"{source}: Ray Tune keeps its trials in a folder; give that of the experiment")
        return tune.read_tune(source, all_points=all_points)
    if kind == "mlflow":
        return mlflow.read_mlflow(source)
    if source.is_dir():
        raise TableError(f"{source}: is a folder; of kind {kind} a file is read: {', '.join(SUFFIXES)}")
    if kind == "wandb":
        return wandb.read_wandb(source)
    return plain.read_plain(source, encoding=encoding, sheet=sheet)
