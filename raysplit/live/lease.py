"""How long a law actor outlives the command that started it: a driver that was killed takes nothing with it."""

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
"""Longer than a driver is ever busy with itself, and than a job manager takes to start it again on another node."""
_RENEWALS = 10
"""In the time of one lease."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """What an actor is lent."""

    seconds: float
    folder: Path
    """Of the run, whose endpoint file goes with the actor."""


class Renewals:
    """The actor's side: ends the actor once nobody has renewed its lease for so long."""

    def __init__(self, lease: Lease, *, end: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._lease, self._end, self._clock = lease, end, clock
        self._renewed = clock()

    def renew(self) -> None:
        self._renewed = self._clock()

    def watch(self, sleep: Callable[[float], object] = time.sleep) -> None:
        """Returns when the lease has run out, and all is ended."""
        while (left := self._renewed + self._lease.seconds - self._clock()) > 0:
            sleep(left)
        with suppress(OSError):
            endpoint.remove(self._lease.folder)
        self._end()


@contextmanager
def renewed(law: ActorHandle, lease: Lease) -> Iterator[None]:
    """The driver's side: renew for the length of a ``with`` block."""
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
