"""The folder of Ray's sockets and logs on this machine: it can be written, and its path is short enough."""

import os
import tempfile
from pathlib import Path

from raysplit.errors import RunError

LONGEST = 107 - len("/session_2026-11-30_12-00-00_000000_1234567/sockets/plasma_store.12")
"""Most bytes of its path, since Linux allows 107 for a socket's."""
_USUAL = ("/tmp", "/dev/shm", "/var/tmp")
_PROBE_BYTES = 2**20


def choose_socket_folder() -> tuple[Path, str]:
    """A folder for Ray, and a sentence on why it is not the first choice; empty where it is.

    RAY_TMPDIR is asked first, then TMPDIR, as Ray does; then the system's usual places.

    Raises:
        RunError: none of them will do.
    """
    named = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "")
    places = {named: os.environ[named]} if named else {}
    against: list[str] = []
    for name, parent in [*places.items(), *((place, place) for place in _USUAL)]:
        # The second is for where another user owns the first.
        folders = (Path(parent, "ray"), Path(parent, f"ray-{os.getuid()}"))
        reasons = [_why_not(folder) for folder in folders]
        if "" in reasons:
            folder = folders[reasons.index("")]
            return folder, f"Ray's sockets and logs are in {folder}: {against[0]}" if against else ""
        against.append(f"{name} {reasons[0]}")
    raise RunError(
        f"Ray needs a folder for its sockets and logs, and finds none: {'; '.join(against)}. Set RAY_TMPDIR to a "
        f"folder that can be written, with a path of at most {LONGEST - len('/ray')} bytes"
    )


def _why_not(folder: Path) -> str:
    """What is against a folder; empty when nothing is."""
    n_bytes = len(os.fsencode(folder))
    if n_bytes > LONGEST:
        return f"is too long for sockets, by {n_bytes - LONGEST} bytes"
    if not folder.is_absolute():
        return f"is no full path ({folder.parent})"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return f"cannot be written ({folder.parent}: {error.strerror})"
    return ""
