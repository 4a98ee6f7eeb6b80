"""MLflow's SQLite store, its default since 3.7: ``mlflow.db``, with the last value of every metric.

The tables are those of MLflow 3.17 (mlflow/store/tracking/dbmodels/models.py); the ones used here are the same since
1.13. A metric's last value is that of its last step, as MLflow's own ``latest_metrics`` keeps it. That table keeps an
infinity as the largest float, and NaN as a flag.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.imports.found import FoundRow
from raysplit.imports.sqlite import Database, open_database

_NEEDED = {
    "runs": ("run_uuid", "name", "status", "lifecycle_stage", "experiment_id"),
    "params": ("key", "value", "run_uuid"),
    "latest_metrics": ("key", "value", "is_nan", "run_uuid"),
}
TABLES = frozenset(("runs", "params", "metrics", "experiments"))
"""Tables of a tracking store of any version."""
_OWN_TAG = "mlflow."


def read_database(path: Path) -> list[FoundRow]:
    """One row a run, of every experiment.

    Raises:
        TableError: the file cannot be read, or is of a version of MLflow with other tables.
    """
    with open_database(path) as database:
        runs = list(database.rows("runs"))
        _check_version(path, database, runs)
        experiments = {row["experiment_id"]: row for row in database.rows("experiments")}
        values: dict[str, dict[str, object]] = defaultdict(dict)
        for run_uuid, name, value in _entries(database):
            values[run_uuid][name] = value
    found = []
    for run in runs:
        experiment = experiments.get(run["experiment_id"], {})
        own: dict[str, object] = {"experiment": experiment.get("name"), **values[run["run_uuid"]]}
        found.append(
            FoundRow(
                run=str(run["name"] or run["run_uuid"]),
                where=f"{path}: run {run['run_uuid']}",
                values={name: value for name, value in own.items() if value is not None and value != ""},
                unusable=_ended(run, experiment),
            )
        )
    return found


def _entries(database: Database) -> Iterator[tuple[str, str, object]]:
    """(run, column, value) of everything logged."""
    for row in database.rows("tags"):
        if not str(row["key"]).startswith(_OWN_TAG):
            yield row["run_uuid"], f"tags.{row['key']}", row["value"]
    for row in database.rows("params"):
        yield row["run_uuid"], f"params.{row['key']}", row["value"]
    for row in database.rows("latest_metrics"):
        yield row["run_uuid"], f"metrics.{row['key']}", math.nan if row["is_nan"] else _with_infinity(row["value"])


def _with_infinity(value: Any) -> object:
    is_largest = isinstance(value, float) and abs(value) >= sys.float_info.max * (1 - 1e-6)
    return math.copysign(math.inf, value) if is_largest else value


def _ended(run: Mapping[str, Any], experiment: Mapping[str, Any]) -> str:
    """How a run ended; empty where it ended well."""
    if "deleted" in (run["lifecycle_stage"], experiment.get("lifecycle_stage")):
        return "deleted"
    return "" if run["status"] == "FINISHED" else f"with status {run['status'] or 'unknown'}"


def _check_version(path: Path, database: Database, runs: list[Mapping[str, Any]]) -> None:
    for table, columns in _NEEDED.items():
        rows = runs if table == "runs" else database.rows(table)
        first: Mapping[str, Any] = next(iter(rows), dict.fromkeys(columns))
        lacking = [column for column in columns if column not in first]
        if table not in database.tables or lacking:
            version = next((row.get("version_num") for row in database.rows("alembic_version")), "unknown")
            what = f"columns {', '.join(lacking)} in its table {table}" if lacking else f"table {table}"
            raise TableError(
                f"{path}: a store of MLflow of another version (schema {version}) without {what}; "
                f"bring a copy of it up to date with 'mlflow db upgrade sqlite:///{path}', or write a table with "
                "mlflow.search_runs(search_all_experiments=True).to_csv('runs.csv')"
            )
