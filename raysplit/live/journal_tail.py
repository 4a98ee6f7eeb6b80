"""The end of a journal, where batches of lines go: all of a batch is stored, or nothing of it."""

import errno
import os
from contextlib import suppress
from typing import Protocol

from raysplit.live.journal_segments import Name
from raysplit.live.journal_storage import FileStorage, Storage, sync_folder
from raysplit.locks import lock_file

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Some file systems find out only when they write back; then it is our bytes that had no room, and they are cut off."""


class Tail(Protocol):
    broken: str
    """Why nothing may be written any more; empty while all is well."""

    def write(self, first: int, header: bytes, lines: bytes) -> Name:
        """Store lines durably, whose first record has the seq ``first``; returns the segment they went into.

        Raises:
            OSError: nothing was stored, or `broken` says why that is not certain.
        """

    def close(self) -> None: ...


class FileTail:
    """One file that grows. Nobody else writes it, so that what failed can be cut off again."""

    def __init__(self, storage: FileStorage, name: Name) -> None:
        self.name, self.broken = name, ""
        self._path = storage.path(name)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        self._size = 0
        try:
            with suppress(OSError):  # tells `repair` that the writer lives; nothing else rests on it
                lock_file(self._fd, self._path, wait=False)
            sync_folder(self._path.parent)
        except BaseException:
            self.close()
            raise

    @property
    def is_empty(self) -> bool:
        return self._size == 0

    def write(self, first: int, header: bytes, lines: bytes) -> Name:
        content = header + lines if self.is_empty else lines
        left = memoryview(content)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except BaseException:
            self._cut()
            raise
        try:
            os.fsync(self._fd)
        except BaseException as error:
            self._cut()
            if not (isinstance(error, OSError) and error.errno in _NO_ROOM):
                # The kernel has dropped what it could not write, and its copy of the file can be trusted no more.
                self.broken = f"{self._path}: the disk may have lost what was written to it: {error}"
            raise
        self._size += len(content)
        return self.name

    def close(self) -> None:
        if self._fd < 0:
            return
        if self.is_empty:
            with suppress(OSError):
                self._path.unlink()
        os.close(self._fd)
        self._fd = -1

    def _cut(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            self.broken = f"{self._path}: what was half written could not be cut off: {error.strerror}"


class ObjectTail:
    """Segments of one batch each."""

    def __init__(self, storage: Storage, fence: int) -> None:
        self._storage, self._fence, self.broken = storage, fence, ""

    def write(self, first: int, header: bytes, lines: bytes) -> Name:
        name = Name(first=first, fence=self._fence)
        try:
            self._storage.put(name, header + lines)
        except BaseException as error:
            # It may arrive all the same, even later; a new opening's fence makes it void then.
            self.broken = f"{self._storage.label(name)}: it is not known whether it was stored: {error}"
            raise
        return name

    def close(self) -> None: ...
