"""MLflow: ``mlflow.db``, a store of files (``mlruns``), or the CSV of ``mlflow experiments csv`` or ``search_runs``.

In a store of files each run is a folder with ``meta.yaml``, and with one file for each parameter under ``params`` and
for each metric under ``metrics``. A name with slashes is a path of folders. A metric's file has a line ``timestamp
value step`` for each time that it was logged (mlflow/store/tracking/file_store.py; seen with MLflow 3.17).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.imports.documents import read_yaml
from raysplit.imports.ends import notes_on_ends, unusable
from raysplit.imports.found import Found, FoundRow, flatten
from raysplit.imports.mlflow_database import TABLES, read_database
from raysplit.imports.source import Source
from raysplit.imports.sqlite import databases_with
from raysplit.tables import end_columns, read_table
from raysplit.tables.limits import read_characters

_STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
"""mlflow.protos.service_pb2.RunStatus."""
_LOGGED = ("params", "metrics", "tags")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_PARTS = re.compile(
    r"(^|/)(meta\.yaml|[^/]*\.(db|sqlite|sqlite3)(-wal|-shm|-journal)?|(params|metrics|tags|artifacts|models|traces|inputs|outputs)/.*)$"
)


def recognises(source: Source) -> bool:
    """Whether a file is a database of MLflow, or a folder holds one or a run of a store of files."""
    return bool(databases_with(source, TABLES)[0]) or any(True for _ in _runs(source))


def is_part(name: str) -> bool:
    """Whether a file that was not read is one of MLflow's own, and no run."""
    return _PARTS.search(name) is not None


def read_mlflow(source: Source) -> Found:
    """One row a run, with the last value of every metric.

    Raises:
        TableError: a database cannot be read.
    """
    rows: list[FoundRow] = []
    databases, left_out = databases_with(source, TABLES)
    for path in databases:
        try:
            rows += read_database(path)
        except TableError as error:
            if not source.is_folder:
                raise
            left_out[str(error)] = [source.name_of(path)]
    for run in _runs(source):
        row, damaged = _read_run(run)
        rows.append(row)
        if damaged:
            left_out.setdefault("damaged files of runs", []).extend(map(source.name_of, damaged))
    return Found(kind="mlflow", are_runs=True, origin=str(source.path), rows=rows, left_out=left_out)


def read_table_of_runs(path: Path) -> Found:
    """Read what ``mlflow experiments csv`` or ``mlflow.search_runs().to_csv`` wrote, one row a run.

    Raises:
        TableError: the file cannot be read.
    """
    table = read_table(path)
    ends = end_columns(table.names, table.rows)
    rows = [
        FoundRow(
            run=str(row.cells.get("tags.mlflow.runName") or row.cells.get("run_id") or row.place),
            where=f"{path}: {row.place}",
            values=dict(flatten(row.cells)),
            unusable=unusable(row.cells, ends),
        )
        for row in table.rows
    ]
    notes = (*table.notes, *notes_on_ends(table.rows, ends))
    return Found(kind="mlflow", are_runs=True, origin=str(path), rows=rows, notes=notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """The folder of a run in a store of files."""

    folder: Path
    files: Sequence[Path]
    """Its files below ``params``, ``metrics`` and ``tags``."""
    meta: Mapping[str, Any] | None
    """What its ``meta.yaml`` holds; None where that is missing or damaged."""


def _runs(source: Source) -> Iterator[_Run]:
    """Every folder with a run's ``meta.yaml``, and those that are named as a run's but have none that can be read."""
    logged: dict[Path, list[Path]] = {}
    for path in source.files:
        if path.name == "meta.yaml":
            logged.setdefault(path.parent, [])
        for parent in path.parents:
            if parent.name in _LOGGED and source.holds(parent.parent):
                logged.setdefault(parent.parent, []).append(path)
                break
    for folder, files in sorted(logged.items()):
        try:
            meta = read_yaml(folder / "meta.yaml")
        except TableError:
            if _RUN_ID.fullmatch(folder.name):
                yield _Run(folder=folder, files=files, meta=None)
            continue
        if "run_id" in meta:  # else an experiment's or a model's
            yield _Run(folder=folder, files=files, meta=meta)


def _read_run(run: _Run) -> tuple[FoundRow, list[Path]]:
    """(row, damaged files) of a run."""
    if run.meta is None:
        reason = "without metadata that can be read (meta.yaml)"
        return FoundRow(run=run.folder.name, where=str(run.folder), values={}, unusable=reason), []
    values: dict[str, object] = {}
    damaged: list[Path] = []
    for path in run.files:
        kind, _, name = path.relative_to(run.folder).as_posix().partition("/")
        if name.startswith("mlflow."):
            continue  # tags of MLflow's own
        try:
            text = read_characters(path)
            values[f"{kind}.{name}"] = _last(text) if kind == "metrics" else text.strip()
        except (TableError, ValueError):
            damaged.append(path)
    row = FoundRow(
        run=str(run.meta.get("run_name") or run.meta["run_id"]),
        where=str(run.folder),
        values={name: value for name, value in values.items() if value != ""},
        unusable=_ended(run.folder, run.meta),
    )
    return row, damaged


def _ended(folder: Path, meta: Mapping[str, Any]) -> str:
    """How a run ended; empty where it ended well."""
    if meta.get("lifecycle_stage", "active") != "active" or ".trash" in folder.parts:
        return "deleted"
    if "status" not in meta:
        return "without a status in its metadata (meta.yaml)"
    number = meta["status"]
    status = _STATUS.get(number, str(number)) if isinstance(number, int) else str(number)
    return "" if status == "FINISHED" else f"with status {status}"


def _last(text: str) -> str:
    """The value logged at the last step; of several at that step the latest.

    Raises:
        ValueError: a line is damaged, or the last one cut short.
    """
    logged = []
    if text and not text.endswith("\n"):
        raise ValueError("its last line is cut short")
    for line in filter(str.strip, text.split("\n")):
        parts = line.split()
        if len(parts) < 2:
            raise ValueError(f"{line[:80]!r} is not 'timestamp value step'")
        float(parts[1])
        logged.append((int(parts[2]) if len(parts) > 2 else 0, int(parts[0]), parts[1]))
    return max(logged, key=lambda entry: entry[:2])[2] if logged else ""
