"""The broker between trials and lanes: trials hand in tasks, lanes fetch them, and trials get the outcomes.

It is an asyncio Ray actor, so that hundreds of waiting trials and lanes cost nothing. `raysplit.pool.lane_pool` makes
its decisions. `LaneJobs` carries them out on machines, on Ray `raysplit.lanes.lane_jobs`.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, Protocol

import ray
from ray.actor import ActorHandle

from raysplit.design.tasks import Outcome, Task
from raysplit.errors import LaneError
from raysplit.lanes.causes import cause_of, innermost, own_error, was_killed
from raysplit.lanes.stable import stable_options
from raysplit.pool.lane_pool import NO_MACHINES_SECONDS, LanePool
from raysplit.pool.lane_state import LaneState, QueuedTask
from raysplit.pool.placement import Footprint, Machine
from raysplit.pool.pool_report import PoolReport, report_on, why_quiet
from raysplit.pool.troubles import Kind, Trouble, kind_of

_LOOK_SECONDS = 1.0
"""Time between two looks at lanes and nodes."""
_TELL_SECONDS = 10.0
"""Time between two messages to the law of why nothing happens."""
_POLL_SECONDS = 20.0
"""A lane without work asks again after this time, so that its collectives never wait for ever."""
_END_SECONDS = 60.0
"""How long a lane may take to end once it is lost or told to close, before its remains are cleared away."""
_RECORDED_SECONDS = 5.0
"""How long the law may take to say whether a lost lane's task was done."""
_GRACE_SECONDS = 5.0
"""How long lanes may take to end by themselves where all are told to close."""

_MAX_WAITING = 1000
"""Calls that may wait in the broker at once."""

IDLE: Literal["idle"] = "idle"
CLOSE: Literal["close"] = "close"
Order = Task | Literal["idle", "close"]


class LaneJobs(Protocol):
    """The machines, as the broker uses them; `raysplit.lanes.lane_jobs.RayLaneJobs` on Ray."""

    def footprint_of(self, task: Task) -> Footprint: ...
    def nodes(self) -> Sequence[Machine]: ...
    def open(self, lane: LaneState, broker: Any) -> Awaitable[None]: ...
    def kill_worker(self, lane: LaneState) -> None: ...
    def clear_away(self, lane: LaneState) -> None: ...
    def others_wait(self) -> bool: ...
    def want(self, footprints: Sequence[Footprint]) -> None: ...


