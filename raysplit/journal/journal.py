"""The sweep's journal: an append-only sequence of records that is the truth; everything else is rebuilt from it.

A record is stored durably before `append` returns. One opening writes at a time: batches are files that are written
only where none is, so that of two writers one gets each number. JOURNAL.md describes the format and why it is safe.
"""

import gc
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from shlex import quote
from typing import Any
from uuid import uuid4

from raysplit.errors import NotStored, RunError
from raysplit.journal.format import HEADER, Batch, Damage, Record, batch_bytes, name_of, number_of, read_batches
from raysplit.journal.format import now as _now
from raysplit.journal.old import is_old
from raysplit.journal.storage import Storage, Uncertain, open_storage
from raysplit.strict_json import finite

__all__ = ["Journal", "ReadJournal", "Record", "has_journal", "read_journal"]

_READ_ATTEMPTS = 10
_RETRY_SECONDS = 0.05
"""A network file system's client may list a batch before the one that came before it."""


class Journal:
    """A journal that is open for writing. Methods may be called from several threads."""

    def __init__(self, location: "str | Path | Storage") -> None:
        """Open or begin a journal, and take the right to write it from whoever has it.

        Args:
            location: a folder, a URL of an object store (`raysplit.journal.storage`), or a storage.

        Raises:
            RunError: it cannot be written, or something in it is damaged.
        """
        self._storage = open_storage(location)
        self.location = self._storage.label("").rstrip("/")
        self._lock = threading.Lock()
        self._refusal = ""
        self._about = {"host": socket.gethostname(), "pid": os.getpid(), "nonce": uuid4().hex}
        try:
            self._open()
        except OSError as error:
            raise RunError(f"{self.location}: cannot be written: {_reason(error)}") from error

    def _open(self) -> None:
        """Read all there is, then take the next number; what a writer that is faster stores meanwhile is read too."""
        batches = list(_undamaged(all_batches(self._storage), self.location))
        while True:
            self._n_batches, self._next_seq = len(batches), batches[-1].end if batches else 0
            self.fence = batches[-1].fence + 1 if batches else 1
            if self._put(self._content([])):
                break
            batches += _undamaged(batches_after(batches, self._storage), self.location)
        self._records = _records_of(batches)

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
            self._check("cannot be written")

    def append(self, kind: str, data: Mapping[str, Any]) -> Record:
        """Store one record; see `append_many`."""
        return self.append_many([(kind, data)])[0]

    def append_many(self, items: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Record]:
        """Store records and return once they are durable: all of them, in one write, and what is not finite as null.

        Raises:
            RunError: the storage refused, and nothing of them is left behind; or another writer has taken over, or it
                is not known what became of an earlier write, which only a new opening can tell.
            TypeError: data that is not JSON; nothing was stored.
        """
        with self._lock:
            now = _now()
            records = [
                Record(seq=seq, time=now, kind=kind, data=finite(data), fence=self.fence)
                for seq, (kind, data) in enumerate(items, self._next_seq)
            ]
            if any(record.kind == HEADER for record in records):
                raise ValueError(f"kind {HEADER!r} is that of the lines which begin a batch")
            if not records:
                return []
            content = self._content(records)
            what = f"record {self._next_seq}" + (f" to {records[-1].seq}" if len(records) > 1 else "")
            self._check(f"{what} not stored")
            self._refusal = f"it is not known whether {what} was stored"  # stands unless what follows ends as foreseen
            try:
                is_stored = self._put(content)
            except Uncertain as error:
                raise RunError(f"{self.location}: {what} not acknowledged: {_reason(error)}") from error
            except OSError as error:
                self._refusal = ""
                raise NotStored(f"{self.location}: {what} not stored: {_reason(error)}") from error
            self._refusal = "" if is_stored else "another writer has taken over"
            if not is_stored:
                raise RunError(f"{self.location}: {what} not stored: {self._refusal}")
            self._records += records
            self._next_seq += len(records)
            return records

    def close(self) -> None:
        """Store nothing more."""
        with self._lock:
            self._refusal = self._refusal or "it was closed"

    def _check(self, what: str) -> None:
        if self._refusal:
            raise RunError(f"{self.location}: {what}: {self._refusal}; open the journal anew to write")

    def _content(self, records: Sequence[Record]) -> bytes:
        """The next batch."""
        return batch_bytes(
            self._n_batches, records, first=self._next_seq, fence=self.fence, time=_now(), about=self._about
        )

    def _put(self, content: bytes) -> bool:
        """Store the next batch; False where another writer has stored one of its number."""
        name = name_of(self._n_batches)
        # A storage that repeats a request whose answer was lost finds what it wrote itself.
        if not self._storage.create(name, content) and self._storage.read([name]) != [content]:
            return False
        self._n_batches += 1
        return True


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
        raise RunError(f"this journal is only read, and takes no {kind}; `raysplit observe RUN` writes into it")

    def append_many(self, items: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Record]:
        """Refuse to write.

        Raises:
            RunError: always.
        """
        return [self.append(kind, data) for kind, data in items]


