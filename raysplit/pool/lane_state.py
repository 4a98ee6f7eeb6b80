"""A task and a lane as the broker sees them, and how long a lane may be silent before it counts as hung."""

import math
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from raysplit.design.tasks import Outcome, Task
from raysplit.pool.placement import Footprint
from raysplit.pool.troubles import Trouble

STALLED = 10.0
"""A silence is too long when it is so many times the longest one before."""
LEAST_SILENCE_SECONDS, LEAST_KNOWN_SECONDS = 45.0, 30.0
"""No shorter silence is too long, since saving and reading held-out text are silent too; and none of a size of which a
task has ended well, so that it is known how long these take."""


@dataclass(kw_only=True, slots=True, eq=False)
class QueuedTask:
    """A task that waits or is carried out, and the future of its outcome."""

    task: Task
    footprint: Footprint
    since: float
    """When it began to wait for its turn."""
    done: Future[Outcome]
    not_before: float = 0.0
    """When it may be tried again."""
    tries: int = 0
    """Lanes that were lost over it, since one last worked well on it."""
    troubled_since: float = 0.0
    """When the first of them was lost."""
    trouble: Trouble | None = None
    """What ended the last of them."""
    n_stalls: int = 0

    def end(self, outcome: Outcome) -> None:
        if not self.done.done():
            self.done.set_result(outcome)


@dataclass(kw_only=True, slots=True, eq=False)
class LaneState:
    """A lane. It is started once; the lane that takes its place is another one, with another number."""

    number: int
    footprint: Footprint
    spots: tuple[str, ...]
    """The node of each worker."""
    opened: float
    joined: float | None = None
    """When its workers had come up."""
    ended: float | None = None
    """When it was lost or told to close; its machines count as taken until Ray says that it is gone."""
    queued: QueuedTask | None = None
    begun: float = 0.0
    """When it got its task; without a task, when it became idle."""
    has_worked: bool = False
    """Whether it has had a task. Each lane is opened for one, so it is not closed for others before it has had one."""
    has_got_on: bool = False
    """Whether it has shown progress with any task."""
    leaves: bool = False
    """Whether one of its nodes is to leave the cluster: it gets no new task, and saves the one it has."""
    stand_down: bool = False
    """Whether another footprint waits for its machines: it gets no new task, once it has had one."""
    save_now: bool = False
    """Whether it is to save its task and give it back."""
    put_off: float | None = None
    """When it first could not carry out a task for want of storage, since one ended well."""
    counted: float = 0.0
    """Until when its work is counted, in `raysplit.pool.utilization`."""
    tokens: int = 0
    loss: float = math.nan
    heard: float = 0.0
    """When it last told anything of its task."""
    has_progressed: bool = False
    longest_silence: float = 0.0
    """Longest silence over its task so far, seconds."""
    last_words: list[Any] = field(default_factory=list)
    """Troubles that its ranks told, in the order in which they came."""
    worker: Any = None
    """Ray's actor of the first rank."""
    placement_group: Any = None

    @property
    def task(self) -> Task | None:
        return self.queued.task if self.queued else None

    @property
    def is_open(self) -> bool:
        return self.ended is None

    @property
    def takes_tasks(self) -> bool:
        """Whether it would get a new task when it has none."""
        return self.is_open and not self.leaves and not (self.stand_down and self.has_worked)

    @property
    def is_idle(self) -> bool:
        return self.is_open and self.joined is not None and self.queued is None

    def begin(self, queued: QueuedTask, now: float) -> None:
        self.queued, self.begun, self.heard, self.has_worked = queued, now, now, True
        self.tokens, self.loss, self.longest_silence, self.has_progressed = 0, math.nan, 0.0, False

    def hear(self, now: float) -> None:
        self.longest_silence = max(self.longest_silence, now - self.heard)
        self.heard = now

    def leave(self, now: float) -> QueuedTask | None:
        """Take the lane's task away; returns it."""
        queued, self.queued, self.begun = self.queued, None, now
        self.save_now = False
        return queued


@dataclass(slots=True)
class Silences:
    """How long lanes have been silent over tasks of each size that ended well, and which lanes are hung by that."""

    most_seconds: float
    """How long a lane may be silent before its first progress with a new size: loading and compiling tell nothing."""
    known: dict[int, float] = field(default_factory=dict)
    """n_params -> the longest silence of a task that ended well."""

    def learn(self, lane: LaneState) -> None:
        """Note the longest silence of a task that a lane has ended well."""
        assert lane.task is not None
        n_params = lane.task.trial.n_params
        self.known[n_params] = max(self.known.get(n_params, 0.0), lane.longest_silence)

    def is_hung(self, lane: LaneState, now: float) -> bool:
        """Whether a lane has been silent over its task for too long.

        Too long is `STALLED` times the longest silence of this task, or of any task before with a model of its size,
        and at least `LEAST_SILENCE_SECONDS`, or `LEAST_KNOWN_SECONDS`. It doubles with each time that the task was
        thought hung. Before a lane's first progress it is at least `most_seconds`, unless a task of its size has ended
        well before.
        """
        if lane.queued is None or not lane.is_open:
            return False
        known = self.known.get(lane.queued.task.trial.n_params)
        longest = max(lane.longest_silence, known or 0.0)
        least = LEAST_SILENCE_SECONDS if known is None else LEAST_KNOWN_SECONDS
        patience = max(least, STALLED * longest) * 2**lane.queued.n_stalls
        if not lane.has_progressed and known is None:
            patience = max(patience, self.most_seconds)
        return now - lane.heard > patience
