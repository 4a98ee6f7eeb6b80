"""Excel's workbooks: the values of one sheet, as Excel last computed them."""

import io
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raysplit.errors import TableError, unknown
from raysplit.tables.limits import MAX_BYTES, MAX_CELLS, read_content, unreadable
from raysplit.tables.table import Table, tabulate

WORKBOOK_SUFFIXES = (".xlsx", ".xlsm")
_NOT_COMPUTED = re.compile(
    rb'<c r="([A-Z]{1,3}\d{1,7})"(?![^>]*\bt="str")[^>]*><f\b[^>]*>[^<]*</f>\s*(?:<v\s*/>|<v></v>)?\s*</c>'
)
"""A cell with a formula and no value. A formula that gives a text (``t="str"``) may have an empty one."""
_LARGEST_UNPACKED = 4 * MAX_BYTES
_MOST_PADDED = 10 * MAX_CELLS
"""Most cells up to the last filled one of each row, empty ones too: one stray value far to the right makes many."""


def read_workbook(path: Path, *, sheet: str | None = None) -> Table:
    """Read the table in a sheet: the named one, or the only one that has any cell.

    Raises:
        TableError: openpyxl is not installed, the file cannot be read, a formula was never computed, or several sheets
            have cells and none is named.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise TableError(
            f"{path}: Excel's files are read with openpyxl: pip install 'raysplit[import]'; or save it as CSV"
        ) from error
    content = io.BytesIO(read_content(path))
    try:
        with zipfile.ZipFile(content) as packed:
            if "[Content_Types].xml" not in packed.namelist():
                raise TableError(f"{path}: is an archive (ZIP), no workbook; unpack it, and give the table in it")
            if sum(part.file_size for part in packed.infolist()) > _LARGEST_UNPACKED:
                raise TableError(f"{path}: holds more than {_LARGEST_UNPACKED >> 20} MiB; save the sheet as CSV")
            _refuse_formulas_without_values(packed, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns of extensions that it drops; none of them is a value
            book = openpyxl.load_workbook(content, read_only=True, data_only=True)
            for one in book.worksheets:
                one.reset_dimensions()  # some programs write a wrong one, and then rows are lost
            chosen = _chosen({one.title: one for one in book.worksheets}, sheet, path)
            return tabulate(path, _rows(chosen, path))
    except TableError:
        raise
    except zipfile.BadZipFile as error:
        raise TableError(
            f"{path}: is no workbook of Excel since 2007, or has a password; save it as such, or as CSV"
        ) from error
    except Exception as error:  # whatever a damaged part does to the parser
        raise TableError(unreadable(path, error)) from error


def _refuse_formulas_without_values(packed: zipfile.ZipFile, path: Path) -> None:
    """Refuse a book with formulas that were never computed, as a program writes it: those cells would read as empty.

    Raises:
        TableError: it has one.
    """
    for name in packed.namelist():
        if name.startswith("xl/worksheets/") and (found := _NOT_COMPUTED.search(packed.read(name))):
            raise TableError(
                f"{path}: the formula in cell {found[1].decode()} was never computed; open the book in Excel or "
                "LibreOffice and save it, or write values in place of formulas"
            )


def _chosen(sheets: dict[str, Any], name: str | None, path: Path) -> Any:
    if name is not None:
        if name not in sheets:
            raise TableError(f"{path}: {unknown('sheet', name, sheets)}")
        return sheets[name]
    filled = [title for title, sheet in sheets.items() if any(map(_is_filled, sheet.iter_rows(values_only=True)))]
    if len(filled) > 1:
        raise TableError(
            f"{path}: has {len(filled)} sheets: {', '.join(map(repr, filled))}; say which: raysplit import --sheet NAME"
        )
    if not filled:
        raise TableError(f"{path}: cannot be read as a table: it is empty")
    return sheets[filled[0]]


def _rows(sheet: Any, path: Path) -> Iterator[tuple[str, list[Any]]]:
    n_padded = width = 0
    for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
        n_padded += len(row)
        if n_padded > _MOST_PADDED:
            raise TableError(
                f"{path}: sheet {sheet.title!r}: a cell far off makes more than {_MOST_PADDED} cells; delete it"
            )
        width = width or (len(row) if _is_filled(row) else 0)
        yield f"sheet row {number}", [*row, *[None] * (width - len(row))]


def _is_filled(row: tuple[Any, ...]) -> bool:
    return any(cell is not None and cell != "" for cell in row)
