"""A place for small named files: a folder on a local or network file system, or a prefix of an object store.

All that a journal and its laws need: to write a file whole and durably, only if no one has, and to read what is there.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from raysplit.errors import RunError

_READERS = 32
"""Requests to an object store at once: each takes some 30 ms, whatever its size."""
_NO_LINKS = (
    "the file system has no hard links, by which a journal tells its writers apart; put the run folder on another one, "
    "or set sweep.journal to a URL such as s3://bucket/sweep/journal"
)
_LINKLESS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP)


class Uncertain(OSError):
    """Whether a file was stored is not known; it may yet appear."""


class Storage(Protocol):
    """Names hold no slash. Errors are OSError; a file that is not there is a FileNotFoundError."""

    def label(self, name: str) -> str:
        """Path or URL of a file, for messages."""

    def names(self) -> list[str]:
        """Every file, sorted; none where there is no such folder."""

    def read(self, names: Sequence[str]) -> list[bytes]: ...

    def create(self, name: str, content: bytes) -> bool:
        """Write a whole file durably, unless there is one of its name; returns whether it was written.

        Raises:
            Uncertain: it may have been stored, or may be yet.
            OSError: it was not stored, and nothing is left of it.
        """

    def replace(self, name: str, content: bytes) -> None:
        """Write a whole file durably, in place of the one of its name."""

    def delete(self, name: str) -> None: ...


def open_storage(location: "str | Path | Storage") -> Storage:
    """The storage of a location: a path, or a URL of an object store; a storage is itself.

    Raises:
        RunError: nobody knows such a URL.
    """
    if not isinstance(location, str | Path):
        return location
    if "://" not in str(location):
        return Folder(Path(location))
    parts = urlsplit(str(location))
    if parts.scheme == "file":
        return Folder(Path(parts.path))
    import obstore.store

    try:
        store = obstore.store.from_url(parts._replace(query="").geturl(), **_settings(parts.query))
    except Exception as error:  # its own family of errors
        raise RunError(
            f"{_shown(location)}: cannot be opened: {_first_line(error)}; give a path, or a URL such as "
            "s3://bucket/sweep/journal, gs://... or az://..."
        ) from error
    return ObjectStore(store, _shown(location))


class Folder:
    """A folder. Files appear in it whole, by a hard link to what was written and synced under another name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def label(self, name: str) -> str:
        return str(self.path / name)

    def names(self) -> list[str]:
        found = os.listdir(self.path) if self.path.is_dir() else []
        return sorted(name for name in found if not name.startswith("."))

    def read(self, names: Sequence[str]) -> list[bytes]:
        return [(self.path / name).read_bytes() for name in names]

    def create(self, name: str, content: bytes) -> bool:
        with self._written(name, content) as partial:
            try:
                os.link(partial, self.path / name)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in _LINKLESS:
                    raise OSError(error.errno, _NO_LINKS) from error
                raise
        self._sync(name)
        return True

    def replace(self, name: str, content: bytes) -> None:
        with self._written(name, content) as partial:
            os.replace(partial, self.path / name)
        self._sync(name)

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def _written(self, name: str, content: bytes) -> Iterator[Path]:
        """A side file with this content, on the disk; gone afterwards."""
        if not self.path.is_dir():
            self.path.mkdir(parents=True, exist_ok=True)
            _sync_folder(self.path.parent)
        partial = self.path / f".{name}.{uuid4().hex}"
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield partial
        finally:
            with suppress(OSError):  # at worst it lies about; no reader looks at it
                partial.unlink(missing_ok=True)

    def _sync(self, name: str) -> None:
        try:
            _sync_folder(self.path)
        except OSError as error:
            raise Uncertain(f"the disk may have lost {self.label(name)}: {error.strerror or error}") from error


class ObjectStore:
    """A prefix of an object store, which must be able to put only if absent: S3, GCS and Azure are."""

    def __init__(self, store: Any, url: str) -> None:
        self._store, self._url = store, url.rstrip("/")

    def label(self, name: str) -> str:
        return f"{self._url}/{name}"

    def names(self) -> list[str]:
        import obstore

        with _as_os_errors():
            found = [str(entry["path"]) for chunk in obstore.list(self._store) for entry in chunk]
        return sorted(path for path in found if "/" not in path)

    def read(self, names: Sequence[str]) -> list[bytes]:
        with ThreadPoolExecutor(max_workers=_READERS) as readers:
            return list(readers.map(self._read, names))

    def create(self, name: str, content: bytes) -> bool:
        import obstore

        try:
            obstore.put(self._store, name, content, mode="create", use_multipart=False)
        except obstore.exceptions.AlreadyExistsError:
            return False
        except Exception as error:  # a lost answer among others
            raise Uncertain(_first_line(error)) from error
        return True

    def replace(self, name: str, content: bytes) -> None:
        import obstore

        with _as_os_errors():
            obstore.put(self._store, name, content, use_multipart=False)

    def delete(self, name: str) -> None:
        import obstore

        with suppress(FileNotFoundError), _as_os_errors():
            obstore.delete(self._store, name)

    def _read(self, name: str) -> bytes:
        import obstore

        with _as_os_errors():
            return bytes(obstore.get(self._store, name).bytes())


@contextmanager
def _as_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # obstore's own family, of which few are OSError
        raise OSError(_first_line(error)) from error


def _settings(query: str) -> dict[str, Any]:
    """What a URL's query says of the store; ``endpoint_override`` and ``scheme`` are pyarrow's words for it."""
    said = {name: values[-1] for name, values in parse_qs(query).items()}
    if endpoint := said.pop("endpoint_override", ""):
        said["endpoint"] = f"{said.pop('scheme', 'https')}://{endpoint}"
    if said.get("endpoint", "").startswith("http://"):
        return {**said, "client_options": {"allow_http": True}}
    return said


def _sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _shown(location: str | Path) -> str:
    return str(location).partition("?")[0]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
