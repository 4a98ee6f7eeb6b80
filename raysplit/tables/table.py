"""A table as it stands in a file: a header, and rows with their places and the cells that are not empty."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.quantities import counted
from raysplit.tables.limits import MAX_CELLS

_NOTHING = frozenset(
    (
        "na",
        "n/a",
        "n.a.",
        "<na>",
        "#n/a",
        "null",
        "(null)",
        "nil",
        "\\n",
        "none",
        "missing",
        "tbd",
        "?",
        "-",
        "--",
        "–",
        "—",
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row below the header."""

    place: str
    """``row 3 (line 4)``: the third row that is not empty, and the line at which an editor shows it."""
    cells: Mapping[str, Any]
    """Cells by column, text without the blanks around it; empty cells are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """What a file holds, before any column has a meaning."""

    names: Sequence[str]
    """The columns' names, in their order."""
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    """Sentences on how it was read, where that was a choice."""


def is_nothing(value: object) -> bool:
    """Whether a cell for a number says that there is none (empty, ``NA``, ``null``); ``nan`` is a diverged number."""
    return value is None or (isinstance(value, str) and (not value or value.casefold() in _NOTHING))


def tabulate(path: Path, lines: Iterable[tuple[str, Sequence[Any]]], *, hint: str = "") -> Table:
    """Make a table of a header and rows.

    Args:
        path: of the file, for errors.
        lines: (place, cells) of each line, the header first; empty ones are skipped.
        hint: what may be wrong where a row is longer or shorter than the header, for the message.

    Raises:
        TableError: there is no header; two columns have one name; a row has more or fewer cells than the header; there
            are more than `MAX_CELLS` cells.
    """
    some = ((place, cells) for place, given in lines if _any(cells := [_bare(cell) for cell in given]))
    place, header = next(some, ("", []))
    if not header:
        raise TableError(f"{path}: cannot be read as a table: it is empty")
    names = _names(header, f"{path}: {place}")
    rows: list[Row] = []
    n_cells = n_headers = 0
    for place, cells in some:
        if cells == header:
            n_headers += 1
            continue
        if len(cells) < len(names) or _any(cells[len(names) :]):
            if len(names) == 1 or len(cells) == 1:
                hint = f"; delete what {'stands above the header' if len(names) == 1 else 'is no row of the table'}"
            raise TableError(f"{path}: {place} has {counted(len(cells), 'cell')}, the header {len(names)}{hint}")
        row = filled(dict(zip(names, cells, strict=False)))
        n_cells += len(row)
        if n_cells > MAX_CELLS:
            raise TableError(f"{path}: {place}: more than {MAX_CELLS} cells; keep one row a measured point")
        rows.append(Row(place=f"row {len(rows) + 1} ({place})", cells=row))
    again = f"the header stands again in {counted(n_headers, 'row')}, as where files were put together: not read"
    return Table(names=names, rows=rows, notes=(again,) if n_headers else ())


def filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a row that are not empty, without blanks around text."""
    return {name: cell for name, given in row.items() if not _is_empty(cell := _bare(given))}


def _is_empty(cell: Any) -> bool:
    return isinstance(cell, str) and not cell


def _any(cells: Sequence[Any]) -> bool:
    return not all(map(_is_empty, cells))


def _bare(cell: Any) -> Any:
    """A cell as text without blanks around it, ``""`` where there is none, or a value of another type."""
    if cell is None:
        return ""
    return cell.strip() if isinstance(cell, str) else cell


def _names(header: Sequence[Any], where: str) -> list[str]:
    """The columns' names; a column without one, such as pandas's index, is named by its number."""
    last = max(i for i, cell in enumerate(header, start=1) if not _is_empty(cell))
    names = [str(cell) or f"column {i}" for i, cell in enumerate(header[:last], start=1)]
    repeated = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < last else None
    if repeated is not None:
        at = [i for i, name in enumerate(names, start=1) if name == repeated]
        raise TableError(
            f"{where}: columns {' and '.join(map(str, at))} are both named {repeated!r}; rename one, "
            "and of a header of two rows delete one"
        )
    return names
