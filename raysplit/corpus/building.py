"""A folder of raysplit's own in which one command at a time builds something."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysplit.corpus.locks import lock_file
from raysplit.errors import CorpusError


@contextmanager
def building(out: Path, *, what: str, lock: str, record: str) -> Iterator[None]:
    """Hold the folder, which is made where it is not there; the lock ends with the process, however it ends.

    The lock file marks the folder as raysplit's own. So files that raysplit did not write are never cleared away.

    Args:
        out: the folder.
        what: name of what is built there, for messages.
        lock: name of the lock file.
        record: name of the file that says what was built, once it is whole.

    Raises:
        CorpusError: the folder holds other things or cannot be written, or a file elsewhere cannot be used.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = {path.name for path in out.iterdir()}
        if found and not found & {lock, record}:
            raise CorpusError(f"{out}: is not empty and holds no {what} (found {min(found)!r}); choose another folder")
        with (out / lock).open("w") as file:
            lock_file(file.fileno(), out / lock, wait=True)
            yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        if isinstance(error.filename, str) and not _is_on_one_path(Path(error.filename), out):
            raise CorpusError(f"{error.filename}: {reason}, while the {what} was built; build it again") from error
        raise CorpusError(f"{out}: the {what} cannot be written there: {reason}") from error


def _is_on_one_path(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
