"""Whether a folder is the same one on every node, and does what a run needs of it."""

import fcntl
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from raysplit.doctor.findings import Finding
from raysplit.quantities import format_bytes

_PREFIX = ".raysplit-doctor-"
_SEEN_WITHIN_SECONDS = 5.0
"""An NFS client may keep what it knows of a folder for so long."""
_SLOW_SECONDS = 2.0

EachNode = Callable[..., list[tuple[str, object]]]
"""Runs a function on every node, its name being the first argument; gives (name, result or exception)."""


def check_folder(folder: Path, on_each: EachNode, *, marker: str, needed_bytes: float = 0.0) -> list[Finding]:
    """Write on every node, and read on every node what the others wrote.

    Args:
        folder: absolute; made where it is missing.
        on_each: runs a function on every node.
        marker: of this check and no other.
        needed_bytes: that the run is to write there.
    """
    found, wrote = [], []
    for node, told in on_each(write_mark, folder, marker):
        if isinstance(told, float):
            wrote.append(node)
            found += _slow(node, folder, told) if told > _SLOW_SECONDS else []
        else:
            found.append(_finding(node, f"{folder}: {told}", "mount the run folder's storage there, writable"))
    for node, trouble in on_each(cannot_lock, folder, marker):
        if trouble:
            found.append(
                Finding(
                    severity="warning",
                    where=node,
                    what=f"{folder}: files there cannot be locked ({trouble})",
                    remedy="nothing keeps two commands from building one corpus there at once; mount it with locks",
                )
            )
    if wrote and needed_bytes > (free := shutil.disk_usage(folder).free if folder.is_dir() else math.inf):
        found.append(
            Finding(
                severity="warning",
                where=str(folder),
                what=f"{format_bytes(free)} are free, and the checkpoints may come to {format_bytes(needed_bytes)}",
                remedy="free some, or name larger storage in compute.storage; a lane waits half an hour on a full disk",
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


def _slow(node: str, folder: Path, seconds: float) -> list[Finding]:
    what = f"writing a few bytes to {folder} took {seconds:.0f} s"
    return [Finding(severity="warning", where=node, what=what, remedy="checkpoints go there; a slow store stops lanes")]


def _finding(node: str, what: str, remedy: str) -> Finding:
    return Finding(severity="error", where=node, what=what, remedy=remedy)


# On a node.


def write_mark(node: str, folder: Path, marker: str) -> str | float:
    """Write, sync and rename a small file; what went wrong, or how many seconds it took."""
    started = time.perf_counter()
    mark = _mark(folder, marker, node)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with mark.with_suffix(".partial").open("w") as file:
            file.write(node)
            file.flush()
            os.fsync(file.fileno())
        os.replace(mark.with_suffix(".partial"), mark)
    except OSError as error:
        return f"it cannot be written ({error.strerror})"
    return time.perf_counter() - started


def cannot_lock(node: str, folder: Path, marker: str) -> str:
    """Why this node's own file cannot be locked; empty where it can, or was not written."""
    try:
        file = _mark(folder, marker, node).open("r+")
    except OSError:  # as was said of writing it
        return ""
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.strerror or str(error)
    return ""


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
