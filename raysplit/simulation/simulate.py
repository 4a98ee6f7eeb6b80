"""A sweep on machines that nobody has yet: the real search and the real lane pool, in simulated time.

The searcher, the scheduler and the law decide as under Ray Tune (`raysplit.sweep.replay`), against a known law.
`raysplit.pool.LanePool` decides which lane gets which task, as it does in the broker. Simulated are the machines
(`raysplit.simulation.machines`), the time that training and saving take, and which machine fails when.
"""

import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from raysplit.design.lane_shapes import LaneShape, lane_shape_of
from raysplit.design.resolved_spec import ResolvedSpec, spec_of
from raysplit.design.tasks import Measured, Outcome, Task
from raysplit.errors import RunError
from raysplit.journal import Journal
from raysplit.live.run_spec import RunSpec
from raysplit.live.service import LawService
from raysplit.pool.lane_pool import LanePool
from raysplit.pool.lane_state import LaneState, QueuedTask
from raysplit.pool.placement import Footprint, on_these, words
from raysplit.pool.troubles import Kind, Trouble
from raysplit.simulation.machines import HOUR, Clock, Machines
from raysplit.simulation.rates import Rates
from raysplit.space import Space
from raysplit.split.problem import FORWARD_SHARE
from raysplit.sweep.plan import STATE_BYTES
from raysplit.sweep.replay import Losses, PlayedTune, TuneTrial, known_law_losses
from raysplit.sweep.speed import speed_of

_LOOK_SECONDS = 60.0
"""Time between two looks at lanes and nodes while nothing happens; the broker looks every second."""
_END_SECONDS = 5.0
"""Time until the machines of a lane that was closed or lost are free again."""
_LOST = Trouble(kind=Kind.MACHINE, cause="its node is gone")


@dataclass(frozen=True, kw_only=True, slots=True)
class SizePace:
    """How a size trains in its lane."""

    seconds_per_token: float
    """Seconds that the whole lane needs for a token."""
    step_seconds: float
    checkpoint_bytes: float
    lane: LaneShape


