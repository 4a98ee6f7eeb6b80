"""The sweep's journal: an append-only file of JSON lines that is the truth; everything else is rebuilt from it.

Each line is one record: ``{"seq": 7, "time": "...", "kind": "measurement", "data": {...}, "crc": "1a2b3c4d"}``, where
``crc`` is the CRC-32 of the line's JSON without that key. A record is on disk (fsync) before `append` returns. A last
line cut short by a crash was never acknowledged and is dropped on opening; damage anywhere else is an error.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raysplit.errors import RunError


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    seq: int
    time: str
    """UTC, ISO 8601."""
    kind: str
    data: Mapping[str, Any]


class Journal:
    """The open journal of one sweep; one process writes it."""

    def __init__(self, path: Path) -> None:
        """Open or begin a journal.

        Raises:
            RunError: it cannot be written, or a record before the last is damaged.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._records, self._size = _read(path)
            if self._size < path.stat().st_size:
                os.truncate(path, self._size)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115  (held until close)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}") from error

    @property
    def records(self) -> Sequence[Record]:
        """Every record, oldest first."""
        return self._records

    def append(self, kind: str, data: Mapping[str, Any]) -> Record:
        """Write one record and return once it is on disk.

        Raises:
            RunError: the disk refused; nothing of the record is left behind.
        """
        record = Record(
            seq=len(self._records), time=datetime.now(UTC).isoformat(timespec="milliseconds"), kind=kind, data=data
        )
        line = _line(record)
        try:
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            os.truncate(self.path, self._size)
            raise RunError(f"{self.path}: record {record.seq} not stored: {error.strerror}") from error
        self._size += len(line)
        self._records.append(record)
        return record

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class ReadJournal:
    """Records of a journal that another process writes: for answers, not for decisions."""

    records: Sequence[Record]

    def append(self, kind: str, data: Mapping[str, Any]) -> Record:
        """Refuse to write.

        Raises:
            RunError: always.
        """
        raise RunError(f"this journal is only read; no {kind} can be stored")


def read_journal(path: Path) -> list[Record]:
    """Every record of a journal that another process may be writing.

    Raises:
        RunError: there is no journal, or a record before the last is damaged.
    """
    if not path.exists():
        raise RunError(f"{path}: no journal; is this a run folder?")
    return _read(path)[0]


def _line(record: Record) -> bytes:
    body = {name: getattr(record, name) for name in Record.__dataclass_fields__}
    crc = zlib.crc32(json.dumps(body).encode())
    return (json.dumps({**body, "crc": f"{crc:08x}"}) + "\n").encode()


def _parse(line: bytes) -> Record | None:
    """The record of a line, or None when the line is damaged."""
    try:
        body = json.loads(line)
        del body["crc"]  # `_line` reckons it anew
        record = Record(**body)
    except (ValueError, KeyError, TypeError):
        return None
    return record if _line(record) == line else None


def _read(path: Path) -> tuple[list[Record], int]:
    """The records, and how many bytes of the file they take."""
    records: list[Record] = []
    good_bytes = 0
    for number, (line, is_last) in enumerate(_lines(path)):
        record = _parse(line)
        if record is None or record.seq != number:
            if is_last and not line.endswith(b"\n"):
                break
            raise RunError(f"{path}: record {number} is damaged (byte {good_bytes})")
        records.append(record)
        good_bytes += len(line)
    return records, good_bytes


def _lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    lines = path.read_bytes().splitlines(keepends=True)
    for i, line in enumerate(lines):
        yield line, i == len(lines) - 1
