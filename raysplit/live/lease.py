"""How long a law actor outlives the command that started it, as when its driver was killed."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.actor import ActorHandle

from raysplit.live import endpoint

LEASE_SECONDS = 300.0
"""Longer than a driver ever fails to renew, and than a job manager takes to start it again on another node."""
_RENEWALS = 10
"""Renewals in the time of one lease."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """For how long an actor lives without renewal, and in which run folder."""

    seconds: float
    folder: Path
    """The run folder, whose endpoint file is removed with the actor."""


class Renewals:
    """The actor's side: ends the actor once nobody has renewed its lease for its length."""

    def __init__(self, lease: Lease, *, end: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._lease, self._end, self._clock = lease, end, clock
        self._renewed = clock()

    def renew(self) -> None:
        self._renewed = self._clock()

    def watch(self, sleep: Callable[[float], object] = time.sleep) -> None:
        """Wait until the lease has run out, then remove the endpoint file and end the actor."""
        while (left := self._renewed + self._lease.seconds - self._clock()) > 0:
            sleep(left)
        with suppress(OSError):
            endpoint.remove(self._lease.folder)
        self._end()


@contextmanager
def renewed(law: ActorHandle, lease: Lease) -> Iterator[None]:
    """The driver's side: renew the lease for the length of a ``with`` block."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(lease.seconds / _RENEWALS):
            with suppress(ray.exceptions.RayError):  # one that is gone for good is found out by who asks it
                law.renew.remote()

    thread = threading.Thread(target=renew, name="raysplit-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
