"""MLflow: a local file store (``mlruns``), and the CSV of ``mlflow experiments csv`` or of ``mlflow.search_runs``.

In a file store each run is a folder with ``meta.yaml`` and one file a parameter and a metric under ``params`` and
``metrics``; a name with slashes is a path of folders. A metric's file has a line ``timestamp value step`` for each time
that it was logged (mlflow/store/tracking/file_store.py; seen with MLflow 3.17).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from raysplit.errors import TableError
from raysplit.imports.found import Found, FoundRow, flatten
from raysplit.imports.plain import read_cells

_STATUS = {1: "running", 2: "scheduled", 3: "finished", 4: "failed", 5: "killed"}
"""mlflow.protos.service_pb2.RunStatus."""


def read_mlflow(path: Path) -> Found:
    """One row a run, with the last value of every metric.

    Raises:
        TableError: the store or table cannot be read.
    """
    rows = list(_runs_of_store(path)) if path.is_dir() else list(_runs_of_table(path))
    return Found(kind="mlflow", origin=str(path), rows=rows)


def is_store(folder: Path) -> bool:
    """Whether a folder holds a run of MLflow."""
    return any(_run_of(meta) is not None for meta in folder.rglob("meta.yaml"))


def _runs_of_table(path: Path) -> Iterator[FoundRow]:
    for i, cells in enumerate(read_cells(path), start=1):
        status = str(cells.get("status", "finished")).lower()
        name = cells.get("tags.mlflow.runName") or cells.get("run_id") or f"row {i}"
        yield FoundRow(
            run=str(name),
            where=f"{path}: row {i}",
            values=dict(flatten(cells)),
            unusable="" if status == "finished" else status,
        )


def _runs_of_store(folder: Path) -> Iterator[FoundRow]:
    for meta in sorted(folder.rglob("meta.yaml")):
        run = _run_of(meta)
        if run is None or ".trash" in meta.parts:
            continue
        status = _STATUS.get(run.get("status", 3), str(run.get("status")))
        if run.get("lifecycle_stage", "active") != "active":
            status = "deleted"
        values: dict[str, object] = {}
        for name, text in _files(meta.parent / "params"):
            values[f"params.{name}"] = text.strip()
        for name, text in _files(meta.parent / "metrics"):
            values[f"metrics.{name}"] = _last(text, meta.parent / "metrics" / name)
        yield FoundRow(
            run=str(run.get("run_name") or run["run_id"]),
            where=str(meta.parent),
            values={name: value for name, value in values.items() if value != ""},
            unusable="" if status == "finished" else status,
        )


def _run_of(meta: Path) -> dict[str, Any] | None:
    """What ``meta.yaml`` says, if it is a run's and not an experiment's or a model's."""
    try:
        said = yaml.safe_load(meta.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TableError(f"{meta}: cannot be read: {error}") from error
    return said if isinstance(said, dict) and "run_id" in said else None


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                yield str(path.relative_to(folder)), path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise TableError(f"{path}: cannot be read: {error}") from error


def _last(text: str, path: Path) -> str:
    """The value logged at the last step; the later one where a step has several."""
    logged = []
    for number, line in enumerate(filter(str.strip, text.splitlines()), start=1):
        parts = line.split()
        try:
            logged.append((int(parts[2]) if len(parts) > 2 else 0, int(parts[0]), parts[1]))
        except (ValueError, IndexError) as error:
            raise TableError(f"{path}: line {number} is not 'timestamp value step', got {line[:80]!r}") from error
    return max(logged, key=lambda entry: entry[:2])[2] if logged else ""
