"""Documents of one domain, read one by one from files, tables, Hugging Face datasets or package texts."""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from raysplit.corpus.packages import package_documents
from raysplit.corpus.pieces import pieces
from raysplit.errors import CorpusError, unknown
from raysplit.space import SourceSpec

_TABLE_FORMATS = (".parquet", ".jsonl", ".csv")
_PIECE_CHARACTERS = 8000


def open_source(source: SourceSpec, *, domain: str) -> Iterator[str]:
    """Check that the source is there and has what is asked of it, then give its documents, blank ones left out.

    The checks are made at once; the documents are read as the iterator is consumed.

    Raises:
        CorpusError: nothing is there, a column or a label is unknown, or a file cannot be read. Problems deep inside a
            file, and a label that no row has, show while reading.
    """
    where = f"domain {domain!r}"
    if source.kind == "package":
        assert source.package is not None
        return _not_blank(package_documents(source.package))
    assert source.path is not None
    if source.kind == "files":
        return _not_blank(_files(Path(source.path), source.pattern, where=where))
    if source.kind == "table":
        rows = _table(Path(source.path), source, where=where)
    else:
        rows = _huggingface(source, where=where)
    return _not_blank(_labelled(rows, source, label=source.label or domain, where=where))


def _not_blank(texts: Iterator[str]) -> Iterator[str]:
    return (text for text in texts if text and not text.isspace())


def _files(path: Path, pattern: str, *, where: str) -> Iterator[str]:
    if path.is_file():
        # One file holds many texts; as a single document it could not be split into training and held-out text.
        return pieces(_read(path, where=where), size=_PIECE_CHARACTERS)
    if not path.is_dir():
        raise CorpusError(f"{where}: {path}: no such file or folder")
    paths = sorted(found for found in path.glob(pattern) if found.is_file())
    if not paths:
        raise CorpusError(f"{where}: {path}: no file matches {pattern!r}")
    return (_read(found, where=where) for found in paths)


def _read(path: Path, *, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{where}: {path}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise CorpusError(f"{where}: {path}: cannot be read: {error.strerror}") from error


def _table(path: Path, source: SourceSpec, *, where: str) -> Iterator[Mapping[str, Any]]:
    if not path.exists():
        raise CorpusError(f"{where}: {path}: no such file or folder")
    paths = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in _TABLE_FORMATS)
    if not paths:
        raise CorpusError(f"{where}: {path}: holds no table ({', '.join(_TABLE_FORMATS)})")
    for found in paths:
        if found.suffix not in _TABLE_FORMATS:
            raise CorpusError(f"{where}: {found}: {unknown('table format', found.suffix, _TABLE_FORMATS)}")
        _first_columns_are_right(found, source, where=where)
    return (row for found in paths for row in _rows(found, source, where=where))


def _first_columns_are_right(path: Path, source: SourceSpec, *, where: str) -> None:
    readers: dict[str, Callable[[Path], list[str]]] = {
        ".parquet": _parquet_columns,
        ".jsonl": _jsonl_columns,
        ".csv": _csv_columns,
    }
    try:
        columns = readers[path.suffix](path)
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these
        raise CorpusError(f"{where}: {path}: cannot be read as {path.suffix[1:]}: {error}") from error
    _has_columns(columns, source, where=f"{where}: {path}")


def _has_columns(columns: list[str], source: SourceSpec, *, where: str) -> None:
    for column in _wanted(source):
        if column not in columns:
            raise CorpusError(f"{where}: {unknown('column', column, columns)}")


def _wanted(source: SourceSpec) -> list[str]:
    return [source.text_column] + ([source.label_column] if source.label_column else [])


def _parquet_columns(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names)


def _jsonl_columns(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        first = json.loads(next((line for line in file if line.strip()), "{}"))
    if not isinstance(first, dict):
        raise ValueError(f"line 1 holds {type(first).__name__}, not an object")
    return list(first)


def _csv_columns(path: Path) -> list[str]:
    import pyarrow.csv

    with pyarrow.csv.open_csv(path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)) as reader:
        return list(reader.schema.names)


def _rows(path: Path, source: SourceSpec, *, where: str) -> Iterator[Mapping[str, Any]]:
    """Rows of one table, only the columns that are wanted."""
    wanted = _wanted(source)
    try:
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        row = json.loads(line)
                        if not isinstance(row, dict):
                            raise ValueError(f"line {number} holds {type(row).__name__}, not an object")
                        yield row
        elif path.suffix == ".csv":
            import pyarrow
            import pyarrow.csv

            with pyarrow.csv.open_csv(
                path,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=wanted, column_types=dict.fromkeys(wanted, pyarrow.string())
                ),
            ) as reader:
                for batch in reader:
                    yield from batch.to_pylist()
        else:
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=1024, columns=wanted):
                    yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise CorpusError(f"{where}: {path}: cannot be read as {path.suffix[1:]}: {error}") from error


def _huggingface(source: SourceSpec, *, where: str) -> Iterator[Mapping[str, Any]]:
    import datasets

    assert source.path is not None
    try:
        dataset = datasets.load_dataset(
            source.path, name=source.config_name, split=source.split, streaming=source.streaming
        )
    except Exception as error:  # the loader and the hub raise many kinds
        raise CorpusError(f"{where}: {source.path}: datasets.load_dataset failed: {error}") from error
    columns = dataset.column_names or list(next(iter(dataset.take(1)), {}))  # a stream may not know its columns
    _has_columns(columns, source, where=f"{where}: {source.path}")
    return _explained(iter(dataset.select_columns(_wanted(source))), where=f"{where}: {source.path}")


def _explained(rows: Iterator[Mapping[str, Any]], *, where: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except Exception as error:  # a stream can fail in the middle
        raise CorpusError(f"{where}: reading failed: {error}") from error


def _labelled(rows: Iterator[Mapping[str, Any]], source: SourceSpec, *, label: str, where: str) -> Iterator[str]:
    """Texts of the rows that carry ``label``, or of all of them when the source has no label column."""
    others: set[str] = set()
    found = source.label_column is None
    for row in rows:
        if source.label_column is not None:
            value = str(row.get(source.label_column))
            if value != label:
                others.add(value)
                continue
            found = True
        text = row.get(source.text_column)
        if text is not None and not isinstance(text, str):
            raise CorpusError(f"{where}: column {source.text_column!r} holds {type(text).__name__}, not text")
        yield text or ""
    if not found:
        known = list(islice(sorted(others), 20))
        raise CorpusError(f"{where}: {source.path}: column {source.label_column!r}: {unknown('label', label, known)}")