@dataclass(kw_only=True, slots=True)
class _Work:
    """A task, or what is left of it."""

    trial: TuneTrial
    pace: SizePace
    left: float
    """Seconds of training from the last save on."""
    begun: float = 0.0
    save_seconds: float = 0.0
    lane: int | None = None
    epoch: int = 0
    """Counts the lanes that it was begun on, so that the end planned on a lost lane is not taken for its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """How a simulated sweep went."""

    finished: str
    hours: float
    n_observations: int
    most_nodes: int
    most_lanes: int
    node_hours: float
    trained_share: float
    """Share of the paid machine time that was training which was kept."""
    lost_share: float
    """Share of the paid machine time that was training lost with a node, since its last save."""
    saving_share: float
    """Share of the paid machine time in which lanes saved checkpoints."""
    cost: float
    """US dollars."""
    n_failures: int
    n_taken: int
    broker_share: float
    """Calls at the busiest moment, as a share of those that a broker can answer."""
    law_share: float
    """Calls in the busiest minute, as a share of those that a law actor can answer."""
    storage_share: float
    """Bytes a second that are saved at the busiest moment, as a share of what the storage takes."""
    look_seconds: float
    """How long the longest look of the pool took on this machine; the broker has one second for each."""
    nodes_over_time: tuple[tuple[float, int, float], ...]
    """(hours, nodes, share of the nodes that trains) at each moment at which something happened."""


def simulate(
    space: Space,
    *,
    most_nodes: int,
    rates: Rates,
    seed: int = 0,
    most_lanes: int | None = None,
    seconds_per_token: Mapping[int, float] | None = None,
    node: Mapping[str, float] | None = None,
) -> Simulated:
    """Run a sweep of a space on a simulated cluster until its answer; losses are those of `_chinchilla`.

    Args:
        space: whose trials, lanes and speeds are taken; domains that are found in the text are taken as equally large.
        most_nodes: how many nodes the cluster may grow to.
        rates: of machines, storage and services.
        seed: of failures, waiting times and losses.
        most_lanes: lanes at a time; when left out, as many of the smallest size's as fill the nodes.
        seconds_per_token: of one worker by size, where it was timed; else reckoned from `compute.gpu`.
        node: resources of a node; those of `compute` when left out.

    Raises:
        RunError: a size's speed is not known, or its lane does not fit on so many nodes.
    """
    vocab_size = space.corpus.tokenizer.vocab_size
    paces = _paces(space, vocab_size, seconds_per_token or {})
    resources = dict(node or _node_of(space, paces))
    smallest = min((Footprint.of(pace.lane) for pace in paces.values()), key=lambda each: sorted(each.in_all.items()))
    cluster = [resources] * most_nodes
    for footprint in dict.fromkeys(Footprint.of(pace.lane) for pace in paces.values()):
        if on_these(footprint, cluster) is None:
            there = f"{most_nodes} x {words([resources])}"
            raise RunError(f"--nodes {most_nodes}: a lane needs {footprint}, and all nodes have {there}; give more")
    fill = most_nodes * min(resources[name] / amount for name, amount in smallest.in_all.items() if amount)
    lanes = most_lanes or max(1, int(fill))
    spec = replace(spec_of(space, vocab_size=vocab_size), lanes=lanes)
    losses = known_law_losses(_chinchilla, spec.domains, noise=0.005, seed=seed)
    with tempfile.TemporaryDirectory() as scratch, closing(Journal(Path(scratch) / "journal")) as journal:
        service = LawService(RunSpec(spec=spec, bytes_per_token=dict.fromkeys(spec.domains, 1.0)), journal)
        played = _Played(space, spec, service, losses, paces, rates)
        played.machines = Machines(
            most_nodes=most_nodes, resources=resources, rates=rates, rng=np.random.default_rng(seed),
            clock=played.clock, lost=played.node_lost,
        )  # fmt: skip
        return played.to_the_end()


def _chinchilla(domain: str, n: float, d: float, s: float) -> float:
    """Hoffmann's law (2203.15556, eq. 10), where D' counts fourfold, and 0.3 nats of each domain's own that D' lowers.

    All but Hoffmann's constants is an assumption. It decides which trials are bought, not how long a token takes.
    """
    common = 1.69 + 406.4 * n**-0.34 + 410.7 * (d + 4 * s + 1e6) ** -0.28
    return common + 0.3 * (1.0 + s / 2e8) ** -0.3


def _paces(space: Space, vocab_size: int, timed: Mapping[int, float]) -> dict[int, SizePace]:
    found = {}
    for size in space.model.sizes:
        model, lane = space.shape(size, vocab_size), lane_shape_of(space, size, vocab_size=vocab_size)
        speed = speed_of(space, model, lane, timed)
        if speed is None:
            raise RunError(
                f"compute.gpu: not given, so nobody knows how fast a size of {size} trains; name the GPU to reckon with"
            )
        seconds = 1.0 / speed.of_lane(lane)
        found[model.n_params_non_embedding] = SizePace(
            seconds_per_token=seconds, step_seconds=seconds * space.training.batch_tokens, lane=lane,
            checkpoint_bytes=float(model.n_params_trained * STATE_BYTES),
        )  # fmt: skip
    return found


def _node_of(space: Space, paces: Mapping[int, SizePace]) -> dict[str, float]:
    """Resources of a node: its GPUs and the CPUs of their workers; without GPUs, the CPUs of a lane's largest part."""
    if space.compute.device == "cpu":
        return {
            "CPU": max(pace.lane.n_workers / pace.lane.n_nodes * pace.lane.cpus_per_worker for pace in paces.values())
        }
    cpus = max(pace.lane.cpus_per_worker / (pace.lane.gpus_per_worker or 1.0) for pace in paces.values())
    gpus = float(space.compute.gpus_per_node)
    return {"GPU": gpus, "CPU": gpus * cpus}


