"""The broker between trials and lanes: trials hand in tasks, lanes fetch them, results find their way back.

An asyncio Ray actor, so that hundreds of waiting trials and lanes cost nothing.

A lane at work that is silent for `STALLED` times as long as lanes with a model of that size have ever been silent and
still ended well, and for at least `compute.stall_seconds`, has stalled: its first worker is killed, which Ray Train
answers with a new worker group, and its task goes to the next free lane.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle

from raysplit.errors import RaysplitError

_MAX_TRIES = 3
"""A task whose lane died this often is reported as failed instead of taking the next lane down; a lane that cannot
start this often, one after another, ends the sweep.
"""
_HOPELESS_TASKS = 2
"""So many tasks lost before any went well are no fault of the tasks: they end the sweep too."""
STALLED = 10.0
_LOOK_SECONDS = 1.0
"""How often lanes are looked at for having stalled."""
_POLL_SECONDS = 20.0
"""A lane without work asks again after this time, so that its collectives never wait for ever."""

_MAX_WAITING = 1000
"""Calls that may wait in the broker at once."""

IDLE = "idle"
CLOSE = "close"


@dataclass(kw_only=True, slots=True, eq=False)
class _Task:
    body: dict[str, Any]
    done: asyncio.Future[dict[str, Any]]
    tries: int = 0
    n_stalls: int = 0
    cause: str = ""
    """What ended the last lane that died over it."""


@dataclass(kw_only=True, slots=True)
class _LaneState:
    task: _Task | None = None
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
    for nothing: they would take a task to the grave, or end another with an old result.
    """

    def __init__(
        self,
        n_lanes: int,
        *,
        stall_seconds: float = float("inf"),
        kill: Callable[[ActorHandle], None] = ray.kill,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes = [_LaneState() for _ in range(n_lanes)]
        self._stall_seconds, self._kill, self._clock = stall_seconds, kill, clock
        self._silences: dict[int, float] = {}
        """n_params -> the longest silence of a task that ended well."""
        self._waiting: deque[_Task] = deque()
        self._arrived = asyncio.Condition()
        self._closed = False
        self._n_done, self._n_lost = 0, 0
        """Tasks that ended well, and those that cost too many lanes."""
        self._hopeless = ""

    async def run(self, body: dict[str, Any]) -> dict[str, Any]:
        """Have some lane carry out a task; returns its result, or ``{"failed": reason}``.

        A task that is waiting or running already, asked for by a trial that has died since, is not begun twice.

        Raises:
            RaysplitError: no lane is left that could do it; with what ended them.
        """
        if self._hopeless:
            raise RaysplitError(self._hopeless)
        under_way = [*self._waiting, *(state.task for state in self._lanes if state.task)]
        task = next((task for task in under_way if task.body == body), None)
        if task is None:
            task = _Task(body=body, done=asyncio.get_running_loop().create_future())
            async with self._arrived:
                self._waiting.append(task)
                self._arrived.notify()
        return await asyncio.shield(task.done)

    async def leave(self, lane: int) -> None:
        """A lane has ended for good: others take over its task, or every waiting task hears that none is left."""
        state = self._lanes[lane]
        state.gone = True
        state.seen.set()
        async with self._arrived:
            if state.task is not None:
                self._waiting.appendleft(state.task)
                state.task = None
                self._arrived.notify()
            if self.n_alive() == 0:
                self._give_up(f"every lane has ended{_because(state.cause)}")

    def n_alive(self) -> int:
        """Lanes that have not ended for good."""
        return sum(not state.gone for state in self._lanes)

    async def say(self, lane: int, last_words: str) -> None:
        """What a rank's exception was, before Ray Train hears of it; of several ranks', the first is the cause."""
        state = self._lanes[lane]
        state.last_words = state.last_words or last_words

    async def died(self, lane: int, how: str, *, without_a_word: bool = False) -> None:
        """A lane's workers have come to an end, and will be started again.

        Args:
            lane: its number.
            how: what Ray Train says of it.
            without_a_word: one was killed, and the last words of others are about its absence.
        """
        state = self._lanes[lane]
        state.cause = how if without_a_word else state.last_words or how
        state.last_words = ""
        state.n_deaths += 1
        if state.task is not None:
            state.task.cause = state.cause
            return
        state.n_failed_starts += 1
        if state.n_failed_starts >= _MAX_TRIES:
            self._give_up(f"lane {lane} could not start {state.n_failed_starts} times in a row{_because(state.cause)}")

    async def hopeless(self) -> str:
        """Why no task will ever end well, once that is clear; empty before."""
        return self._hopeless

    def _give_up(self, why: str) -> None:
        """Tell everyone who waits for a task."""
        self._hopeless = self._hopeless or why
        for task in (*self._waiting, *(state.task for state in self._lanes if state.task)):
            if not task.done.done():
                task.done.set_exception(RaysplitError(self._hopeless))
        self._waiting.clear()

    async def join(self, lane: int, worker: ActorHandle | None = None) -> int:
        """A lane's worker group has started, or started again after a crash; returns the number of this start.

        Args:
            lane: its number.
            worker: the actor of its first rank.
        """
        state = self._lanes[lane]
        state.n_starts += 1
        state.worker = worker
        state.seen.set()
        state.n_failed_starts, state.last_words = 0, ""
        self._give_back(state)
        async with self._arrived:
            self._arrived.notify_all()
        return state.n_starts

    async def watch(self) -> None:
        """Free the tasks of lanes that stall, for as long as the broker lives."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.free_stalled()

    async def free_stalled(self) -> list[int]:
        """Give the tasks of stalled lanes to others, and kill what hangs; returns the numbers of those lanes."""
        now, stalled = self._clock(), []
        for number, state in enumerate(self._lanes):
            if state.task is None or now - state.heard <= self._patience(state.task):
                continue
            stalled.append(number)
            state.task.n_stalls += 1
            state.n_starts += 1  # whatever that start may still say counts for nothing
            self._give_back(state)
            if state.worker is not None:
                with contextlib.suppress(ray.exceptions.RayError, ValueError):  # it may have died of itself
                    self._kill(state.worker)
        if stalled:
            async with self._arrived:
                self._arrived.notify_all()
        return stalled

    def _patience(self, task: _Task) -> float:
        """Seconds that a lane may be silent over a task."""
        return max(self._stall_seconds, STALLED * self._silences.get(_n_params(task), 0.0))

    def _give_back(self, state: _LaneState) -> None:
        """Free a lane of its task: for the next lane, or as failed when it has cost too many."""
        task, state.task = state.task, None
        if task is None:
            return
        if task.tries < _MAX_TRIES:
            self._waiting.appendleft(task)
        elif not task.done.done():
            stalls = f", {task.n_stalls} of them after it had stalled" if task.n_stalls else ""
            failed = f"its lane died {task.tries} times while training it{stalls}{_because(task.cause)}"
            task.done.set_result({"failed": failed})
            self._n_lost += 1
            if self._n_lost >= _HOPELESS_TASKS and not self._n_done:
                self._give_up(f"the first {self._n_lost} trials have failed, the last of them because {failed}")

    def _hear(self, state: _LaneState) -> None:
        now = self._clock()
        state.longest_silence = max(state.longest_silence, now - state.heard)
        state.heard = now

    async def fetch(self, lane: int, start: int) -> dict[str, Any]:
        """The lane's next task; ``{"kind": "idle"}`` when none comes for a while, ``"close"`` at the end."""
        state = self._lanes[lane]

        def closed() -> bool:
            return self._closed or start != state.n_starts

        async with self._arrived:
            try:
                await asyncio.wait_for(self._arrived.wait_for(lambda: self._waiting or closed()), _POLL_SECONDS)
            except TimeoutError:
                return {"kind": IDLE}
            if closed():
                return {"kind": CLOSE}
            task = self._waiting.popleft()
        task.tries += 1
        state.task, state.tokens, state.loss = task, 0, float("nan")
        state.heard, state.longest_silence = self._clock(), 0.0
        return task.body

    async def progress(self, lane: int, tokens: int, loss: float) -> None:
        state = self._lanes[lane]
        state.tokens, state.loss = tokens, loss
        self._hear(state)

    async def finish(self, lane: int, start: int, result: dict[str, Any]) -> None:
        """The lane's task has a result."""
        state = self._lanes[lane]
        if start != state.n_starts:
            return
        self._hear(state)
        task, state.task = state.task, None
        if task is None:
            return
        if "failed" not in result:
            n_params = _n_params(task)
            self._n_done += 1
            self._silences[n_params] = max(self._silences.get(n_params, 0.0), state.longest_silence)
        if not task.done.done():
            task.done.set_result(result)

    async def lanes(self) -> list[dict[str, Any]]:
        """What each lane is doing, for the live table."""
        return [
            {
                "task": state.task.body if state.task else None,
                "tokens": state.tokens,
                "loss": state.loss,
                "n_starts": state.n_starts,
                "n_deaths": state.n_deaths,
                "cause": state.cause,
            }
            for state in self._lanes
        ]

    async def all_joined(self) -> None:
        """Returns once every lane has started."""
        await asyncio.gather(*(state.seen.wait() for state in self._lanes))

    async def close(self) -> None:
        """Send the lanes home."""
        async with self._arrived:
            self._closed = True
            self._arrived.notify_all()


def start_broker(n_lanes: int, *, stall_seconds: float = float("inf")) -> ActorHandle:
    """A broker as an actor of this driver."""
    broker = ray.remote(num_cpus=0, max_concurrency=_MAX_WAITING)(Broker).remote(n_lanes, stall_seconds=stall_seconds)
    broker.watch.remote()
    return broker


def _n_params(task: _Task) -> int:
    return int(task.body["trial"]["n_params"])


def _because(cause: str) -> str:
    return f": {cause}" if cause else ""
