"""The lanes and the tasks that wait for them: which lane gets which task, what a lost lane means, when to give up.

The pool knows neither Ray nor a clock. It is told of nodes, lanes and the time, so that tests can play any course of
events.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from raysplit.design.tasks import Measured, Outcome, Task
from raysplit.errors import LaneError, RaysplitError, RunError
from raysplit.pool.lane_state import LaneState, QueuedTask, Silences
from raysplit.pool.openings import Clearing, Moves, next_moves
from raysplit.pool.placement import Footprint, Machine, words
from raysplit.pool.task_queue import MOST_TRIES, PATIENCE_SECONDS, TaskQueue, because
from raysplit.pool.troubles import Kind, Trouble, remedy
from raysplit.pool.utilization import Utilization

NO_MACHINES_SECONDS = 1800.0
"""How long tasks wait for machines that the cluster has lost, while nothing else goes on."""
PUT_OFF_SECONDS = 60.0
"""How long a lane lives on that cannot write checkpoints. After that it may be its node that does not reach them."""
_LONGEST_PUT_OFF_PAUSE_SECONDS = 5.0
"""The lane is there and has nothing else to do, so another try costs little."""
_START_SECONDS = 15.0
"""How long a lane is assumed to take to start, until one has started."""
_HELD_UP_SECONDS = 5.0
"""Two looks are a second apart. If so much time lies between them, this process was held up, and heard no lane."""
_LEAST_SHUNNED_SECONDS, _MOST_SHUNNED_SECONDS = 10.0, 600.0
_MOST_NOTICES = 200


@dataclass(slots=True)
class _Failing:
    """A node on which ``n`` lanes were lost since a task last ended well there."""

    n: int = 0
    until: float = 0.0
    """Other nodes are preferred until then."""


@dataclass(kw_only=True, slots=True)
class LanePool:
    """All lanes of one command, and the tasks that wait. Lanes are numbered as they open, and never come back."""

    most_lanes: int
    stall_seconds: float
    footprint_of: Callable[[Task], Footprint]
    no_machines_seconds: float = NO_MACHINES_SECONDS
    lanes: dict[int, LaneState] = field(default_factory=dict)
    """Number -> lane, of all whose machines are not given back yet."""
    queue: TaskQueue = field(default_factory=TaskQueue)
    hopeless: RaysplitError | None = None
    """Why no task will ever end well, once that is clear."""
    closed: bool = False
    notices: list[str] = field(default_factory=list)
    """The latest notices for a user, such as on lanes that were lost, in order."""
    n_notices: int = 0
    happened: float = 0.0
    """When a lane last got on with anything."""
    moves: Moves = field(default_factory=Moves)
    """The last decision."""
    nodes: Sequence[Machine] = ()
    """The nodes as last seen."""
    utilization: Utilization = field(default_factory=Utilization)
    _silences: Silences = field(init=False)
    _failing: dict[str, _Failing] = field(default_factory=dict)
    _served: dict[Footprint, float] = field(default_factory=dict)
    """When a lane of each footprint last got a task."""
    _cleared: Clearing = field(default_factory=Clearing)
    _start_seconds: float = _START_SECONDS
    _n_opened: int = 0
    _n_failed_starts: int = 0
    """Starts that failed since the last one that went well."""
    _failing_since: float = 0.0
    _looked: float | None = None
    _stuck_since: float | None = None

    def __post_init__(self) -> None:
        self._silences = Silences(most_seconds=self.stall_seconds)

    # Calls of those who want tasks carried out.

    def under_way(self, task: Task) -> QueuedTask | None:
        """The same task, if it waits or is being carried out; else None."""
        known = [*self.queue, *(lane.queued for lane in self.lanes.values() if lane.queued)]
        return next((queued for queued in known if queued.task == task and not queued.done.done()), None)

    def ask(self, queued: QueuedTask) -> None:
        self.queue.add(queued)

    def give_up(self, error: RaysplitError) -> None:
        """Give all tasks up with an error, those that are handed in later too."""
        self.hopeless = self.hopeless or error
        for queued in (*self.queue, *(lane.queued for lane in self.lanes.values() if lane.queued)):
            if not queued.done.done():
                queued.done.set_exception(self.hopeless)
        self.queue.waiting.clear()

    # Looking after the lanes, once a second.

    def look(
        self, nodes: Sequence[Machine], now: float, *, others_wait: bool = False
    ) -> tuple[list[LaneState], list[LaneState]]:
        """Decide what to open and what to close; ``others_wait`` as for `next_moves`.

        Returns:
            Lanes to open, already counted, and lanes to send home.
        """
        self.nodes = nodes
        self.utilization.look(self.lanes.values(), nodes, n_waiting=len(self.queue.waiting), now=now)
        is_working = any(lane.is_open and lane.joined is not None for lane in self.lanes.values())
        shunned = [name for name, failing in self._failing.items() if failing.until > now] if is_working else ()
        self.moves = next_moves(
            list(self.lanes.values()), self.queue, nodes, most_lanes=self.most_lanes, shunned=shunned,
            served=self._served, cleared=self._cleared, start_seconds=self._start_seconds, now=now,
            others_wait=others_wait,
        )  # fmt: skip
        opened = (
            [] if self.closed or self._pauses(now) else [self._opened(*opening, now) for opening in self.moves.open]
        )
        for lane in self.moves.close:
            lane.ended = now
        self._watch_for_machines(now)
        return opened, self.moves.close

    def silent(self, now: float) -> list[LaneState]:
        """Lanes that have been silent for too long. Call it once a second."""
        self._excuse_silence(now)
        return [lane for lane in self.lanes.values() if self._silences.is_hung(lane, now)]

    def hung(self, lane: LaneState, now: float, outcome: Outcome | None = None) -> bool:
        """Give a silent lane up, unless it has been heard since; ``outcome`` as for `lost`. Returns whether it was."""
        if not self._silences.is_hung(lane, now):
            return False
        assert lane.queued is not None
        lane.queued.n_stalls += 1
        silence = f"it has said nothing for {now - lane.heard:.0f} s"
        self.lost(lane.number, Trouble(kind=Kind.MACHINE, cause=silence), now, outcome)
        return True

    # What happens to a lane.

    def joined(self, number: int, now: float) -> LaneState | None:
        """A lane's workers have come up; None where it was given up meanwhile."""
        lane = self.lanes.get(number)
        if lane is None or not lane.is_open:
            return None
        lane.joined = lane.begun = self.happened = now
        self._n_failed_starts = 0
        return lane

    def give(self, number: int, now: float) -> Task | None:
        """Give an idle lane its next task; None where there is none for it."""
        lane = self.lanes[number]
        if not lane.is_idle or not lane.takes_tasks:
            return None
        queued = self.queue.take(lane.footprint, now)
        if queued is None:
            return None
        lane.begin(queued, now)
        self._served[lane.footprint] = self.happened = now
        return queued.task

    def heard(self, number: int, tokens: int, loss: float, now: float) -> bool:
        """A lane has got on with its task; returns whether it is to save it and give it back."""
        lane = self._at_work(number)
        if lane is None:
            return False
        if not lane.has_got_on:
            assert lane.joined is not None
            self._start_seconds, lane.has_got_on = lane.joined - lane.opened + now - lane.begun, True
        lane.tokens, lane.loss, lane.has_progressed = tokens, loss, True
        lane.hear(now)
        self.happened = now
        return lane.save_now

    def finished(self, number: int, outcome: Outcome, now: float) -> None:
        lane = self._at_work(number)
        if lane is None:
            return
        lane.hear(now)
        lane.put_off = None
        if isinstance(outcome, Measured):
            self._silences.learn(lane)
        for name in set(lane.spots):
            self._failing.pop(name, None)
        self.happened = now
        self.utilization.count(lane, now)
        queued = lane.leave(now)
        assert queued is not None
        queued.end(outcome)

    def interrupted(self, number: int, now: float) -> None:
        """A lane has saved its task where it stood, as it was told. That is no failed try of the task."""
        lane = self._at_work(number)
        if lane is None:
            return
        self.utilization.count(lane, now)
        queued = lane.leave(now)
        assert queued is not None
        if not lane.leaves:
            queued.since = now  # or it would be the first to get the machines that it has just cleared
        self.queue.add(queued)

    def put_off(self, number: int, trouble: Trouble, now: float) -> bool:
        """A lane could not carry its task out for want of storage, which is tried again later.

        Returns:
            Whether the lane stays; it does for `PUT_OFF_SECONDS`, and is to end then with its task.
        """
        lane = self._at_work(number)
        if lane is None:
            return False
        if lane.put_off is None:
            assert lane.task is not None
            lane.put_off = now
            self.tell(f"lane {number} could not carry out {lane.task.trial.name}{because(trouble.cause)}")
        elif now - lane.put_off >= PUT_OFF_SECONDS:
            return False
        worked = lane.heard - lane.begun
        self.utilization.count(lane, now)
        queued = lane.leave(now)
        assert queued is not None
        self.queue.take_back(
            queued, trouble, now, worked_seconds=worked, longest_pause_seconds=_LONGEST_PUT_OFF_PAUSE_SECONDS
        )
        return True

    def lost(self, number: int, trouble: Trouble, now: float, outcome: Outcome | None = None) -> None:
        """A lane has ended without being told to; its task goes to another lane, or is given up.

        An ``outcome`` is that of its task, where the lane had recorded it and could not tell of it any more.
        """
        lane = self.lanes.get(number)
        if lane is None or not lane.is_open:
            return
        lane.ended = now
        queued, worked = lane.queued, lane.heard - lane.begun
        if queued is not None:
            self.utilization.count(lane, now)
        lane.queued = None
        said = remedy(trouble.kind, trouble.cause)
        if lane.joined is None:
            self._failed_start(said, trouble.kind, now)
        elif queued is not None and outcome is not None:
            queued.end(outcome)
        elif queued is not None:
            self.queue.take_back(queued, trouble, now, worked_seconds=worked)
        self._shun(lane, now)
        what = f"over {queued.task.trial.name}" if queued else "while it started" if lane.joined is None else "idle"
        self.tell(f"lane {number} was lost {what}{because(said)}")
        if trouble.kind is Kind.SET_UP:
            self.give_up(RunError(said))

    def gone(self, number: int, now: float, trouble: Trouble | None = None, outcome: Outcome | None = None) -> None:
        """Ray has given a lane's machines back; ``trouble`` and ``outcome`` as for `lost`."""
        if trouble is not None:
            self.lost(number, trouble, now, outcome)
        lane = self.lanes.pop(number, None)
        if lane is not None and lane.queued is not None:  # it ended without an error while it had a task
            self.queue.add(lane.queued)

    # Inside.

    def _at_work(self, number: int) -> LaneState | None:
        lane = self.lanes.get(number)
        return lane if lane is not None and lane.is_open and lane.queued is not None else None

    def _opened(self, footprint: Footprint, spots: tuple[str, ...], now: float) -> LaneState:
        lane = LaneState(number=self._n_opened, footprint=footprint, spots=spots, opened=now)
        self.lanes[lane.number] = lane
        self._n_opened += 1
        return lane

    def _excuse_silence(self, now: float) -> None:
        """Count no silence of lanes for the time that this process was held up, when it could hear none."""
        if self._looked is not None and (held_up := now - self._looked) > _HELD_UP_SECONDS:
            for lane in self.lanes.values():
                lane.heard = min(now, lane.heard + held_up)
        self._looked = now

    def _pauses(self, now: float) -> bool:
        """Whether to open no lane yet, after starts that failed."""
        if not self._n_failed_starts:
            return False
        return now < self._failing_since + _LEAST_SHUNNED_SECONDS * (2 ** (self._n_failed_starts - 1) - 1)

    def _failed_start(self, cause: str, kind: Kind, now: float) -> None:
        if not self._n_failed_starts:
            self._failing_since = now
        self._n_failed_starts += 1
        others = any(lane.is_open and lane.joined is not None for lane in self.lanes.values())
        is_over = now - self._failing_since >= PATIENCE_SECONDS.get(kind, 0.0)
        if not others and self._n_failed_starts >= MOST_TRIES and is_over:
            self.give_up(LaneError(f"lanes could not start {self._n_failed_starts} times in a row{because(cause)}"))

    def _shun(self, lane: LaneState, now: float) -> None:
        for name in set(lane.spots):
            failing = self._failing.setdefault(name, _Failing())
            pause = _LEAST_SHUNNED_SECONDS * 2 ** (failing.n - 1) if failing.n else 0.0  # once is no habit
            failing.n, failing.until = failing.n + 1, now + min(pause, _MOST_SHUNNED_SECONDS)

    def _watch_for_machines(self, now: float) -> None:
        """Give up where the cluster has long had no room for what waits, and no lane is open."""
        is_stuck = self.moves.missing is not None and not any(lane.is_open for lane in self.lanes.values())
        if not is_stuck:
            self._stuck_since = None
            return
        self._stuck_since = now if self._stuck_since is None else self._stuck_since
        if now - self._stuck_since >= self.no_machines_seconds:
            self.give_up(LaneError(no_room(self.moves.missing, self.nodes, self.no_machines_seconds)))

    def tell(self, notice: str) -> None:
        """Add a notice for the user, unless it is the same as the last one."""
        if self.notices[-1:] == [notice]:
            return
        self.notices = [*self.notices, notice][-_MOST_NOTICES:]
        self.n_notices += 1


def no_room(footprint: Footprint | None, nodes: Sequence[Machine], seconds: float) -> str:
    """Message that a lane fits nowhere, with what the cluster has and what would help."""
    since = f" after {seconds:.0f} s" if seconds else ""
    return (
        f"a lane needs {footprint}, and the Ray cluster has no room for that{since}: its nodes have "
        f"{words(node.total for node in nodes if not node.leaves)}; add nodes, wait for them with --wait-for-cluster, "
        "or ask for less in compute"
    )
