"""Storage of checkpoints: a folder that every node sees, or a URL of an object store (s3://, gs://, file://).

Nothing here needs torch.
"""

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pyarrow
from pyarrow import fs

from raysplit.errors import RunError, StorageError

_log = logging.getLogger(__name__)


class Missing(StorageError):
    """There is no such file."""


class CheckpointStorage:
    """Folders of files below one place. A file that has its name is whole and on the disk."""

    def __init__(self, location: str | Path) -> None:
        """Find the file system of a location; nothing is read yet.

        Raises:
            RunError: the URL is of no known kind of store.
            StorageError: the store is out of reach.
        """
        self._location = str(location).rstrip("/")
        if "://" not in self._location:
            self._files, self._root = fs.LocalFileSystem(), os.path.abspath(self._location)
        else:
            try:
                with self._told(""):
                    self._files, self._root = fs.FileSystem.from_uri(self._location)
            except pyarrow.ArrowInvalid as error:
                raise RunError(
                    f"{self._location}: cannot be opened ({_first_line(error)}); give a folder that every node sees, "
                    "or a URL such as s3://bucket/run, gs://bucket/run or file:///mnt/run"
                ) from error
        self._is_local = isinstance(self._files, fs.LocalFileSystem)

    def label(self, name: str) -> str:
        """Path or URL, for messages."""
        return f"{self._location.partition('?')[0]}/{name}".rstrip("/")

    def folders(self) -> list[str]:
        """Names of the folders in the place, sorted; none where nothing was stored yet.

        Raises:
            StorageError: they cannot be read.
        """
        with self._told(""):
            found = self._files.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        return sorted(each.base_name for each in found if each.type == fs.FileType.Directory)

    def seconds_since_written(self, folder: str) -> float:
        """Since a file of this folder was last written, by this machine's clock; infinite where there is none.

        Raises:
            StorageError: the folder cannot be read.
        """
        with self._told(folder):
            found = self._files.get_file_info(fs.FileSelector(self._path(folder), allow_not_found=True))
        return time.time() - max((each.mtime_ns for each in found if each.mtime_ns), default=-math.inf) / 1e9

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            Missing: there is none.
            StorageError: it cannot be read.
        """
        with self._told(name), self._files.open_input_file(self._path(name)) as file:
            return file.read()

    def put(self, name: str, content: bytes) -> None:
        """Write a whole file, which is durable when this returns, in place of one with its name.

        Raises:
            StorageError: it was not stored.
        """
        path = self._path(name)
        with self._told(name):
            if self._is_local:
                _put_locally(path, content)
            else:
                with self._files.open_output_stream(path) as file:
                    file.write(content)

    def delete(self, name: str) -> None:
        """Delete a folder or a file. A failure is only logged, since what stays costs room and nothing else."""
        path = self._path(name)
        try:
            if self._files.get_file_info(path).type == fs.FileType.File:
                self._files.delete_file(path)
            else:
                self._files.delete_dir(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("%s: not deleted (%s)", self.label(name), _first_line(error))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise Missing(f"{self.label(name)}: is missing") from error
        except OSError as error:
            raise StorageError(
                f"{self.label(name)}: {_first_line(error)}; checkpoints need storage that every node reaches and may "
                "write to, with room"
            ) from error


def _put_locally(path: str, content: bytes) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    partial = f"{path}.{uuid4().hex}.partial"
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