class Broker:
    """The broker of one command's lanes. No lane's number is used twice, so late calls of a dead lane are ignored."""

    def __init__(
        self,
        jobs: LaneJobs,
        *,
        n_lanes: int,
        stall_seconds: float,
        no_machines_seconds: float = NO_MACHINES_SECONDS,
        law: ActorHandle | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs, self._law, self._clock = jobs, law, clock
        self._pool = LanePool(
            most_lanes=n_lanes,
            stall_seconds=stall_seconds,
            footprint_of=jobs.footprint_of,
            no_machines_seconds=no_machines_seconds,
            happened=clock(),
        )
        self._following: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()
        self._was_quiet, self._told = False, 0.0

    # Calls of those who want tasks carried out.

    async def run(self, task: Task) -> Outcome:
        """Have some lane carry out a task.

        A task that waits or runs already, because a trial that has died since asked for it, is not begun twice.

        Raises:
            LaneError: its lanes died over it, or none is left that could do it; the message says what ended them.
            RunError: it cannot be trained as it is set up.
        """
        pool = self._pool
        if pool.hopeless is not None:
            raise pool.hopeless
        queued = pool.under_way(task)
        if queued is None:
            queued = QueuedTask(task=task, footprint=pool.footprint_of(task), since=self._clock(), done=Future())
            pool.ask(queued)
            await self._stir()
        return await asyncio.shield(asyncio.wrap_future(queued.done))

    async def report(self) -> PoolReport:
        """A report of what the lanes do, or why nothing happens."""
        return report_on(self._pool, self._clock())

    async def n_blocked(self) -> int:
        """Number of waiting tasks for which the cluster would have to grow."""
        return sum(
            1 for queued in self._pool.queue if queued.footprint in (self._pool.moves.missing, *self._pool.moves.wanted)
        )

    async def close(self) -> None:
        """Tell the lanes to close, and end those that do not."""
        self._pool.closed = True
        self._pool.give_up(LaneError("the lanes are closed"))
        await self._stir()
        if self._following:
            await asyncio.wait(self._following, timeout=_GRACE_SECONDS)
        self._jobs.want(())
        for lane in self._pool.lanes.values():
            self._jobs.clear_away(lane)

    # Calls of lanes.

    async def placed(self, number: int, worker: Any, placement_group: Any) -> None:
        """A lane's workers have been placed; its first rank is the actor ``worker``."""
        if (lane := self._pool.lanes.get(number)) is not None:
            lane.worker, lane.placement_group = worker, placement_group

    async def join(self, number: int) -> None:
        """A lane's workers have come up."""
        self._pool.joined(number, self._clock())

    async def fetch(self, number: int) -> Order:
        """The lane's next task, or what to do without one: ask again, or end."""
        order: Order = IDLE

        def is_known() -> bool:
            nonlocal order
            order = self._order(number)
            return order != IDLE

        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(is_known), _POLL_SECONDS)
        return order

    async def progress(self, number: int, tokens: int, loss: float) -> bool:
        """The lane has got on with its task; returns whether it is to save the task and give it back."""
        return self._pool.heard(number, tokens, loss, self._clock())

    async def finish(self, number: int, outcome: Outcome) -> None:
        """The lane's task has an outcome."""
        self._pool.finished(number, outcome, self._clock())

    async def give_back(self, number: int) -> None:
        """The lane has saved its task, as it was told."""
        self._pool.interrupted(number, self._clock())
        await self._stir()

    async def put_off(self, number: int, trouble: Trouble) -> bool:
        """The lane could not carry its task out for want of storage; returns whether it stays, without the task."""
        stays = self._pool.put_off(number, trouble, self._clock())
        await self._stir()
        return stays

    async def say(self, number: int, trouble: Trouble) -> None:
        """A rank tells its exception before Ray Train hears of it; the first of several ranks' is the cause."""
        if (lane := self._pool.lanes.get(number)) is not None:
            lane.last_words.append(trouble)

    # The loop that looks after lanes.

    async def work(self) -> None:
        """Open and close lanes, for as long as the broker lives."""
        while not self._pool.closed:
            self._wake.clear()
            try:
                await self.look()
            except Exception as error:  # whatever it is, nobody is to wait for lanes that nobody looks after
                self._pool.give_up(LaneError(f"lanes can be looked after no longer: {cause_of(error)}"))
                raise
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_SECONDS)

    async def look(self) -> None:
        """See what has become of nodes and lanes, then open and close lanes."""
        pool, jobs = self._pool, self._jobs
        try:
            nodes = await asyncio.to_thread(jobs.nodes)
            others_wait = await asyncio.to_thread(jobs.others_wait)
        except Exception as error:  # the head is away, of which Ray tells in many ways; lanes go on meanwhile
            pool.tell(f"the cluster does not answer: {cause_of(error)}")
            return
        silent = pool.silent(self._clock())
        outcomes = await asyncio.gather(*map(self._recorded, silent))
        now = self._clock()
        hung = [lane for lane, outcome in zip(silent, outcomes, strict=True) if pool.hung(lane, now, outcome)]
        opened, closed = pool.look(nodes, now, others_wait=others_wait)
        for lane in opened:
            following = asyncio.ensure_future(self._follow(lane))
            self._following.add(following)
            following.add_done_callback(self._following.discard)
        for lane in hung:
            jobs.kill_worker(lane)
        for lane in [lane for lane in pool.lanes.values() if now - (lane.ended or now) > _END_SECONDS]:
            jobs.clear_away(lane)
            pool.gone(lane.number, now)
        with contextlib.suppress(ray.exceptions.RayError):  # asked for again at the next look
            await asyncio.to_thread(jobs.want, pool.moves.wanted)
        if hung or closed:
            self._wake.set()
        await self._tell_lanes()  # also where nothing has changed: a task may have become due again
        await self._tell_law()

    async def _follow(self, lane: LaneState) -> None:
        """Wait for the end of a lane's job, whatever ends it."""
        trouble = outcome = None
        try:
            await self._jobs.open(lane, _myself())
        except Exception as error:
            trouble = _trouble(lane, error)
            outcome = await self._recorded(lane)
        self._pool.gone(lane.number, self._clock(), trouble, outcome)
        self._jobs.clear_away(lane)
        await self._stir()

    async def _recorded(self, lane: LaneState) -> Outcome | None:
        """The outcome of a lost lane's task, if the law has it: a lane may die between recording it and telling of it.

        None where the law does not answer, as while it starts again: the task is then trained again, and recorded once.
        None too for a task that is more than its outcome, as one that is exported, or that is not the sweep's.
        """
        task = lane.task
        if self._law is None or task is None or task.export_to or task.training is not None or task.checkpoints:
            return None
        try:
            told = self._law.recorded.remote(task.trial, task.milestone)
            outcome: Outcome | None = await asyncio.wait_for(told, _RECORDED_SECONDS)
        except Exception:  # whatever it is, a lane that is lost has to be given up
            return None
        return outcome

    def _order(self, number: int) -> Order:
        lane = self._pool.lanes.get(number)
        if self._pool.closed or lane is None or not lane.is_open:
            return CLOSE
        return self._pool.give(number, self._clock()) or IDLE

    async def _stir(self) -> None:
        """Have lanes ask for tasks again, and look after lanes at once."""
        self._wake.set()
        await self._tell_lanes()

    async def _tell_lanes(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _tell_law(self) -> None:
        """Tell the law why nothing happens, for whoever asks for the sweep's status."""
        now = self._clock()
        quiet = why_quiet(self._pool, now)
        is_news = bool(quiet) != self._was_quiet or (quiet and now - self._told >= _TELL_SECONDS)
        if self._law is not None and is_news:
            self._law.tell_waiting.remote(quiet)
            self._was_quiet, self._told = bool(quiet), now


def _trouble(lane: LaneState, error: Exception) -> Trouble:
    """What ended a lane: the error if a worker was killed, else the first trouble that a rank told, else the error."""
    inner = innermost(error)
    if was_killed(error):
        return Trouble(kind=Kind.MACHINE, cause=cause_of(error))
    return lane.last_words[0] if lane.last_words else Trouble(kind=kind_of(inner), cause=cause_of(error))


def _myself() -> Any:
    """This actor, for its lanes to call."""
    if not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return None
    return ray.get_runtime_context().current_actor


def start_broker(jobs: LaneJobs, *, law: ActorHandle | None, **options: Any) -> ActorHandle:
    """A broker as an actor of this driver; ``options`` as `Broker` takes them."""
    placed = ray.remote(max_concurrency=_MAX_WAITING)(Broker).options(**stable_options())
    broker = placed.remote(jobs, law=law, **options)
    broker.work.remote()
    return broker


def lane_error(error: Exception) -> Exception:
    """The broker's own error, or the word that it has died."""
    if (ours := own_error(error)) is not None:
        return ours
    if isinstance(error, ray.exceptions.RayActorError):
        return LaneError(f"the process that hands out trials has ended: {cause_of(error)}")
    return error
