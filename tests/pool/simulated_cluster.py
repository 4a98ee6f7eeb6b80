"""A cluster and its lanes without Ray or waiting: seconds pass in a loop, and every promise is checked in each."""

import math
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field

from raysplit.design.lane_shapes import LaneShape
from raysplit.design.tasks import Measured, Outcome, Task
from raysplit.design.tree import Trial
from raysplit.pool.lane_pool import LanePool
from raysplit.pool.lane_state import LaneState, QueuedTask
from raysplit.pool.placement import Footprint, Machine
from raysplit.pool.troubles import Kind, Trouble

START_SECONDS = 5
NOTICED_SECONDS = 2
"""Until Ray tells of a lane that has died; its machines are back as long after that."""
LOST = Trouble(kind=Kind.MACHINE, cause="its node is gone")


def footprint(n_workers: int = 1, n_nodes: int = 1, cpus: float = 1.0) -> Footprint:
    return Footprint(n_workers=n_workers, n_nodes=n_nodes, gpus_per_worker=0.0, cpus_per_worker=cpus)


def shape_of(takes: Footprint) -> LaneShape:
    return LaneShape(
        n_workers=takes.n_workers, n_nodes=takes.n_nodes, cpus_per_worker=takes.cpus_per_worker,
        gpus_per_worker=takes.gpus_per_worker, zero_stage=1, micro_batch_sequences=1, activation_checkpointing=False,
    )  # fmt: skip


def task(number: int, takes: Footprint) -> Task:
    trunk = Trial(n_params=14_000, seed=number, domain="", pretrain_tokens=100, milestones=(100,))
    return Task(trial=trunk, milestone=100, lane_shape=shape_of(takes))


@dataclass
class Running:
    """A lane as it really is, whatever the pool thinks."""

    lane: LaneState
    joins: float
    ends: float = math.inf
    """When its task is done."""
    task: Task | None = None
    saves: bool = False


@dataclass
class Simulated:
    """Second by second, a cluster that the test changes at will between two of them."""

    cpus: dict[str, float]
    """Of each node that is alive."""
    most_lanes: int = 8
    leaving: set[str] = field(default_factory=set)
    now: float = 1000.0
    running: dict[int, Running] = field(default_factory=dict)
    later: list[tuple[float, int, bool]] = field(default_factory=list)
    """(when, lane, whether its machines are back)"""
    queued: dict[int, QueuedTask] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    """How long each task still takes from where it was saved, by its number."""
    busy: Counter[str] = field(default_factory=Counter)
    """CPU-seconds in which lanes were at work, and in all while there was work."""
    n_changes: int = 0
    """Lanes that were opened."""

    def __post_init__(self) -> None:
        self.pool = LanePool(
            most_lanes=self.most_lanes,
            stall_seconds=1800.0,
            footprint_of=lambda queued: Footprint.of(queued.lane_shape),  # type: ignore[arg-type]
            happened=self.now,
        )

    def hand_in(self, number: int, takes: Footprint, seconds: float) -> None:
        queued = QueuedTask(task=task(number, takes), footprint=takes, since=self.now, done=Future[Outcome]())
        self.queued[number], self.seconds[number] = queued, seconds
        self.pool.ask(queued)

    def lose(self, node: str) -> None:
        """A node dies, with every lane on it."""
        del self.cpus[node]
        for number, running in list(self.running.items()):
            if node in running.lane.spots:
                self.kill(number)

    def kill(self, number: int) -> None:
        """A lane's workers die."""
        del self.running[number]
        self.later.append((self.now + NOTICED_SECONDS, number, False))

    def nodes(self) -> list[Machine]:
        """As a cluster tells it: of what is really taken now."""
        free = dict(self.cpus)
        for running in self.running.values():
            for name in running.lane.spots:
                free[name] -= running.lane.footprint.cpus_per_worker
        assert all(left >= 0 for left in free.values()), f"more is taken than there is: {free}"
        return [
            Machine(name=name, address=name, total={"CPU": n}, free={"CPU": free[name]}, leaves=name in self.leaving)
            for name, n in self.cpus.items()
        ]

    def second(self) -> None:
        """One second passes."""
        self.now += 1.0
        for due, number, is_back in [each for each in self.later if each[0] <= self.now]:
            self.later.remove((due, number, is_back))
            if is_back:
                self.pool.gone(number, self.now)
            else:
                self.pool.lost(number, LOST, self.now)
                self.later.append((self.now + NOTICED_SECONDS, number, True))
        for number, running in list(self.running.items()):
            self._live(number, running)
        opened, closed = self.pool.look(self.nodes(), self.now)
        self.n_changes += len(opened)
        for lane in closed:
            if lane.number in self.running:  # or it has died, as is known only later
                assert self.running.pop(lane.number).task is None, "a lane at work is not sent home"
                self.later.append((self.now + NOTICED_SECONDS, lane.number, True))
        for lane in opened:
            if all(name in self.cpus for name in lane.spots):
                self.running[lane.number] = Running(lane=lane, joins=self.now + START_SECONDS)
            else:
                self.later.append((self.now + NOTICED_SECONDS, lane.number, False))
        assert len(self.running) <= self.most_lanes
        under_way = [running.task for running in self.running.values() if running.task]
        assert len(under_way) == len(set(under_way)), "a task is carried out twice at the same time"
        if any(not each.done.done() for each in self.queued.values()):
            self.busy["all"] += round(sum(self.cpus.values()))
            self.busy["busy"] += round(
                sum(sum(r.lane.footprint.in_all.values()) for r in self.running.values() if r.task is not None)
            )

    def until_done(self, *, seconds: int) -> None:
        """Let time pass until every task has its outcome."""
        for _ in range(seconds):
            if all(queued.done.done() for queued in self.queued.values()):
                return
            self.second()
        left = [queued.task.trial.name for queued in self.queued.values() if not queued.done.done()]
        raise AssertionError(f"still waiting after {seconds} s: {left}")

    def _live(self, number: int, running: Running) -> None:
        if self.now < running.joins:
            return
        if running.lane.joined is None:
            assert self.pool.joined(number, self.now) is running.lane
        if running.task is not None and self.pool.heard(number, 1, 1.0, self.now):
            self.seconds[running.task.trial.seed] = max(1.0, running.ends - self.now)
            self.pool.interrupted(number, self.now)
            running.task = None
        elif running.task is not None and self.now >= running.ends:
            self.pool.finished(number, Measured(losses={"a": 1.0}, tokens=1, wall_seconds=1.0), self.now)
            running.task = None
        if running.task is None and (given := self.pool.give(number, self.now)) is not None:
            running.task, running.ends = given, self.now + self.seconds[given.trial.seed]
