"""Tables as text, with commas, semicolons, tabs or pipes between columns, as spreadsheets, pandas and people write."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from raysplit.errors import TableError
from raysplit.tables.decimals import read_decimal_commas
from raysplit.tables.limits import read_characters
from raysplit.tables.table import Table, tabulate

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
_SAMPLE_LINES = 50
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_DECLARED = re.compile(r"sep=(.)\n", re.IGNORECASE)
"""The first line by which Excel tells the separator."""
_RULE = re.compile(r":?-[-+]*:?")
_NO_TABLES = {
    "<!doctype": "a web page, not the table behind it; download the file itself",
    "<html": "a web page, not the table behind it; download the file itself",
    "version https://git-lfs": "a pointer of Git LFS; fetch the file behind it with `git lfs pull`",
}


def read_delimited(path: Path, *, encoding: str | None = None) -> Table:
    """Read a table of text; see `raysplit.files.open_text` for its encoding.

    Raises:
        TableError: the file cannot be read, its columns cannot be told apart, or as `tabulate`.
    """
    text = read_characters(path, encoding=encoding)
    start = text[:200].lstrip().lower()
    for beginning, what in _NO_TABLES.items():
        if start.startswith(beginning):
            raise TableError(f"{path}: is {what}")
    if "\0" in text:
        raise TableError(f"{path}: is no text; where it is UTF-16, save it as UTF-8")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    declared = _DECLARED.match(text)
    separator = declared[1] if declared else _separator(text, path)
    lines = _lines(text, separator, path, n_skipped=1 if declared else 0)
    hint = "" if separator != "," else "; a cell that holds a comma is quoted, a fraction written with a point"
    table = tabulate(path, _without_frame(lines) if separator == "|" else lines, hint=hint)
    if separator in _SEPARATORS and separator != ",":
        table = replace(table, notes=(f"columns lie between {_SEPARATORS[separator]}", *table.notes))
    return read_decimal_commas(table, path, are_likely=separator == ";")


def _lines(text: str, separator: str, path: Path, *, n_skipped: int = 0) -> Iterator[tuple[str, list[str]]]:
    """(place, cells); a quoted cell may reach over several lines."""
    lines = (match.group() for match in _LINE.finditer(text))
    for _ in range(n_skipped):
        next(lines)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=True)
    number = n_skipped + 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise TableError(
                f"{path}: line {number}: cannot be read as a row: {error}; look for a stray quote"
            ) from error
        yield f"line {number}", cells
        number = n_skipped + reader.line_num + 1


def _without_frame(lines: Iterator[tuple[str, list[str]]]) -> Iterator[tuple[str, Sequence[str]]]:
    """Rows of a table with pipes, without the empty cells at both ends, the rule below the header, and emphasis."""
    for place, row in lines:
        cells = [cell.strip(" *`") for cell in row]
        inner = cells[1:-1] if len(cells) > 2 and not cells[0] and not cells[-1] else cells
        if not all(map(_RULE.fullmatch, inner)):  # psql draws it in one piece
            yield place, inner


def _separator(text: str, path: Path) -> str:
    """The separator by which most of the first rows have as many cells as the header.

    Raises:
        TableError: the first line has several words, and none of the separators between them.
    """
    sample = [line for line in text.split("\n", _SAMPLE_LINES)[:_SAMPLE_LINES] if line.strip()]
    best, best_fit = "", (0.0, 1)
    for separator in _SEPARATORS:
        try:
            rows = list(csv.reader(sample, delimiter=separator, skipinitialspace=separator != "\t"))
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        fit = (sum(len(row) == width for row in rows) / max(len(rows), 1), width)
        if width > 1 and fit > best_fit:
            best, best_fit = separator, fit
    if best:
        return best
    if sample and len(header := sample[0].split()) > 1:
        *some, last = _SEPARATORS.values()
        first = " ".join(header)[:80]
        raise TableError(
            f"{path}: neither {', '.join(some)} nor {last} lie between columns of its first line, {first!r}; write "
            "commas between them, or delete what stands above the header"
        )
    return ","
