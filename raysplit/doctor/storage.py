"""Whether a folder is the same one on every node, and does what a run needs of it."""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from raysplit.doctor.findings import Finding

_PREFIX = ".raysplit-doctor-"
_SEEN_WITHIN_SECONDS = 5.0
"""An NFS client may keep what it knows of a folder for so long."""
_SLOW_SECONDS = 2.0

EachNode = Callable[..., list[tuple[str, object]]]
"""Runs a function on every node, its name being the first argument; gives (name, result or exception)."""


def check_folder(folder: Path, on_each: EachNode, *, marker: str) -> list[Finding]:
    """Write on every node, and read on every node what the others wrote.

    Args:
        folder: absolute; made where it is missing.
        on_each: runs a function on every node.
        marker: of this check and no other.
    """
    found, wrote = [], []
    started = time.perf_counter()
    for node, trouble in on_each(write_mark, folder, marker):
        if trouble is None:
            wrote.append(node)
        else:
            found.append(_finding(node, f"{folder}: {trouble}", "mount the run folder's storage there, writable"))
    if (seconds := time.perf_counter() - started) > _SLOW_SECONDS * max(1, len(wrote)):
        found.append(
            Finding(
                severity="warning",
                where=str(folder),
                what=f"writing a few bytes took {seconds:.0f} s",
                remedy="checkpoints go there; a slow store stops lanes",
            )
        )
    for node, seen in on_each(read_marks, folder, marker, wrote):
        missing = seen if isinstance(seen, list) else wrote
        if missing:
            found.append(
                _finding(
                    node,
                    f"{folder} does not show what {', '.join(missing[:3])} wrote there",
                    "the run folder must lie on storage that every node mounts at the same path (NFS, Lustre, EFS)",
                )
            )
    on_each(remove_marks, folder, marker)
    return found


def check_readable(paths: Sequence[Path], on_each: EachNode) -> list[Finding]:
    """Whether every node can read these files and folders."""
    return [
        _finding(node, f"cannot read {trouble}", "it must lie at the same path on every node, readable")
        for node, trouble in on_each(unreadable, paths)
        if trouble
    ]


def _finding(node: str, what: str, remedy: str) -> Finding:
    return Finding(severity="error", where=node, what=what, remedy=remedy)


# On a node.


def write_mark(node: str, folder: Path, marker: str) -> str | None:
    """Write, sync, lock and rename a small file; what went wrong, if anything."""
    mark = _mark(folder, marker, node)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with mark.with_suffix(".partial").open("w") as file:
            file.write(node)
            file.flush()
            os.fsync(file.fileno())
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                    return f"files there cannot be locked ({error.strerror})"
                raise
        os.replace(mark.with_suffix(".partial"), mark)
    except OSError as error:
        return f"it cannot be written ({error.strerror})"
    return None


def read_marks(node: str, folder: Path, marker: str, writers: Sequence[str]) -> list[str]:
    """Nodes whose file is not seen here."""
    deadline = time.monotonic() + _SEEN_WITHIN_SECONDS
    while True:
        if folder.is_dir():
            os.listdir(folder)  # makes an NFS client ask anew
        missing = [writer for writer in writers if not _mark(folder, marker, writer).exists()]
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(0.2)


def remove_marks(node: str, folder: Path, marker: str) -> None:
    mark = _mark(folder, marker, node)
    for path in (mark, mark.with_suffix(".partial")):
        with suppress(OSError):  # it was never written
            path.unlink()


def unreadable(node: str, paths: Sequence[Path]) -> str:
    """The first that cannot be read here, and why; empty when all can."""
    for path in paths:
        try:
            if path.is_dir():
                os.listdir(path)
            else:
                path.open("rb").close()
        except OSError as error:
            return f"{path} ({error.strerror})"
    return ""


def _mark(folder: Path, marker: str, node: str) -> Path:
    return folder / f"{_PREFIX}{marker}-{node}.mark"
