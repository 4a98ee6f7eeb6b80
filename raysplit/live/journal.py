"""The sweep's journal: an append-only sequence of records that is the truth; everything else is rebuilt from it.

A record is stored durably before `append` returns. One opening writes at a time: each opening for writing takes a
higher fence, and the one before it can store nothing more. JOURNAL.md describes the format and why it is safe.
"""

import gc
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from raysplit.errors import RunError
from raysplit.live.journal_lines import HEADER, Damage, Record, line_of
from raysplit.live.journal_segments import (
    Assembled,
    Name,
    Segment,
    header_of,
    in_force,
    parts_of,
    put_together,
    read_segment,
)
from raysplit.live.journal_storage import STORAGE_ERRORS, FileStorage, Storage, open_storage
from raysplit.live.journal_tail import FileTail, ObjectTail, Tail
from raysplit.strict_json import finite

__all__ = ["Journal", "ReadJournal", "Record", "has_journal", "read_journal"]

_MAX_SEGMENTS = 32
"""More are merged, so that opening stays fast."""
_READ_ATTEMPTS = 10


class Journal:
    """A journal that is open for writing. Methods may be called from several threads."""

    def __init__(self, location: str | Path) -> None:
        """Open or begin a journal, and take the right to write it from whoever has it.

        Args:
            location: a path, or a URL that pyarrow's file systems know. A path's ``.jsonl`` is left out: the journal
                is a folder, and the file of that name beside it, from an older raysplit, is its beginning.

        Raises:
            RunError: it cannot be written, or something in it is damaged.
        """
        self.location = str(location)
        self._storage = open_storage(location)
        self._lock = threading.Lock()
        self._refusal = ""
        try:
            self._storage.make()
            with self._storage.opening():
                self._open()
        except STORAGE_ERRORS as error:
            raise RunError(f"{self.location}: cannot be written: {_reason(error)}") from error

    def _open(self) -> None:
        self.fence = self._storage.claim(0)
        segments = read_segments(self._storage)
        while (newest := max((s.name.fence for s in segments), default=0)) >= self.fence:
            self.fence = self._storage.claim(newest)  # the note of who may write was lost
            segments = read_segments(self._storage)
        there = _undamaged(segments, self.location)
        self._records, self._next_seq = there.records, there.next_seq
        self._sizes = {part.segment.name: part.n_kept for part in parts_of(segments)}
        self._opened_at, self._after = self._next_seq, max((name.fence for name in self._sizes), default=0)
        self._tail = self._new_tail()
        self._check_fence("cannot be written")
        self._tidy(segments)

    @property
    def records(self) -> Sequence[Record]:
        """Every record, oldest first."""
        return self._records

    def check(self) -> None:
        """Refuse what could not be stored any more, without a look at the storage.

        Raises:
            RunError: an earlier write has found out that another writer has taken over, or has failed for good.
        """
        with self._lock:
            self._check_refusal("cannot be written")

    def append(self, kind: str, data: Mapping[str, Any]) -> Record:
        """Store one record; see `append_many`."""
        return self.append_many([(kind, data)])[0]

    def append_many(self, items: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Record]:
        """Store records and return once they are durable: all of them, in one write, and what is not finite as null.

        Raises:
            RunError: the storage refused, and nothing of them is left behind; or another writer has taken over, or the
                journal has failed in a way that only a new opening mends.
            TypeError: data that is not JSON; nothing was stored.
        """
        with self._lock:
            now = _now()
            records = [
                Record(seq=seq, time=now, kind=kind, data=finite(data), fence=self.fence)
                for seq, (kind, data) in enumerate(items, self._next_seq)
            ]
            if any(record.kind == HEADER for record in records):
                raise ValueError(f"kind {HEADER!r} is that of the lines which begin a segment")
            lines = b"".join(map(line_of, records))
            if not records:
                return []
            what = f"record {self._next_seq}" + (f" to {records[-1].seq}" if len(records) > 1 else "")
            self._check_fence(f"{what} not stored")
            self._refusal = "it was interrupted while storing"  # stands unless what follows ends as foreseen
            try:
                name = self._tail.write(self._next_seq, self._header(now), lines)
            except STORAGE_ERRORS as error:
                self._refusal = self._tail.broken
                raise RunError(f"{self.location}: {what} not stored: {_reason(error)}") from error
            try:
                # Who takes over claims first and reads then. So either we see the claim here, or our lines were read.
                held = self._storage.holds(self.fence)
            except STORAGE_ERRORS as error:
                self._refusal = "it is not known who may write"
                raise RunError(f"{self.location}: {what} not acknowledged: {_reason(error)}") from error
            if not held:
                self._refusal = "another writer has taken over"
                raise RunError(f"{self.location}: {what} not acknowledged: {self._refusal} meanwhile")
            self._refusal = ""
            self._records += records
            self._next_seq += len(records)
            self._sizes[name] = self._sizes.get(name, 0) + len(records)
            if len(self._sizes) > _MAX_SEGMENTS:
                self._merge()
            return records

    def compact(self, fold: Callable[[Sequence[Record]], Sequence[Record]] | None = None) -> None:
        """Rewrite the journal as one segment.

        Args:
            fold: gives the records that say the same in fewer: their seqs are some of those given, still rising.

        Raises:
            RunError: the storage refused, and the journal is as it was; or another writer has taken over.
        """
        with self._lock:
            self._check_fence("not compacted")
            records = list(self._records) if fold is None else list(fold(tuple(self._records)))
            seqs = [record.seq for record in records]
            if seqs != sorted(set(seqs) & {record.seq for record in self._records}):
                raise ValueError("a fold's records carry seqs of the records they stand for, still rising")
            try:
                self._close_segment(0, records, after=0)
            except STORAGE_ERRORS as error:
                raise RunError(f"{self.location}: not compacted: {_reason(error)}") from error
            self._records = records

    def close(self) -> None:
        """Store nothing more."""
        with self._lock:
            self._refusal = self._refusal or "it was closed"
            self._tail.close()

    def _check_fence(self, what: str) -> None:
        try:
            if not self._refusal and not self._storage.holds(self.fence):
                self._refusal = "another writer has taken over"
        except STORAGE_ERRORS as error:
            raise RunError(f"{self.location}: {what}: {_reason(error)}") from error
        self._check_refusal(what)

    def _check_refusal(self, what: str) -> None:
        if self._refusal:
            raise RunError(f"{self.location}: {what}: {self._refusal}; only a new opening of the journal can write")

    def _new_tail(self) -> Tail:
        if not isinstance(self._storage, FileStorage):
            tail = ObjectTail(self._storage, self.fence)
            tail.write(self._next_seq, self._header(_now()), b"")  # what older openings still send is void from here on
            return tail
        return FileTail(self._storage, Name(first=self._next_seq, fence=self.fence))

    def _header(self, time: str) -> bytes:
        """Of a segment that begins here."""
        after = self._after if self._next_seq == self._opened_at else self.fence
        return header_of(Name(first=self._next_seq, fence=self.fence), after=after, time=time)

    def _tidy(self, segments: Sequence[Segment]) -> None:
        """Delete what openings before this one left behind, and merge what has become too many."""
        for name in set(self._storage.names()) - {s.name for s in segments}:
            if any(s.name.covers(name) for s in segments):
                self._storage.delete(name)
        for s in segments:
            if not s.n_bytes and not self._storage.is_alive(s.name):
                self._storage.delete(s.name)
                self._sizes.pop(s.name, None)
        if len(self._sizes) > _MAX_SEGMENTS:
            self._merge()

    def _merge(self) -> None:
        """Merge the newest segments, as many as are together larger than the one before them."""
        sizes = sorted(self._sizes.items(), key=lambda item: (item[0].fence, item[0].first))
        begin = len(sizes) // 2
        total = sum(size for _, size in sizes[begin:])
        while begin and sizes[begin - 1][1] <= total:
            begin -= 1
            total += sizes[begin][1]
        first = sizes[begin][0].first
        records = self._records[bisect_left(self._records, first, key=lambda record: record.seq) :]
        try:
            self._close_segment(first, records, after=sizes[begin - 1][0].fence if begin else 0)
        except STORAGE_ERRORS:
            return  # what was there is there; the next one tries again

    def _close_segment(self, first: int, records: Sequence[Record], *, after: int) -> None:
        """Put everything from ``first`` on into one closed segment, then delete what it covers.

        That says the same in other words, and so does no harm however late it comes.
        """
        fences = [name.fence for name in self._sizes if first <= name.first < self._next_seq]
        if not fences:
            return
        if isinstance(self._tail, FileTail) and not self._tail.is_empty:
            # First, so that the closed segment covers nothing that still grows.
            tail, self._tail = self._tail, self._new_tail()
            tail.close()
        name = Name(first=first, end=self._next_seq, fence=max(fences))
        lines = b"".join(map(line_of, records))
        self._storage.put(name, header_of(name, after=after, time=_now(), n_records=len(records)) + lines)
        self._sizes[name] = len(records)
        for old in self._storage.names():
            if name.covers(old):
                self._storage.delete(old)
                self._sizes.pop(old, None)


