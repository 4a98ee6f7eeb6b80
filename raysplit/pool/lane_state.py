"""One task and one lane as the broker sees them, and how long a lane may be silent before it counts as hung."""

import math
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from raysplit.design.tasks import Outcome, Task
from raysplit.pool.placement import Footprint
from raysplit.pool.troubles import Trouble

STALLED = 10.0
"""Times as long as ever before is too long a silence."""
LEAST_SILENCE_SECONDS = 45.0
"""No lane that has shown progress is given up for less: saving and reading held-out text are silent too."""


@dataclass(kw_only=True, slots=True, eq=False)
class QueuedTask:
    """A task, and who waits for it."""

    task: Task
    footprint: Footprint
    since: float
    """When it began to wait for its turn."""
    done: Future[Outcome]
    not_before: float = 0.0
    """When it may be tried again."""
    tries: int = 0
    """Lanes that it has cost since it last got on."""
    troubled_since: float = 0.0
    """When it cost the first of them."""
    trouble: Trouble | None = None
    """What ended the last."""
    n_stalls: int = 0


@dataclass(kw_only=True, slots=True, eq=False)
class LaneState:
    """A lane is started once: what comes after it in its place is another one, with another number."""

    number: int
    footprint: Footprint
    spots: tuple[str, ...]
    """The node of each worker."""
    opened: float
    joined: float | None = None
    """When its workers had come up."""
    ended: float | None = None
    """When it was lost or sent home; its machines are taken until Ray says that it is gone."""
    queued: QueuedTask | None = None
    begun: float = 0.0
    """When it got its task; when it became idle, without one."""
    has_worked: bool = False
    """It has had a task, as every lane is to that was opened for one."""
    has_got_on: bool = False
    """With any task."""
    leaves: bool = False
    """A node of it does: it is given nothing new, and saves what it has."""
    stand_down: bool = False
    """Another footprint waits for its machines: it is given nothing new."""
    save_now: bool = False
    """It is to save its task and give it back."""
    tokens: int = 0
    loss: float = math.nan
    heard: float = 0.0
    """When it last said anything of its task."""
    has_progressed: bool = False
    longest_silence: float = 0.0
    """Of its task so far."""
    last_words: list[Any] = field(default_factory=list)
    """Troubles as its ranks told them, the first one first."""
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
        """Whether it takes one when it has none."""
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
        """Have the lane without its task, which is returned."""
        queued, self.queued, self.begun = self.queued, None, now
        self.save_now = False
        return queued


@dataclass(slots=True)
class Silences:
    """How long lanes have been silent over each size and ended well."""

    most_seconds: float
    """A lane may be silent for so long before its first progress: loading and compiling say nothing."""
    known: dict[int, float] = field(default_factory=dict)
    """n_params -> the longest silence of a task that ended well."""

    def learn(self, lane: LaneState) -> None:
        """A lane has ended its task well."""
        assert lane.task is not None
        n_params = lane.task.trial.n_params
        self.known[n_params] = max(self.known.get(n_params, 0.0), lane.longest_silence)

    def is_hung(self, lane: LaneState, now: float) -> bool:
        """Whether a lane has been silent over its task for longer than can be.

        `STALLED` times the longest silence of this task or of any before it with a model of its size, and at least
        `LEAST_SILENCE_SECONDS`; twice as long again for each time that the task was thought hung. Before its first
        progress at least `most_seconds`, unless its size has come through before.
        """
        if lane.queued is None or not lane.is_open:
            return False
        known = self.known.get(lane.queued.task.trial.n_params)
        longest = max(lane.longest_silence, known or 0.0)
        patience = max(LEAST_SILENCE_SECONDS, STALLED * longest) * 2**lane.queued.n_stalls
        if not lane.has_progressed and known is None:
            patience = max(patience, self.most_seconds)
        return now - lane.heard > patience
