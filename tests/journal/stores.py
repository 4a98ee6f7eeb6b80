"""Storages for tests: one in memory, and one that fails or dies as it is told."""

from collections.abc import Sequence
from uuid import uuid4

from obstore.store import MemoryStore

from raysplit.journal.storage import ObjectStore, Storage, Uncertain


def memory() -> ObjectStore:
    """An object store that nobody used before."""
    return ObjectStore(MemoryStore(), f"memory://{uuid4().hex}")


class Killed(BaseException):
    """The process ends here."""


class Faulty:
    """A storage whose next `create` goes wrong.

    ``refused``; ``lost``: stored, but the answer is not heard; ``repeated``: sent again and met by itself; ``late``:
    stored only when `arrive` is called; ``killed`` before it was stored, or ``killed after``.
    """

    def __init__(self, storage: Storage, *, fault: str = "") -> None:
        self._storage, self.fault = storage, fault
        self._late: tuple[str, bytes] | None = None

    def label(self, name: str) -> str:
        return self._storage.label(name)

    def names(self) -> list[str]:
        return self._storage.names()

    def read(self, names: Sequence[str]) -> list[bytes]:
        return self._storage.read(names)

    def replace(self, name: str, content: bytes) -> None:
        self._storage.replace(name, content)

    def delete(self, name: str) -> None:
        self._storage.delete(name)

    def create(self, name: str, content: bytes) -> bool:
        fault, self.fault = self.fault, ""
        if fault == "refused":
            raise OSError(28, "No space left on device")
        if fault == "killed":
            raise Killed
        if fault == "late":
            self._late = (name, content)
            raise Uncertain("timed out")
        done = self._storage.create(name, content)
        if fault == "lost":
            raise Uncertain("connection reset")
        if fault == "repeated":
            return self._storage.create(name, content)
        if fault == "killed after":
            raise Killed
        return done

    def arrive(self) -> bool:
        """What was late is stored now, where nothing is in its place."""
        assert self._late is not None
        return self._storage.create(*self._late)
