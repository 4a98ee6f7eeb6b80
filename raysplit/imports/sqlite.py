"""SQLite files of other tools, opened for reading alone."""

import sqlite3
from collections.abc import Iterator, Mapping, Set
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from raysplit.errors import TableError
from raysplit.imports.source import Source

_HEAD = b"SQLite format 3\x00"


class Database:
    """An open file, which gives rows of whole tables as mappings by column."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda raw: raw.decode(errors="replace")
        self._connection = connection
        listed = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        self.tables = frozenset(str(row["name"]) for row in listed)

    def rows(self, table: str) -> Iterator[Mapping[str, Any]]:
        """Every row of a table; none where there is no such table."""
        if table in self.tables:
            for row in self._connection.execute(f'SELECT * FROM "{table}"'):
                yield dict(row)


def databases_with(source: Source, tables: Set[str]) -> tuple[list[Path], dict[str, list[str]]]:
    """(files, unreadable): databases that have all of these tables, and the names of those that cannot be read, by
    reason.

    Raises:
        TableError: the source is itself a database that cannot be read.
    """
    found: list[Path] = []
    unreadable: dict[str, list[str]] = {}
    for path in filter(_is_database, source.files):
        try:
            with open_database(path) as database:
                if tables <= database.tables:
                    found.append(path)
        except TableError as error:
            if not source.is_folder:
                raise
            unreadable[str(error)] = [source.name_of(path)]
    return found, unreadable


def _is_database(path: Path) -> bool:
    """Whether a file is an SQLite database, by its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(len(_HEAD)) == _HEAD
    except OSError:
        return False


@contextmanager
def open_database(path: Path) -> Iterator[Database]:
    """Open a file read-only.

    A log beside it (``-wal``) is read too. Where that log cannot be opened, as on a read-only medium, the file is read
    alone, provided that the log is empty or missing.

    Raises:
        TableError: the file cannot be read, is damaged, or is locked by a program that writes into it.
    """
    try:
        with closing(_connect(path)) as connection:
            yield Database(connection)
    except sqlite3.Error as error:
        raise TableError(f"{path}: cannot be read as an SQLite database: {error}{_way_out(path, error)}") from error


def _connect(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(address, uri=True)
    try:
        connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.OperationalError as error:
        connection.close()
        log = path.with_name(path.name + "-wal")
        if "locked" in str(error) or (log.exists() and log.stat().st_size > 0):
            raise
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _way_out(path: Path, error: sqlite3.Error) -> str:
    if "locked" in str(error):
        return f"; a program is writing into it: try again, or import a copy (sqlite3 {path} '.backup copy.db')"
    if "unable to open" in str(error) or "readonly" in str(error):
        return "; copy it with its -wal or -journal file into a folder that can be written, and import the copy"
    return f"; try to rescue it (sqlite3 {path} .recover | sqlite3 rescued.db)"
