"""The broker between trials and lanes: trials hand in tasks, lanes fetch them, outcomes find their way back.

An asyncio Ray actor, so that hundreds of waiting trials and lanes cost nothing.

A lane at work that is silent for `STALLED` times as long as lanes with a model of that size have ever been silent and
still ended well, and for at least `compute.stall_seconds`, has stalled: its first worker is killed, which Ray Train
answers with a new worker group, and its task goes to the next free lane.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.actor import ActorHandle

from raysplit.design.tasks import Measured, Outcome, Task
from raysplit.errors import LaneError
from raysplit.sweep.causes import cause_of, own_error

_MAX_TRIES = 3
"""A task whose lane died this often is given up; a lane that cannot start this often, one after another, ends all."""
STALLED = 10.0
_LOOK_SECONDS = 1.0
"""How often lanes are looked at for having stalled."""
_POLL_SECONDS = 20.0
"""A lane without work asks again after this time, so that its collectives never wait for ever."""

_MAX_WAITING = 1000
"""Calls that may wait in the broker at once."""

IDLE: Literal["idle"] = "idle"
CLOSE: Literal["close"] = "close"
Order = Task | Literal["idle", "close"]


@dataclass(kw_only=True, slots=True, eq=False)
class _Asked:
    task: Task
    done: asyncio.Future[Outcome]
    tries: int = 0
    n_stalls: int = 0
    cause: str = ""
    """What ended the last lane that died over it."""


@dataclass(kw_only=True, slots=True)
class _Lane:
    asked: _Asked | None = None
    tokens: int = 0
    loss: float = float("nan")
    n_starts: int = 0
    n_failed_starts: int = 0
    """Since it last joined."""
    n_deaths: int = 0
    last_words: str = ""
    """Of the first rank that had any, in this start."""
    cause: str = ""
    """What ended the start before this."""
    worker: ActorHandle | None = None
    """Of the first rank, to end the lane's start with."""
    heard: float = 0.0
    """When it last said anything of its task, on the broker's clock."""
    longest_silence: float = 0.0
    """Of its task so far."""
    gone: bool = False
    seen: asyncio.Event = field(default_factory=asyncio.Event)


