"""Rows of a table, one by one, whatever its format; each fault is reported with its line.

Every reader gives pairs of a place, such as ``line 41``, and the row there. A row that cannot be read is reported to
``bad`` with its place and the reason, and reading goes on after it.
"""

import csv
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

from raysplit.corpus.plain_text import LONGEST, content_of, flaw_in, numbered_lines, opened
from raysplit.errors import Unreadable, unknown
from raysplit.files import COMPRESSIONS, open_bytes, suffix_of

TABLE_FORMATS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""Suffixes in lower case; each may be compressed."""

Row = tuple[str, Mapping[str, Any]]
Bad = Callable[[str, str], None]
_BATCH_ROWS = 128
_BLOCK_CHARACTERS = 1 << 20
_DELIMITERS = ",;\t|"
_DECLARED = re.compile(r"sep=.\r?\n", re.IGNORECASE)
"""Excel's own first line."""
_NAME_CHARACTERS, _MOST_NAMES = 60, 20  # of a table without a header the text itself would be listed
_GAP = re.compile(r"[\s,]*")
_FIRST_ROWS = 100
"""Rows that tell whether a table of objects has a column at all; each may lack what it has no value for."""
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_UNFINISHED_CHARACTERS = 12
"""A fault so near the end of what has been read may be a value cut in two, such as ``-Infini``."""