@dataclass(frozen=True, slots=True)
class ReadJournal:
    """Records of a journal that another process writes: for answers, not for decisions."""

    records: Sequence[Record]

    def check(self) -> None:
        """What only asks needs nothing stored."""

    def append(self, kind: str, data: Mapping[str, Any]) -> Record:
        """Refuse to write.

        Raises:
            RunError: always.
        """
        raise RunError(f"this journal is only read; no {kind} can be stored")

    def append_many(self, items: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Record]:
        """Refuse to write.

        Raises:
            RunError: always.
        """
        return [self.append(kind, data) for kind, data in items]


def has_journal(location: str | Path) -> bool:
    """Whether a journal was begun there.

    Raises:
        RunError: the location cannot be read.
    """
    try:
        return bool(open_storage(location).names())
    except STORAGE_ERRORS as error:
        raise RunError(f"{location}: cannot be read: {_reason(error)}") from error


def read_journal(location: str | Path) -> list[Record]:
    """Every record of a journal that another process may be writing.

    Raises:
        RunError: there is no journal, it cannot be read, or something in it is damaged.
    """
    storage = open_storage(location)
    try:
        segments = read_segments(storage)
    except STORAGE_ERRORS as error:
        raise RunError(f"{location}: cannot be read: {_reason(error)}") from error
    if not segments:
        raise RunError(f"{location}: no journal; is this a run folder?")
    return _undamaged(segments, str(location)).records


def read_segments(storage: Storage) -> list[Segment]:
    """Every segment in force, oldest first, also while a writer replaces some.

    Raises:
        OSError, pyarrow.ArrowException: the storage's.
        RunError: a newer raysplit wrote one.
    """
    for attempt in range(_READ_ATTEMPTS):
        names = in_force(storage.names())
        try:
            with _no_collection():
                return [read_segment(name, storage.read(name), storage.label(name)) for name in names]
        except FileNotFoundError:
            if attempt == _READ_ATTEMPTS - 1:
                raise
    raise AssertionError


def _undamaged(segments: Sequence[Segment], location: str) -> Assembled:
    there = put_together(segments)
    if there.damages:
        damage: Damage = there.damages[0]
        raise RunError(
            f"{damage.segment}: {damage.what} (byte {damage.byte}); "
            f"`raysplit journal repair {quote(location)}` keeps everything that is intact"
        )
    return there


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector, which takes half the time of reading many records and finds nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