class Broker:
    """Lanes are numbered from 0; a lane that comes back after a crash is given its task again.

    Each start of a lane has a number too, and calls of an earlier start, still under way when its process died, count
    for nothing: they would take a task to the grave, or end another with an old outcome.
    """

    def __init__(
        self,
        n_lanes: int,
        *,
        stall_seconds: float = float("inf"),
        kill: Callable[[ActorHandle], None] = ray.kill,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes = [_Lane() for _ in range(n_lanes)]
        self._stall_seconds, self._kill, self._clock = stall_seconds, kill, clock
        self._silences: dict[int, float] = {}
        """n_params -> the longest silence of a task that ended well."""
        self._waiting: deque[_Asked] = deque()
        self._arrived = asyncio.Condition()
        self._closed = False
        self._hopeless = ""
        """Why no task will ever end well, once that is clear."""

    # For who wants tasks carried out.

    async def run(self, task: Task) -> Outcome:
        """Have some lane carry out a task.

        A task that is waiting or running already, asked for by a trial that has died since, is not begun twice.

        Raises:
            LaneError: its lanes died over it, or none is left that could do it; with what ended them.
        """
        if self._hopeless:
            raise LaneError(self._hopeless)
        under_way = [*self._waiting, *(lane.asked for lane in self._lanes if lane.asked)]
        asked = next((asked for asked in under_way if asked.task == task), None)
        if asked is None:
            asked = _Asked(task=task, done=asyncio.get_running_loop().create_future())
            async with self._arrived:
                self._waiting.append(asked)
                self._arrived.notify()
        return await asyncio.shield(asked.done)

    async def all_joined(self) -> None:
        """Returns once every lane has started.

        Raises:
            LaneError: one never will; with what ended it.
        """
        await asyncio.gather(*(lane.seen.wait() for lane in self._lanes))
        if self._hopeless:
            raise LaneError(self._hopeless)
        for number, lane in enumerate(self._lanes):
            if lane.gone:
                raise LaneError(f"lane {number} has failed for good{_because(lane.cause)}")

    async def lanes(self) -> list[dict[str, Any]]:
        """What each lane is doing, for the live table."""
        return [
            {
                "task": lane.asked.task if lane.asked else None,
                "tokens": lane.tokens,
                "loss": lane.loss,
                "n_starts": lane.n_starts,
                "n_deaths": lane.n_deaths,
                "cause": lane.cause,
                "gone": lane.gone,
            }
            for lane in self._lanes
        ]

    async def close(self) -> None:
        """Send the lanes home."""
        self._give_up("the lanes are closed")
        async with self._arrived:
            self._closed = True
            self._arrived.notify_all()

    # Of lanes that come and go.

    async def follow(self, number: int, run: list[Awaitable[None]]) -> None:
        """Wait for the end of a lane's Ray Train job, the only item of ``run``: for good, whatever ended it.

        Others take over its task, or everyone who waits hears that no lane is left.
        """
        lane = self._lanes[number]
        try:
            await run[0]
        except Exception as error:
            lane.cause = lane.cause or cause_of(error)
        lane.gone = True
        lane.seen.set()
        async with self._arrived:
            if lane.asked is not None:
                self._waiting.appendleft(lane.asked)
                lane.asked = None
                self._arrived.notify()
        if all(lane.gone for lane in self._lanes):
            self._give_up(f"every lane has ended{_because(lane.cause)}")

    async def say(self, number: int, last_words: str) -> None:
        """What a rank's exception was, before Ray Train hears of it; of several ranks', the first is the cause."""
        lane = self._lanes[number]
        lane.last_words = lane.last_words or last_words

    async def died(self, number: int, how: str, *, without_a_word: bool = False) -> None:
        """A lane's workers have come to an end, and will be started again.

        Args:
            number: of the lane.
            how: what Ray Train says of it.
            without_a_word: one was killed, and the last words of others are about its absence.
        """
        lane = self._lanes[number]
        lane.cause = how if without_a_word else lane.last_words or how
        lane.last_words = ""
        lane.n_deaths += 1
        if lane.asked is not None:
            lane.asked.cause = lane.cause
            return
        lane.n_failed_starts += 1
        if lane.n_failed_starts >= _MAX_TRIES:
            self._give_up(f"lane {number} could not start {lane.n_failed_starts} times in a row{_because(lane.cause)}")

    async def join(self, number: int, worker: ActorHandle | None = None) -> int:
        """A lane's worker group has started, or started again after a crash; returns the number of this start.

        Args:
            number: of the lane.
            worker: the actor of its first rank.
        """
        lane = self._lanes[number]
        lane.n_starts += 1
        lane.worker = worker
        lane.seen.set()
        lane.n_failed_starts, lane.last_words = 0, ""
        self._give_back(lane)
        async with self._arrived:
            self._arrived.notify_all()
        return lane.n_starts

    async def watch(self) -> None:
        """Free the tasks of lanes that stall, for as long as the broker lives."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.free_stalled()

    async def free_stalled(self) -> list[int]:
        """Give the tasks of stalled lanes to others, and kill what hangs; returns the numbers of those lanes."""
        now, stalled = self._clock(), []
        for number, lane in enumerate(self._lanes):
            if lane.asked is None or now - lane.heard <= self._patience(lane.asked.task):
                continue
            stalled.append(number)
            lane.asked.n_stalls += 1
            lane.n_starts += 1  # whatever that start may still say counts for nothing
            self._give_back(lane)
            if lane.worker is not None:
                with contextlib.suppress(ray.exceptions.RayError, ValueError):  # it may have died of itself
                    self._kill(lane.worker)
        if stalled:
            async with self._arrived:
                self._arrived.notify_all()
        return stalled

    # What lanes say.

    async def fetch(self, number: int, start: int) -> Order:
        """The lane's next task, or what to do without one: ask again, or end."""
        lane = self._lanes[number]

        def closed() -> bool:
            return self._closed or start != lane.n_starts

        async with self._arrived:
            try:
                await asyncio.wait_for(self._arrived.wait_for(lambda: self._waiting or closed()), _POLL_SECONDS)
            except TimeoutError:
                return IDLE
            if closed():
                return CLOSE
            asked = self._waiting.popleft()
        asked.tries += 1
        lane.asked, lane.tokens, lane.loss = asked, 0, float("nan")
        lane.heard, lane.longest_silence = self._clock(), 0.0
        return asked.task

    async def progress(self, number: int, tokens: int, loss: float) -> None:
        lane = self._lanes[number]
        lane.tokens, lane.loss = tokens, loss
        self._hear(lane)

    async def finish(self, number: int, start: int, outcome: Outcome) -> None:
        """The lane's task has an outcome."""
        lane = self._lanes[number]
        if start != lane.n_starts:
            return
        self._hear(lane)
        asked, lane.asked = lane.asked, None
        if asked is None:
            return
        if isinstance(outcome, Measured):
            n_params = asked.task.trial.n_params
            self._silences[n_params] = max(self._silences.get(n_params, 0.0), lane.longest_silence)
        if not asked.done.done():
            asked.done.set_result(outcome)

    # Inside.

    def _give_up(self, why: str) -> None:
        """Tell everyone who waits for a task, or for the lanes to start."""
        self._hopeless = self._hopeless or why
        for asked in (*self._waiting, *(lane.asked for lane in self._lanes if lane.asked)):
            if not asked.done.done():
                asked.done.set_exception(LaneError(self._hopeless))
        self._waiting.clear()
        for lane in self._lanes:
            lane.seen.set()

    def _give_back(self, lane: _Lane) -> None:
        """Free a lane of its task: for the next lane, or given up when it has cost too many."""
        asked, lane.asked = lane.asked, None
        if asked is None:
            return
        if asked.tries < _MAX_TRIES:
            self._waiting.appendleft(asked)
        elif not asked.done.done():
            trial, stalls = (
                asked.task.trial,
                f", {asked.n_stalls} of them after it had stalled" if asked.n_stalls else "",
            )
            asked.done.set_exception(
                LaneError(
                    f"{trial.name}: its lane died {asked.tries} times while training it{stalls}{_because(asked.cause)}"
                )
            )

    def _patience(self, task: Task) -> float:
        """Seconds that a lane may be silent over a task."""
        return max(self._stall_seconds, STALLED * self._silences.get(task.trial.n_params, 0.0))

    def _hear(self, lane: _Lane) -> None:
        now = self._clock()
        lane.longest_silence = max(lane.longest_silence, now - lane.heard)
        lane.heard = now


def start_broker(n_lanes: int, *, stall_seconds: float = float("inf")) -> ActorHandle:
    """A broker as an actor of this driver."""
    broker = ray.remote(num_cpus=0, max_concurrency=_MAX_WAITING)(Broker).remote(n_lanes, stall_seconds=stall_seconds)
    broker.watch.remote()
    return broker


@dataclass(frozen=True, slots=True)
class LaneQueue:
    """Hands tasks to the lanes, from any process on the cluster."""

    broker: ActorHandle

    def submit(self, task: Task) -> Future[Outcome]:
        """As `raysplit.sweep.backend.Backend` has it."""
        told: Future[Outcome] = Future()

        def tell(answer: Future[Outcome]) -> None:
            try:
                told.set_result(answer.result())
            except Exception as error:
                told.set_exception(lane_error(error))

        self.broker.run.remote(task).future().add_done_callback(tell)
        return told


def lane_error(error: Exception) -> Exception:
    """The broker's own error, or the word that it has died."""
    if (ours := own_error(error)) is not None:
        return ours
    if isinstance(error, ray.exceptions.RayActorError):
        return LaneError(f"the process that hands out trials has ended: {cause_of(error)}")
    return error


def _because(cause: str) -> str:
    return f": {cause}" if cause else ""