def rows_of(path: Path, columns: Sequence[str], *, encoding: str | None, bad: Bad) -> Iterator[Row]:
    """Rows of one table. The file is opened at once, so that a fault in its first lines is raised by this call.

    Args:
        path: its suffix says the format.
        columns: the columns that are wanted, that of the text first; a row may hold others too.
        encoding: of the text; UTF-8 when None.
        bad: is told of rows that cannot be read.

    Raises:
        Unreadable: the file cannot be read (this may show later, too), lacks a column, or has no text in the first.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        return _parquet_rows(path, columns, bad)
    if suffix in (".csv", ".tsv"):
        return _csv_rows(path, columns, encoding, bad)
    return _json_rows(path, columns, encoding, bad, by_line=suffix != ".json")


def check_columns(columns: Sequence[str], wanted: Sequence[str]) -> None:
    """Check that a table has each wanted column once.

    Raises:
        Unreadable: a column is missing, or is there twice.
    """
    for column in wanted:
        if column not in columns:
            known = [shorten(str(name), _NAME_CHARACTERS) for name in columns[:_MOST_NAMES]]
            known += [f"and {len(columns) - _MOST_NAMES} more"] if len(columns) > _MOST_NAMES else []
            raise Unreadable(unknown("column", column, known))
        if list(columns).count(column) > 1:
            raise Unreadable(f"column {column!r} is there twice")


def text_in(row: Mapping[str, Any], column: str) -> str:
    """The text of a row; empty where it has none.

    Raises:
        Unreadable: something else is there, or the row has no such column.
    """
    if column not in row:
        raise Unreadable(f"has no {column!r}")
    value = row[column]
    if isinstance(value, bytes):  # what old writers of Parquet call a string
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise Unreadable(f"column {column!r} is not UTF-8 text: {error.reason}") from error
    if value is None or value != value:  # not a number, which pandas writes for what is missing
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"column {column!r} holds {type(value).__name__}, not text")
    return value


def flag_in(row: Mapping[str, Any], column: str) -> bool:
    """Whether a row's column says true.

    Raises:
        Unreadable: it says neither that nor false.
    """
    value = row.get(column)
    said = str(value).strip().lower()
    if said not in _FLAGS:
        raise Unreadable(f"column {column!r} holds {value!r}, which is neither true nor false")
    return _FLAGS[said]


def _json_rows(path: Path, columns: Sequence[str], encoding: str | None, bad: Bad, *, by_line: bool) -> Iterator[Row]:
    with opened(path, encoding) as file:
        head = file.read(_BLOCK_CHARACTERS).lstrip()
    first_line = head.partition("\n")[0]
    by_line = (by_line and not head.startswith("[") and first_line.strip() != "{") or _is_object(first_line)
    _check_objects(islice(_json_places(path, encoding, _ignore, by_line=by_line), _FIRST_ROWS), columns)
    return _json_places(path, encoding, bad, by_line=by_line)


def _ignore(place: str, why: str) -> None:
    pass


def _check_objects(rows: Iterator[Row], columns: Sequence[str]) -> None:
    """Check that a table's first rows have, together, every wanted column, and that one of them has a text.

    Raises:
        Unreadable: they do not.
    """
    names: dict[str, None] = {}
    flaws: list[Unreadable] = []
    has_text = False
    for _, row in rows:
        names |= dict.fromkeys(row)
        try:
            text_in(row, columns[0])
        except Unreadable as error:
            flaws.append(error)
        else:
            has_text = True
        if has_text and set(columns) <= set(names):
            return
    if names:
        check_columns(list(names), columns)
    if flaws and not has_text:
        raise flaws[-1]


def _is_object(line: str) -> bool:
    try:
        _object(line)
    except Unreadable:
        return False
    return True


def _json_places(path: Path, encoding: str | None, bad: Bad, *, by_line: bool) -> Iterator[Row]:
    for number, text in numbered_lines(path, encoding) if by_line else _json_values(path, encoding):
        if isinstance(text, str) and not text.strip():
            continue
        try:
            row = _object(text)
        except Unreadable as error:
            bad(f"line {number}", str(error))
        else:
            yield f"line {number}", row


def _object(text: object) -> Mapping[str, Any]:
    """The object in JSON text, or in a value that was read from it."""
    if isinstance(text, str):
        if flaw := flaw_in(text):
            raise Unreadable(flaw)
        try:
            text = json.loads(text.rstrip("\n"))
        except json.JSONDecodeError as error:
            raise Unreadable(f"is not JSON: {error.msg} (character {error.colno})") from error
        except (ValueError, RecursionError) as error:  # whole numbers of thousands of digits; brackets without end
            raise Unreadable(f"is not JSON: {error}") from error
    if not isinstance(text, dict):
        raise Unreadable(f"holds {type(text).__name__}, not an object")
    return text


def _json_values(path: Path, encoding: str | None) -> Iterator[tuple[int, object]]:
    """Values of an array, or one after another, over any number of lines, with the number of the line they begin on."""
    decoder = json.JSONDecoder()
    with opened(path, encoding) as file:
        text = file.read(_BLOCK_CHARACTERS)
        at = _GAP.match(text).end()  # type: ignore[union-attr]  # matches everywhere
        is_array = text.startswith("[", at)
        at += is_array
        line = 1 + text.count("\n", 0, at)
        while True:
            begin = _GAP.match(text, at).end()  # type: ignore[union-attr]
            line += text.count("\n", at, begin)
            at = begin
            try:
                value, end = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                fault = line + text.count("\n", at, error.pos)
                may_go_on = error.msg.startswith("Unterminated") or error.pos > len(text) - _UNFINISHED_CHARACTERS
                block = file.read(max(_BLOCK_CHARACTERS, len(text) - at)) if may_go_on else ""
                if block and len(text) - at <= LONGEST:
                    text, at = text[at:] + block, 0
                    continue
                if text[at:].strip() == ("]" if is_array else ""):
                    return
                raise Unreadable(f"line {fault} {flaw_in(text[at:]) or f'is not JSON: {error.msg}'}") from error
            except (ValueError, RecursionError) as error:
                raise Unreadable(f"line {line} is not JSON: {error}") from error
            if flaw := flaw_in(text[at:end]):
                raise Unreadable(f"line {line} {flaw}")
            yield line, value
            line += text.count("\n", at, end)
            at = end


def _csv_rows(path: Path, columns: Sequence[str], encoding: str | None, bad: Bad) -> Iterator[Row]:
    csv.field_size_limit(LONGEST)
    with opened(path, encoding) as file:
        head = file.readline(_BLOCK_CHARACTERS)
        is_declared = bool(_DECLARED.fullmatch(head))
        head = file.readline(_BLOCK_CHARACTERS) if is_declared else head
    if flaw := flaw_in(head):
        raise Unreadable(f"line {1 + is_declared} {flaw}")
    try:
        headers = {mark: _fields(head, mark) for mark in _DELIMITERS}
    except csv.Error as error:
        raise Unreadable(f"line {1 + is_declared} is not CSV: {error}") from error
    fitting = [mark for mark, fields in headers.items() if set(columns) <= set(fields)]
    delimiter = fitting[0] if fitting else max(headers, key=lambda mark: len(headers[mark]))
    if head.strip():  # else the header comes later, and is checked there
        try:
            check_columns(headers[delimiter], columns)
        except Unreadable as error:
            nth = "second" if is_declared else "first"
            raise Unreadable(f"{error} (its {nth} line is taken for the header)") from error
    is_plain = delimiter == "\t" and _is_plain(path, encoding, len(headers[delimiter]))
    return _csv_places(path, columns, encoding, bad, _Layout(delimiter, is_plain, n_above=int(is_declared)))


class _Layout(NamedTuple):
    """How a table of text is written."""

    delimiter: str
    is_plain: bool
    """Whether quotes are characters like others."""
    n_above: int
    """Lines above the header."""


def _is_plain(path: Path, encoding: str | None, n_columns: int) -> bool:
    """Whether quotes are characters like others: every line has its tabs, and read as quotes they do not fit."""
    sample: list[str] = []
    n_characters = 0
    for _, line in numbered_lines(path, encoding):
        sample.append(line)
        n_characters += len(line)
        if n_characters > _BLOCK_CHARACTERS:
            break
    if any(line.count("\t") != n_columns - 1 for line in sample if line.strip()):
        return False
    try:
        return any(len(fields) not in (0, n_columns) for fields in csv.reader(sample, delimiter="\t", strict=True))
    except csv.Error as error:  # which at the end of a sample may be that of a cell of many lines
        return n_characters <= _BLOCK_CHARACTERS or "unexpected end" not in str(error)


def _fields(line: str, delimiter: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line.strip("\r\n")], delimiter=delimiter), [])]


def _csv_places(path: Path, columns: Sequence[str], encoding: str | None, bad: Bad, layout: _Layout) -> Iterator[Row]:
    n_above = layout.n_above
    lines = (line for number, line in numbered_lines(path, encoding) if number > n_above)
    reader = csv.reader(
        lines,
        delimiter=layout.delimiter,
        quoting=csv.QUOTE_NONE if layout.is_plain else csv.QUOTE_MINIMAL,
        strict=True,
    )
    header: list[str] = []
    while True:
        first = n_above + reader.line_num + 1
        place = f"line {first}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise Unreadable(f"{place} opens a quote that is never closed") from error
            for number in range(
                first, n_above + reader.line_num + 1
            ):  # a stray quote takes lines that may have been good
                bad(f"line {number}", f"is not CSV: {error}; a quote within quotes is written twice")
            continue
        if not header:
            header = [field.strip() for field in fields]
            if header:
                check_columns(header, columns)
        elif not any(fields):
            continue
        elif flaw := flaw_in("".join(fields)):
            bad(place, flaw)
        elif len(fields) < len(header) or any(fields[len(header) :]):
            bad(place, f"has {len(fields)} fields, the header has {len(header)}")
        else:
            yield place, dict(zip(header, fields, strict=False))


def _parquet_rows(path: Path, columns: Sequence[str], bad: Bad) -> Iterator[Row]:
    with _parquet(path) as file:
        check_columns(file.schema_arrow.names, columns)
        kind = file.schema_arrow.field(columns[0]).type
    if not _is_text(kind):
        raise Unreadable(f"column {columns[0]!r} holds {kind}, not text")
    return _parquet_places(path, columns, bad)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    checks = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return types.is_null(plain) or any(check(plain) for check in checks)


def _parquet_places(path: Path, columns: Sequence[str], bad: Bad) -> Iterator[Row]:
    with _parquet(path) as file:
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns)):
            cells = [batch.column(name) for name in columns]
            for index in range(batch.num_rows):
                number += 1
                try:
                    row = {name: cell[index].as_py() for name, cell in zip(columns, cells, strict=True)}
                except UnicodeDecodeError as error:
                    bad(f"row {number}", f"is not UTF-8 text: {error.reason}")
                else:
                    yield f"row {number}", row


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet as pq

    try:
        with ExitStack() as stack:
            origin: Any = path
            if path.suffix.lower() in COMPRESSIONS:  # Parquet is read from its end, which needs the whole
                origin = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(stack.enter_context(open_bytes(path)), origin)
            yield stack.enter_context(pq.ParquetFile(origin))
    except (OSError, pyarrow.ArrowException) as error:
        raise Unreadable(content_of(path) or f"cannot be read as parquet: {' '.join(str(error).split())}") from error
