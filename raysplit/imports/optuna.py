"""Optuna: an SQLite storage, such as ``optuna.db``, with the tables of Optuna 3 to 5 (storages/_rdb/models.py)."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.imports.documents import read_lines
from raysplit.imports.found import Found, FoundRow, flatten
from raysplit.imports.source import Source
from raysplit.imports.sqlite import Database, databases_with, open_database

_TABLES = frozenset(("studies", "trials"))
_NEEDED = {"studies", "trials", "trial_params", "trial_values", "trial_user_attributes"}


def recognises(source: Source) -> bool:
    """Whether a source is or holds a storage of Optuna."""
    return bool(databases_with(source, _TABLES)[0]) or (not source.is_folder and _is_journal(source.path))


def is_part(name: str) -> bool:
    """Whether a file that was not read is one of Optuna's own, and no trial."""
    return name.endswith((".db", ".sqlite", ".sqlite3", "-wal", "-shm", "-journal"))


def read_optuna(source: Source) -> Found:
    """One row a trial of every study; a trial is usable where its state is COMPLETE.

    The objective is the column ``value``, or ``value_0``, ``value_1``, where there are several.

    Raises:
        TableError: the storage cannot be read, or there is none.
    """
    paths, left_out = databases_with(source, _TABLES)
    if not paths and left_out:
        raise TableError("; ".join(left_out))
    if not paths and any(map(_is_journal, source.files)):
        raise TableError(
            f"{source.path}: holds a journal of Optuna, which is not read; write a table with Optuna: "
            "study.trials_dataframe().to_csv('trials.csv')"
        )
    if not paths:
        raise TableError(f"{source.path}: holds no SQLite storage of Optuna, such as optuna.db")
    rows = [row for path in paths for row in _read_trials(path)]
    return Found(kind="optuna", are_runs=True, origin=str(source.path), rows=rows, left_out=left_out, objective="value")


def _is_journal(path: Path) -> bool:
    if path.suffix != ".log":
        return False
    try:
        first = next(read_lines(path), (1, None))[1]
    except TableError:
        return False
    return first is not None and "op_code" in first


def _read_trials(path: Path) -> Iterator[FoundRow]:
    with open_database(path) as database:
        if lacking := sorted(_NEEDED - database.tables):
            raise TableError(
                f"{path}: a storage of Optuna of another version, without the tables {', '.join(lacking)}; bring a "
                f"copy of it up to date with 'optuna storage upgrade --storage sqlite:///{path}'"
            )
        studies = {row["study_id"]: row.get("study_name") for row in database.rows("studies")}
        values: dict[int, dict[str, object]] = defaultdict(dict)
        for trial, name, value in _entries(database):
            values[trial][name] = value
        for row in database.rows("trials"):
            trial, number = row["trial_id"], row.get("number", row["trial_id"])
            study = studies.get(row["study_id"])
            yield FoundRow(
                run=f"{study} {number}",
                where=f"{path}: trial {number} of study {study!r}",
                values=dict(flatten({"study": study, **values[trial]})),
                unusable="" if row["state"] == "COMPLETE" else f"with state {row['state']}",
            )


def _entries(database: Database) -> Iterator[tuple[int, str, object]]:
    """(trial, column, value) of every parameter, user attribute and objective."""
    for row in database.rows("trial_params"):
        yield row["trial_id"], f"params.{row['param_name']}", _parameter(row)
    for row in database.rows("trial_user_attributes"):
        yield row["trial_id"], f"user_attrs.{row['key']}", _json(row["value_json"])
    objectives = list(database.rows("trial_values"))
    several = any(row.get("objective") for row in objectives)
    infinite = {"INF_POS": float("inf"), "INF_NEG": float("-inf")}
    for row in objectives:
        name = f"value_{row['objective']}" if several else "value"
        yield row["trial_id"], name, infinite.get(row.get("value_type") or "", row["value"])


def _parameter(row: Mapping[str, Any]) -> object:
    """A value as the trial saw it: Optuna stores a choice by its position, and whole numbers as floats."""
    distribution = _json(row["distribution_json"])
    about = distribution if isinstance(distribution, dict) else {}
    value = row["param_value"]
    choices = about.get("attributes", {}).get("choices")
    if isinstance(choices, list):
        return choices[int(value)] if 0 <= int(value) < len(choices) else None
    return int(value) if str(about.get("name", "")).startswith("Int") else value


def _json(text: Any) -> object:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text