@dataclass(slots=True)
class _Played:
    """One simulated sweep."""

    space: Space
    spec: ResolvedSpec
    service: LawService
    losses: Losses
    paces: Mapping[int, SizePace]
    rates: Rates
    clock: Clock = field(default_factory=Clock)
    machines: Machines = field(init=False)
    pool: LanePool = field(init=False)
    tune: PlayedTune = field(init=False)
    works: dict[Task, _Work] = field(default_factory=dict)
    kept: float = 0.0
    """Node seconds of training that was kept: seconds times the share of a node that the lane takes."""
    thrown: float = 0.0
    """Node seconds of training that was lost."""
    saved: float = 0.0
    """Node seconds of saving."""
    calls_per_second: float = 0.0
    """Calls that lanes make to the broker now."""
    most_calls: float = 0.0
    bytes_per_second: float = 0.0
    """Bytes a second that lanes save now, in the mean."""
    most_bytes: float = 0.0
    law_calls: Counter[int] = field(default_factory=Counter)
    """Minute -> calls."""
    look_seconds: float = 0.0
    most_lanes: int = 0
    busy: float = 0.0
    """Nodes' worth of lanes that train now."""
    history: list[tuple[float, int, float]] = field(default_factory=list)
    is_looked_for: bool = False
    n_blocked: int = 0
    """Tasks without machines at the last look."""
    is_news: bool = True
    """Whether the search may have something new to try."""

    def __post_init__(self) -> None:
        self.tune = PlayedTune(self.service, n_blocked=self._n_blocked)
        self.pool = LanePool(
            most_lanes=self.spec.lanes,
            stall_seconds=1800.0,
            no_machines_seconds=math.inf,  # somebody waits, however long the queue
            footprint_of=lambda task: Footprint.of(self._pace(task).lane),
        )

    def to_the_end(self) -> Simulated:
        self._turn()
        while not self.tune.finished:
            self.clock.go_on()
            if self.pool.hopeless is not None:
                raise self.pool.hopeless
            self._turn()
        cost, held_seconds = self.machines.bill()
        return Simulated(
            finished=self.tune.finished,
            hours=self.clock.now / HOUR,
            n_observations=self.service.status().n_observations,
            most_nodes=self.machines.most_at_once,
            most_lanes=self.most_lanes,
            node_hours=held_seconds / HOUR,
            trained_share=self.kept / held_seconds,
            lost_share=self.thrown / held_seconds,
            saving_share=self.saved / held_seconds,
            cost=cost,
            n_failures=self.machines.n_failures,
            n_taken=self.machines.n_taken,
            broker_share=self.most_calls / self.rates.broker_calls_per_second,
            law_share=max(self.law_calls.values()) / 60 / self.rates.law_calls_per_second,
            storage_share=self.most_bytes / self.rates.storage_bytes_per_second,
            look_seconds=self.look_seconds,
            nodes_over_time=tuple(self.history),
        )

    def node_lost(self, name: str) -> None:
        """Lose every lane on a node that is gone."""
        for lane in list(self.pool.lanes.values()):
            if name in lane.spots and lane.is_open:
                if lane.task is not None:
                    self._stop(self.works[lane.task], is_saved=False)
                self.pool.lost(lane.number, _LOST, self.clock.now)
                self.clock.later(_END_SECONDS, partial(self._gone, lane.number))

    # What the search wants.

    def _suggest(self) -> None:
        for trial in self.tune.begun():
            self._count_law_call()
            self._hand_in(trial)

    def _count_law_call(self) -> None:
        self.law_calls[int(self.clock.now // 60)] += 1

    def _hand_in(self, trial: TuneTrial) -> None:
        task = Task(trial=trial.asked, milestone=trial.milestone)
        tokens = self.tune.step_flops(trial) / self.spec.flops_per_token[trial.asked.n_params]
        tokens += len(self.spec.domains) * self.space.training.validation_tokens * FORWARD_SHARE
        pace = self._pace(task)
        self.works[task] = _Work(trial=trial, pace=pace, left=tokens * pace.seconds_per_token)
        self.pool.ask(
            QueuedTask(task=task, footprint=Footprint.of(pace.lane), since=self.clock.now, done=Future[Outcome]())
        )

    def _measured(self, trial: TuneTrial) -> None:
        known = self.losses(trial.asked, trial.milestone)
        assert known is not None, "a law knows every loss"
        outcome = Measured(losses=dict(known), tokens=0, wall_seconds=0.0)
        self.is_news = True
        self.service.record(trial.asked, trial.milestone, outcome)
        self._count_law_call()
        if trial.milestone != trial.asked.milestones[-1]:
            self._count_law_call()
        if self.tune.goes_on(trial, outcome):
            self._hand_in(trial)

    def _pace(self, task: Task) -> SizePace:
        return self.paces[task.trial.n_params]

    def _n_blocked(self) -> int:
        moves = self.pool.moves
        return sum(1 for queued in self.pool.queue if queued.footprint in (moves.missing, *moves.wanted))

    # Lanes.

    def _turn(self) -> None:
        """After anything that happened: ask the search, and look at the lanes."""
        n_blocked = self._n_blocked()
        if self.is_news or n_blocked > self.n_blocked:
            self.is_news = False
            self._suggest()
        self.n_blocked = n_blocked
        if self.tune.finished:
            return
        self._give()
        started = time.thread_time()  # others on this machine do not count
        opened, closed = self.pool.look(self.machines.seen(), self.clock.now)
        self.look_seconds = max(self.look_seconds, time.thread_time() - started)
        for lane, seconds in self._starts(opened):
            self.clock.later(seconds, partial(self._join, lane.number))
        for lane in closed:
            self.clock.later(_END_SECONDS, partial(self._gone, lane.number))
        for lane in self.pool.lanes.values():
            if lane.save_now and lane.task is not None and lane.is_open:
                work = self.works[lane.task]
                self.clock.later(work.save_seconds, partial(self._interrupt, lane.number, work, work.epoch))
        self.machines.ask(self.pool.moves.wanted)
        self.machines.let_go({name for lane in self.pool.lanes.values() for name in lane.spots})
        self.most_lanes = max(self.most_lanes, len(self.pool.lanes))
        n_nodes = len(self.machines.nodes)
        self.history.append((self.clock.now / HOUR, n_nodes, self.busy / n_nodes if n_nodes else 0.0))
        if not self.is_looked_for:
            self.is_looked_for = True
            self.clock.later(_LOOK_SECONDS, self._look_again)

    def _starts(self, opened: Sequence[LaneState]) -> Iterator[tuple[LaneState, float]]:
        """Each opened lane with the seconds that it takes to start, beside those that start on the same nodes."""
        starting = Counter(
            name
            for lane in self.pool.lanes.values()
            if opened and lane.is_open and lane.joined is None
            for name in set(lane.spots)
        )
        for lane in opened:
            n_together = max(starting[name] for name in lane.spots)
            yield lane, self.rates.start_seconds * max(1.0, n_together / self.rates.starts_at_once)

    def _look_again(self) -> None:
        self.is_looked_for = False

    def _join(self, number: int) -> None:
        self.pool.joined(number, self.clock.now)

    def _gone(self, number: int) -> None:
        self.pool.gone(number, self.clock.now)

    def _give(self) -> None:
        for lane in list(self.pool.lanes.values()):
            if lane.is_idle and (task := self.pool.give(lane.number, self.clock.now)) is not None:
                self.pool.heard(lane.number, 1, 1.0, self.clock.now)
                self._begin(self.works[task], lane)

    def _begin(self, work: _Work, lane: LaneState) -> None:
        rates, n_savers = self.rates, self.bytes_per_second / self.rates.storage_bytes_per_second
        its_share = rates.storage_bytes_per_second / (1.0 + n_savers)
        work.save_seconds = work.pace.checkpoint_bytes / min(
            work.pace.lane.n_nodes * rates.node_bytes_per_second, its_share
        )
        work.begun, work.lane, work.epoch = self.clock.now, lane.number, work.epoch + 1
        seconds = work.left * (1.0 + work.save_seconds / self._save_interval) + work.save_seconds
        self.clock.later(seconds, partial(self._end, work, work.epoch))
        self._count(work, +1)

    def _end(self, work: _Work, epoch: int) -> None:
        if work.epoch != epoch or work.lane is None:
            return
        number, share = work.lane, self._share(work)
        self.kept += work.left * share
        self.saved += (self.clock.now - work.begun - work.left) * share
        self._count(work, -1)
        work.lane = None
        lane = self.pool.lanes[number]
        assert lane.task is not None
        del self.works[lane.task]
        self.pool.finished(number, Measured(losses={}, tokens=0, wall_seconds=0.0), self.clock.now)
        self.clock.later(self.rates.turn_seconds, partial(self._measured, work.trial))

    def _interrupt(self, number: int, work: _Work, epoch: int) -> None:
        """Stop a lane that was told to save and has done so."""
        if work.epoch == epoch and work.lane == number:
            self._stop(work, is_saved=True)
            self.pool.interrupted(number, self.clock.now)

    def _stop(self, work: _Work, *, is_saved: bool) -> None:
        if work.lane is None:
            return
        share, interval = self._share(work), self._save_interval
        elapsed = self.clock.now - work.begun
        n_saves, rest = divmod(elapsed, interval + work.save_seconds)
        trained = min(work.left, n_saves * interval + min(rest, interval))
        kept = trained if is_saved else min(trained, n_saves * interval)
        self.kept += kept * share
        self.thrown += (trained - kept) * share
        self.saved += max(0.0, elapsed - trained) * share
        work.left -= kept
        self._count(work, -1)
        work.lane = None

    @property
    def _save_interval(self) -> float:
        return 60.0 * self.space.compute.save_minutes

    def _share(self, work: _Work) -> float:
        """How many nodes' worth of resources the lane takes."""
        whole = self.machines.resources
        return max(amount / whole[name] for name, amount in Footprint.of(work.pace.lane).in_all.items() if amount)

    def _count(self, work: _Work, sign: int) -> None:
        self.busy += sign * self._share(work)
        self.calls_per_second += sign / work.pace.step_seconds
        self.bytes_per_second += sign * work.pace.checkpoint_bytes / self._save_interval
        self.most_calls = max(self.most_calls, self.calls_per_second)
        self.most_bytes = max(self.most_bytes, self.bytes_per_second)
