"""Locks on files, which end with their process however it ends; and what is done where a file system has none."""

import errno
import fcntl
import logging
import os
from pathlib import Path

_log = logging.getLogger("raysplit")
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of flock on Lustre without `-o flock`, and on some FUSE and NFS mounts."""
_warned: set[int] = set()
"""Devices that this process has warned about."""


def lock_file(fd: int, path: Path, *, wait: bool) -> bool:
    """Take the lock of an open file; closing the file gives it back.

    Args:
        fd: open for writing, since a network file system locks only what may be written.
        path: of the file, for the warning.
        wait: until whoever holds it gives it back; otherwise a lock that is held raises.

    Returns:
        Whether the file is locked now. Where the file system has no locks it is not, and one warning says so.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is false.
        OSError: the file system refused for another reason.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        device = os.fstat(fd).st_dev
        if device not in _warned:
            _warned.add(device)
            _log.warning(
                f"{path.parent}: its file system has no file locks (flock: {error.strerror}), so nothing keeps two "
                "commands apart; going on without: never start two at once in one run folder"
            )
        return False
    return True