def has_journal(location: "str | Path | Storage") -> bool:
    """Whether a journal was begun there, in this format or an older one.

    Raises:
        RunError: the location cannot be read.
    """
    storage = open_storage(location)
    try:
        names = storage.names()
        return any(number_of(name) is not None for name in names) or is_old(storage, names)
    except OSError as error:
        raise RunError(f"{location}: cannot be read: {_reason(error)}") from error


def read_journal(location: "str | Path | Storage") -> list[Record]:
    """Every record of a journal that another process may be writing.

    Raises:
        RunError: there is no journal, it cannot be read, or something in it is damaged.
    """
    return _records_of(_undamaged(read_all(location), str(location)))


def read_all(location: "str | Path | Storage") -> list[Batch]:
    """Every batch of a journal, damaged or not.

    Raises:
        RunError: there is no journal, or it cannot be read.
    """
    storage = open_storage(location)
    try:
        batches = all_batches(storage)
    except OSError as error:
        raise RunError(f"{location}: cannot be read: {_reason(error)}") from error
    if not batches:
        raise RunError(f"{location}: no journal; is this a run folder?")
    return batches


def all_batches(storage: Storage) -> list[Batch]:
    """Every batch in order; one that is not there stands as a damaged one without records.

    Raises:
        OSError: the storage's.
        RunError: it is a journal of another format.
    """
    names = storage.names()
    if is_old(storage, names):
        where = quote(storage.label("").rstrip("/"))
        raise RunError(f"{where}: is of an older format; `raysplit journal upgrade {where}` makes it one of this")
    listed = {number for name in names if (number := number_of(name)) is not None}
    # A folder that is written to may be listed with a batch and without the one before it.
    there = [n for n in range(max(listed, default=-1) + 1) if n in listed or _is_there(n, storage)]
    contents = storage.read([name_of(number) for number in there])
    with without_collection():
        read = read_batches(
            (number, storage.label(name_of(number)), content) for number, content in zip(there, contents, strict=True)
        )
    return _with_the_missing(read, storage)


def _is_there(number: int, storage: Storage) -> bool:
    for _ in range(_READ_ATTEMPTS):
        try:
            storage.read([name_of(number)])
            return True
        except FileNotFoundError:
            time.sleep(_RETRY_SECONDS)
    return False


def batches_after(batches: Sequence[Batch], storage: Storage) -> list[Batch]:
    """Those that were stored since, read by their numbers: a listing takes longer than a busy writer's next batch."""
    files = []
    with suppress(FileNotFoundError):
        for number in count(len(batches)):
            files.append((number, storage.label(name_of(number)), storage.read([name_of(number)])[0]))
    return read_batches(files)


def _with_the_missing(batches: Sequence[Batch], storage: Storage) -> list[Batch]:
    whole: list[Batch] = []
    for batch in batches:
        for number in range(len(whole), batch.number):
            label, at = storage.label(name_of(number)), whole[-1].end if whole else 0
            damage = Damage(file=label, byte=0, n_bytes=0, what="it is missing")
            whole.append(
                Batch(number=number, label=label, first=at, end=batch.first, fence=0, records=(), damages=[damage])
            )
        whole.append(batch)
    return whole


def _undamaged(batches: Sequence[Batch], location: str) -> Sequence[Batch]:
    for batch in batches:
        for damage in batch.damages:
            raise RunError(
                f"{damage.file}: {damage.what} (byte {damage.byte}); "
                f"`raysplit journal repair {quote(location)}` keeps everything that is intact"
            )
    return batches


def _records_of(batches: Iterable[Batch]) -> list[Record]:
    return [record for batch in batches for record in batch.records]


@contextmanager
def without_collection() -> Iterator[None]:
    """Without the garbage collector, which takes half the time of reading many records and finds nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
