"""Where a journal lies: a folder on a local or network file system, or a prefix of an object store.

Both hold segments and know who may write. A file system appends to one segment an opening; an object store, which
cannot append, gets a new segment a batch. Errors are OSError and pyarrow's; the journal words them.
"""

import json
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pyarrow
from pyarrow import fs

from raysplit.errors import RunError
from raysplit.live.journal_segments import OLD, Name, name_of
from raysplit.locks import lock_file

STORAGE_ERRORS = (OSError, pyarrow.ArrowException)
_LOCK_SECONDS = 30.0
"""How long an opening waits for another one that is at it, which takes as long as reading the journal does."""
_FENCE_BYTES = 256
_CLAIM = re.compile(r"(\d{6,})-([0-9a-f]{32})")


class Storage(Protocol):
    """The parts of a file system that a journal needs."""

    appends: bool
    """Whether a batch goes into the segment that is there, or becomes one."""

    def label(self, name: Name) -> str:
        """Path or URL of a segment."""

    def names(self) -> list[Name]:
        """Every segment; empty where there is no journal."""

    def read(self, name: Name) -> bytes: ...

    def make(self) -> None:
        """Make the folder."""

    def opening(self) -> AbstractContextManager[None]:
        """Where openings can keep each other out, they do while in it."""

    def claim(self, above: int) -> int:
        """Take the right to write from whoever has it; only within `opening`.

        Returns:
            A fence above every earlier one and above ``above``, durably noted.
        """

    def holds(self, fence: int) -> bool:
        """Whether nobody has claimed the right to write since."""

    def is_alive(self, name: Name) -> bool:
        """Whether a living process has this segment open for writing, as far as one can tell."""

    def put(self, name: Name, content: bytes) -> None:
        """Write a whole segment; it is there durably, or an older one of its name is."""

    def set_aside(self, name: Name) -> str:
        """Copy a segment to a side file and return that one's name."""

    def delete(self, name: Name) -> None: ...


def open_storage(location: str | Path) -> Storage:
    """The storage of a location: a path, or a URL that pyarrow's file systems know.

    Raises:
        RunError: nobody knows such a URL.
    """
    if "://" not in str(location):
        return FileStorage(Path(location))
    try:
        system, path = fs.FileSystem.from_uri(str(location))
    except (ValueError, ImportError, *STORAGE_ERRORS) as error:
        raise RunError(
            f"{location}: cannot be opened: {error}; a journal's location is a path or a URL that pyarrow knows, such "
            "as s3://, gs://, hdfs:// or file://"
        ) from error
    if isinstance(system, fs.LocalFileSystem):
        return FileStorage(Path(path))
    return ObjectStorage(system, path, str(location))


