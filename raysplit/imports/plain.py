"""Tables as files: CSV and Parquet, every cell as it is written there."""

from pathlib import Path
from typing import Any

import pandas as pd

from raysplit.errors import TableError, unknown
from raysplit.imports.found import Found, FoundRow

SUFFIXES = (".csv", ".parquet")


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Rows of a table; cells of a CSV file are text, so that `nan` and nothing are told apart.

    Raises:
        TableError: the file cannot be read.
    """
    if path.suffix not in SUFFIXES:
        raise TableError(f"{path}: {unknown('table format', path.suffix, SUFFIXES)}")
    try:
        is_csv = path.suffix == ".csv"
        frame = pd.read_csv(path, dtype=str, keep_default_na=False) if is_csv else pd.read_parquet(path)
    except Exception as error:  # every parser has its own family of errors
        raise TableError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    return [{str(k): v for k, v in row.items() if v is not None and v != ""} for row in frame.to_dict("records")]


def read_plain(path: Path) -> Found:
    """Any table, one run a row; a column ``trial`` names it.

    Raises:
        TableError: the file cannot be read.
    """
    rows = [
        FoundRow(run=str(cells.get("trial", f"row {i}")), where=f"{path}: row {i}", values=cells)
        for i, cells in enumerate(read_cells(path), start=1)
    ]
    return Found(kind="csv", origin=str(path), rows=rows)
