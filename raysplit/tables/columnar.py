"""Tables with types of their own: Parquet, and Arrow's files (Feather)."""

from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.tables.limits import MAX_CELLS, read_content, unreadable
from raysplit.tables.table import Row, Table, filled

PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (".feather", ".arrow", ".ipc")


def read_columnar(path: Path, *, is_parquet: bool) -> Table:
    """Read a table of Parquet or Arrow; null cells are left out.

    Raises:
        TableError: the file cannot be read, holds more than `MAX_CELLS` cells, or has two columns of one name.
    """
    import pyarrow

    content = pyarrow.BufferReader(read_content(path))
    try:
        table = _parquet(content, path) if is_parquet else _arrow(content, path)
        names = [str(name) for name in table.column_names]
        if len(set(names)) < len(names):
            raise TableError(
                f"{path}: two columns are named {next(n for n in names if names.count(n) > 1)!r}; rename one"
            )
        rows = [filled(_decoded(row)) for row in table.to_pylist()]
    except TableError:
        raise
    except Exception as error:  # Arrow's own, and those of Python's types, such as a date that it cannot hold
        raise TableError(unreadable(path, error)) from error
    return Table(names=names, rows=[Row(place=f"row {i}", cells=cells) for i, cells in enumerate(rows, start=1)])


def _parquet(content: Any, path: Path) -> Any:
    from pyarrow import parquet

    file = parquet.ParquetFile(content)
    _refuse_more_than_cells(file.metadata.num_rows * file.metadata.num_columns, path)
    return file.read()


def _arrow(content: Any, path: Path) -> Any:
    """The table in Arrow's file or stream, read by batches, so that one too large is refused early; or in Feather 1."""
    import pyarrow
    from pyarrow import feather, ipc

    head = content.read(6)
    content.seek(0)
    if head.startswith(b"FEA1"):
        return feather.read_table(content)  # version 1 has no compression, so its size is that of the file
    if head == b"ARROW1":
        file = ipc.open_file(content)
        schema, batches = file.schema, (file.get_batch(i) for i in range(file.num_record_batches))
    else:
        stream = ipc.open_stream(content)
        schema, batches = stream.schema, iter(stream)
    kept: list[Any] = []
    n_rows = 0
    for batch in batches:
        kept.append(batch)
        n_rows += batch.num_rows
        _refuse_more_than_cells(n_rows * batch.num_columns, path)
    return pyarrow.Table.from_batches(kept, schema)


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its bytes as text: some programs keep text so."""
    return {name: c.decode(errors="backslashreplace") if isinstance(c, bytes) else c for name, c in row.items()}


def _refuse_more_than_cells(n_cells: int, path: Path) -> None:
    if n_cells > MAX_CELLS:
        raise TableError(f"{path}: {n_cells} cells; at most {MAX_CELLS} are read; keep one row a measured point")