class FileStorage:
    """A folder. Its file ``fence`` says who may write, and is only changed under its lock."""

    appends = True

    def __init__(self, path: Path) -> None:
        self.folder = path.with_suffix("") if path.suffix == ".jsonl" else path
        self._old = self.folder.with_name(self.folder.name + ".jsonl")
        self._fence = self.folder / "fence"

    def path(self, name: Name) -> Path:
        return self._old if name.old else self.folder / str(name)

    def label(self, name: Name) -> str:
        return str(self.path(name))

    def names(self) -> list[Name]:
        found = [name_of(text) for text in os.listdir(self.folder)] if self.folder.is_dir() else []
        return [OLD] * self._old.is_file() + [name for name in found if name is not None]

    def read(self, name: Name) -> bytes:
        return self.path(name).read_bytes()

    def make(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)

    @contextmanager
    def opening(self) -> Iterator[None]:
        fd = os.open(self._fence, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(fd, self._fence)
            yield
        finally:
            os.close(fd)  # unlocks it too

    def claim(self, above: int) -> int:
        # Overwritten where it is: needs no room on a full disk, and a network file system's clients see it on opening.
        with open(self._fence, "r+b", buffering=0) as file:
            fence = max(_fence_in(file.read()), above) + 1
            about = {"fence": fence, "host": socket.gethostname(), "pid": os.getpid()}
            file.seek(0)
            file.write(json.dumps(about).ljust(_FENCE_BYTES - 1).encode() + b"\n")
            os.fsync(file.fileno())
        sync_folder(self.folder)
        return fence

    def holds(self, fence: int) -> bool:
        return _fence_in(self._fence.read_bytes()) == fence

    def is_alive(self, name: Name) -> bool:
        with open(self.path(name), "r+b") as file:  # a network file system locks only what may be written
            try:
                lock_file(file.fileno(), self.path(name), wait=False)
            except BlockingIOError:
                return True
        return False

    def put(self, name: Name, content: bytes) -> None:
        partial = self.path(name).with_suffix(".partial")
        try:
            _write_whole(partial, content)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        os.replace(partial, self.path(name))
        sync_folder(self.folder)

    def set_aside(self, name: Name) -> str:
        path = self.path(name)
        number = 1
        while (side := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        _write_whole(side, path.read_bytes())
        sync_folder(side.parent)
        return str(side)

    def delete(self, name: Name) -> None:
        self.path(name).unlink(missing_ok=True)


class ObjectStorage:
    """A prefix of an object store. Who may write is told by objects ``fences/NUMBER-NONCE``: the highest may.

    A claim is put and then all are listed; it holds when no other has its number or a higher one. Of two that claim at
    once at least one sees the other, so that a number is never held by two. Needs a store whose listings show what was
    put before, as those of S3 and GCS do.
    """

    appends = False

    def __init__(self, system: fs.FileSystem, path: str, url: str) -> None:
        self._system, self._url = system, url.partition("?")[0].rstrip("/")
        self._path = path.rstrip("/")
        self._nonce = uuid4().hex

    def label(self, name: Name) -> str:
        return f"{self._url}/{name}"

    def names(self) -> list[Name]:
        found = (name_of(text) for text in self._list(self._path))
        return [name for name in found if name is not None]

    def read(self, name: Name) -> bytes:
        with self._system.open_input_stream(f"{self._path}/{name}") as stream:
            return bytes(stream.read())

    def make(self) -> None:
        self._system.create_dir(f"{self._path}/fences", recursive=True)

    def opening(self) -> AbstractContextManager[None]:
        return nullcontext()

    def claim(self, above: int) -> int:
        for attempt in range(20):
            claims = self._claims()
            highest = max([above, *(number for number, _ in claims)])
            number = highest + random.randint(1, 2**attempt)
            self._put(f"fences/{number:06d}-{self._nonce}", b"")
            if self.holds(number):
                for old, nonce in claims:
                    with suppress(*STORAGE_ERRORS):
                        self._system.delete_file(f"{self._path}/fences/{old:06d}-{nonce}")
                return number
        raise OSError("others keep taking it over")

    def holds(self, fence: int) -> bool:
        claims = self._claims()
        mine = (fence, self._nonce)
        return mine in claims and not any(claim != mine and claim[0] >= fence for claim in claims)

    def is_alive(self, name: Name) -> bool:
        return False

    def put(self, name: Name, content: bytes) -> None:
        self._put(str(name), content)

    def set_aside(self, name: Name) -> str:
        there = self._list(self._path)
        number = 1
        while (side := f"{name}.damaged-{number}") in there:
            number += 1
        self._put(side, self.read(name))
        return f"{self._url}/{side}"

    def delete(self, name: Name) -> None:
        with suppress(FileNotFoundError):
            self._system.delete_file(f"{self._path}/{name}")

    def _put(self, name: str, content: bytes) -> None:
        with self._system.open_output_stream(f"{self._path}/{name}") as stream:
            stream.write(content)

    def _list(self, folder: str) -> list[str]:
        return [info.base_name for info in self._system.get_file_info(fs.FileSelector(folder, allow_not_found=True))]

    def _claims(self) -> list[tuple[int, str]]:
        matches = (_CLAIM.fullmatch(text) for text in self._list(f"{self._path}/fences"))
        return [(int(match[1]), match[2]) for match in matches if match]


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_whole(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _fence_in(content: bytes) -> int:
    try:
        return int(json.loads(content)["fence"])
    except (ValueError, KeyError, TypeError):
        return 0  # new, or cut short by a crash: the segments tell what was claimed


def _lock(fd: int, path: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            lock_file(fd, path, wait=False)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise OSError(f"another process has been opening it for {_LOCK_SECONDS:.0f} s ({path})") from error
            time.sleep(0.01)
