"""Where a run's live law can be found: a small file in the run folder, which may outlive the actor it tells of."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from raysplit.errors import RunError

FILE_NAME = "live.json"
_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A named actor on a Ray cluster."""

    actor: str
    namespace: str
    address: str
    """Of the cluster's head, host:port."""
    auth_mode: str = ""
    """``token`` where the cluster asks for Ray's token, as one does that runs on this machine for the sweep alone."""


def write(folder: Path, endpoint: Endpoint) -> None:
    """Write the file.

    Raises:
        RunError: it cannot be written. Without it, other commands would take the journal for one that nobody writes.
    """
    path = folder / FILE_NAME
    try:
        path.with_suffix(".partial").write_text(json.dumps(asdict(endpoint), indent=1), encoding="utf-8")
        os.replace(path.with_suffix(".partial"), path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}; it tells where the live law is") from error


def remove(folder: Path) -> None:
    (folder / FILE_NAME).unlink(missing_ok=True)


def read(folder: Path) -> Endpoint | None:
    """What the file says, whether or not it still holds; None where there is none that can be read."""
    try:
        return Endpoint(**json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def find(folder: Path) -> Endpoint | None:
    """What the file says, if something still answers at its address; None otherwise."""
    endpoint = read(folder)
    if endpoint is None:
        return None
    host, _, port = endpoint.address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_SECONDS):
            return endpoint
    except (OSError, ValueError):
        return None
