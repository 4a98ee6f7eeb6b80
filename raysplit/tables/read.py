"""The reader of any table: its format goes by the first bytes of the file where they tell, else by its suffix."""

from pathlib import Path

from raysplit.errors import TableError, unknown
from raysplit.files import COMPRESSIONS, open_bytes, suffix_of
from raysplit.tables.columnar import ARROW_SUFFIXES, PARQUET_SUFFIXES, read_columnar
from raysplit.tables.delimited import read_delimited
from raysplit.tables.limits import no_such, unreadable
from raysplit.tables.objects import JSON_SUFFIXES, read_objects
from raysplit.tables.table import Row, Table, filled
from raysplit.tables.workbook import WORKBOOK_SUFFIXES, read_workbook

TEXT_SUFFIXES = (".csv", ".tsv", ".tab", ".psv", ".txt", ".md")
SUFFIXES = (*TEXT_SUFFIXES, *JSON_SUFFIXES, *PARQUET_SUFFIXES, *ARROW_SUFFIXES, *WORKBOOK_SUFFIXES)
_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")
_MAGIC = {
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
    b"FEA1": ".feather",
    b"PK\x03\x04": ".xlsx",
    b"\xd0\xcf\x11\xe0": ".xlsx",  # of Excel before 2007, or with a password; which is told there
}
"""First bytes of formats that lie under any name, such as an Excel file called ``.csv``."""


def read_table(path: Path, *, encoding: str | None = None, sheet: str | None = None) -> Table:
    """Read the table in a file with one of `SUFFIXES`, in upper or lower case, compressed or not.

    Args:
        path: of the file.
        encoding: of a text table, as Python names it; see `raysplit.files.open_text`.
        sheet: name of the sheet, of a workbook that has several.

    Raises:
        TableError: there is no table in it that can be read. The message says why, and what to do.
    """
    if path.is_dir():
        raise TableError(f"{path}: is a folder; `raysplit import {path}` reads what tools keep in folders")
    if not path.exists():
        raise TableError(no_such(path))
    if (suffix := suffix_of(path)) not in SUFFIXES:
        raise TableError(f"{path}: {unknown_format(path)}")
    suffix = _suffix_by_content(path) or suffix
    if sheet is not None and suffix not in WORKBOOK_SUFFIXES:
        raise TableError(f"{path}: has no sheets, but --sheet {sheet} was given")
    if suffix in WORKBOOK_SUFFIXES:
        return read_workbook(path, sheet=sheet)
    if suffix in PARQUET_SUFFIXES or suffix in ARROW_SUFFIXES:
        return read_columnar(path, is_parquet=suffix in PARQUET_SUFFIXES)
    if suffix in JSON_SUFFIXES:
        return _of_objects(path, encoding)
    return read_delimited(path, encoding=encoding)


def unknown_format(path: Path) -> str:
    """The message for a file whose suffix is none of `SUFFIXES`."""
    if (suffix := suffix_of(path)) in _ARCHIVES:
        return "is an archive; unpack it, and give the table in it"
    choices = f"{unknown('table format', suffix, SUFFIXES)}; each also {', '.join(COMPRESSIONS)}"
    return f"{choices}. Save or export the table as one of them"


def _suffix_by_content(path: Path) -> str:
    try:
        with open_bytes(path) as file:
            head = file.read(64)
    except (OSError, ValueError) as error:
        raise TableError(unreadable(path, error)) from error
    by_magic = next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), "")
    is_json = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
    return by_magic or (".json" if is_json and suffix_of(path) in (".txt", ".csv") else "")


def _of_objects(path: Path, encoding: str | None) -> Table:
    objects = [(where.rpartition(": ")[2], cells) for where, cells in read_objects(path, encoding=encoding)]
    names = dict.fromkeys(name for _, cells in objects for name in cells)
    rows = [Row(place=f"row {i} ({place})", cells=filled(cells)) for i, (place, cells) in enumerate(objects, start=1)]
    return Table(names=list(names), rows=rows)
