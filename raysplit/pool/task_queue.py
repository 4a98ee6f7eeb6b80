"""Tasks that wait for a lane, the longest waiting first, and what becomes of one whose lane was lost."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from raysplit.errors import LaneError, RaysplitError, RunError
from raysplit.pool.lane_state import QueuedTask
from raysplit.pool.placement import Footprint
from raysplit.pool.troubles import Kind, Trouble, remedy

MOST_TRIES = 3
"""Tries of a task that ends its lanes by an exception. Where machines are lost it gets more, within
`PATIENCE_SECONDS`."""
PATIENCE_SECONDS = {Kind.MACHINE: 600.0, Kind.STORAGE: 1800.0, Kind.CODE: 0.0}
"""How long after the first trouble a task is tried again, without a stretch of good work in between."""
GOOD_WORK_SECONDS = 600.0
"""A lane that worked for so long before it was lost has saved most of its work, so the count of tries begins anew."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 60.0


@dataclass(slots=True)
class TaskQueue:
    """The tasks that wait; a task that a lane has is not among them."""

    waiting: list[QueuedTask] = field(default_factory=list)

    def __iter__(self) -> Iterator[QueuedTask]:
        return iter(self.waiting)

    def add(self, queued: QueuedTask) -> None:
        self.waiting.append(queued)
        self.waiting.sort(key=lambda each: each.since)  # stable: of the same moment, the first handed in

    def take(self, footprint: Footprint, now: float) -> QueuedTask | None:
        """Remove and return the longest waiting task of a footprint that may be tried now; None where there is none."""
        for queued in self.waiting:
            if queued.footprint == footprint and queued.not_before <= now:
                self.waiting.remove(queued)
                return queued
        return None

    def take_back(
        self,
        queued: QueuedTask,
        trouble: Trouble,
        now: float,
        *,
        worked_seconds: float,
        longest_pause_seconds: float = _LONGEST_PAUSE_SECONDS,
    ) -> None:
        """Take back a task that a lane could not carry out: it waits again, or is given up."""
        if worked_seconds >= GOOD_WORK_SECONDS:
            queued.tries = 0
        if queued.tries == 0:
            queued.troubled_since = now - worked_seconds
        queued.tries += 1
        queued.trouble = trouble
        if (error := _given_up(queued, trouble, now)) is not None:
            if not queued.done.done():
                queued.done.set_exception(error)
            return
        # The first time it is tried again at once, since most lost machines are lost once.
        pause = _FIRST_PAUSE_SECONDS * 2 ** (queued.tries - 1) if queued.tries > 1 else 0.0
        queued.not_before = now + min(pause, longest_pause_seconds)
        self.add(queued)


def _given_up(queued: QueuedTask, trouble: Trouble, now: float) -> RaysplitError | None:
    name, why = queued.task.trial.name, because(remedy(trouble.kind, trouble.cause))
    if trouble.kind is Kind.SET_UP:
        return RunError(f"{name} cannot be trained as it is set up{why}")
    if queued.tries < MOST_TRIES or now - queued.troubled_since < PATIENCE_SECONDS[trouble.kind]:
        return None
    stalls = f", {queued.n_stalls} of them after it had stalled" if queued.n_stalls else ""
    return LaneError(f"{name}: its lane died {queued.tries} times while training it{stalls}{why}")


def because(cause: str) -> str:
    """A cause as the end of a sentence; empty where none is known."""
    return f": {cause}" if cause else ""
