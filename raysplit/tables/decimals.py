"""Decimal commas, told from commas between thousands by the whole table, and read as points."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from raysplit.errors import TableError
from raysplit.tables.table import Row, Table

_NUMBER = re.compile(r"(?P<digits>[+-]?[\d.,]*\d)(?P<rest>([eE][+-]?\d+)?\s*[A-Za-z]{0,10})", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?(\d*|\d{1,3}(\.\d{3})+),\d+", re.ASCII)
_DECIMAL_POINT = re.compile(r"[+-]?(\d*|\d{1,3}(,\d{3})+)\.\d+", re.ASCII)
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}", re.ASCII)
"""``4,073`` and ``20.000`` may each have a fraction, or thousands."""
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+", re.ASCII)
_LONGEST = 40


def read_decimal_commas(table: Table, path: Path, *, are_likely: bool) -> Table:
    """The table with a point in place of each decimal comma; where it has such commas, points between thousands go.

    A column with ``4,07`` has decimal commas, one with ``4.07`` has points. A column with nothing but ``4,073`` or
    ``20.000`` goes by the others.

    Args:
        table: a table whose cells are text.
        path: of its file, for errors.
        are_likely: whether commas are decimal where no column tells, as in a table with semicolons between its columns.

    Raises:
        TableError: some columns have decimal commas, others points, and one could have either.
    """
    if not any("," in cell for row in table.rows for cell in row.cells.values()):
        return table
    written = {name: found for name in table.names if (found := _digits(table.rows, name))}
    with_comma = {n: d for n, digits in written.items() if (d := _first(_DECIMAL_COMMA, digits))}
    with_point = {n: d for n, digits in written.items() if (d := _first(_DECIMAL_POINT, digits))}
    open_ones = {n: d for n, digits in written.items() if (d := next(filter(_EITHER.fullmatch, digits), None))}
    open_ones = {n: d for n, d in open_ones.items() if n not in with_comma and n not in with_point}
    if with_comma and with_point and open_ones:
        (comma_name, comma), (point_name, point), (name, either) = (
            next(iter(found.items())) for found in (with_comma, with_point, open_ones)
        )
        raise TableError(
            f"{path}: column {name!r} writes {either}: thousands or a fraction? Column {comma_name!r} has decimal "
            f"commas ({comma}), column {point_name!r} points ({point}); write all with points and no thousands' signs"
        )
    is_likely = are_likely and not with_point and any("," in digits for digits in open_ones.values())
    if not with_comma and not is_likely:
        return table
    # A column that writes both is left to be refused where it is read as numbers.
    changed = {name for name in written if name not in with_point} if not with_point else with_comma.keys() - with_point
    return _changed(table, changed, next(iter((with_comma or open_ones).values())))


def _changed(table: Table, names: Iterable[str], example: str) -> Table:
    among = set(names)
    rows = [
        replace(row, cells={n: _pointed(c) if n in among else c for n, c in row.cells.items()}) for row in table.rows
    ]
    note = f"decimal commas: {example} is read as {_pointed(example)}"
    return replace(table, rows=rows, notes=(*table.notes, note))


def _digits(rows: Sequence[Row], name: str) -> list[str]:
    """The digits, signs and marks of every number in a column that has a comma or a point."""
    found = []
    for row in rows:
        cell = row.cells.get(name, "")
        if len(cell) <= _LONGEST and ("," in cell or "." in cell) and (match := _NUMBER.fullmatch(cell)):
            found.append(match["digits"])
    return found


def _first(pattern: re.Pattern[str], digits: Sequence[str]) -> str | None:
    """The first of a form, but for numbers that could have either; None where there is none."""
    return next((d for d in digits if pattern.fullmatch(d) and not _EITHER.fullmatch(d)), None)


def _pointed(cell: str) -> str:
    match = _NUMBER.fullmatch(cell) if len(cell) <= _LONGEST else None
    if match is None:
        return cell
    digits = match["digits"]
    if _DECIMAL_COMMA.fullmatch(digits):
        return digits.replace(".", "").replace(",", ".") + match["rest"]
    return (digits.replace(".", "") if _THOUSANDS.fullmatch(digits) else digits) + match["rest"]
