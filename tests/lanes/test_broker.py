"""The broker without Ray: tasks find their lanes, outcomes their way back, and causes are told as they were."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from raysplit.design.tasks import Measured, Outcome, Task
from raysplit.design.tree import Trial
from raysplit.errors import LaneError, RunError
from raysplit.lanes.broker import CLOSE, IDLE, Broker
from raysplit.pool.lane_pool import PUT_OFF_SECONDS
from raysplit.pool.lane_state import LEAST_KNOWN_SECONDS, LEAST_SILENCE_SECONDS, STALLED, LaneState
from raysplit.pool.placement import Footprint, Machine
from raysplit.pool.troubles import Kind, Trouble
from tests.pool.simulated_cluster import footprint

STALL_SECONDS = 600.0


@dataclass
class FakeJobs:
    """Machines that do nothing; a test ends their lanes."""

    n_nodes: int = 2
    ends: dict[int, "asyncio.Future[None]"] = field(default_factory=dict)
    killed: list[int] = field(default_factory=list)
    cleared: list[int] = field(default_factory=list)
    wanted: Sequence[Footprint] = ()
    other_sweep_waits: bool = False

    def footprint_of(self, task: Task) -> Footprint:
        return footprint()

    def nodes(self) -> list[Machine]:
        each = {"CPU": 1.0}
        return [Machine(name=f"n{i}", address=f"10.0.0.{i}", total=each, free=each) for i in range(self.n_nodes)]

    def open(self, lane: LaneState, broker: Any) -> Awaitable[None]:
        self.ends[lane.number] = asyncio.get_running_loop().create_future()
        return self.ends[lane.number]

    def kill_worker(self, lane: LaneState) -> None:
        self.killed.append(lane.number)

    def clear_away(self, lane: LaneState) -> None:
        self.cleared.append(lane.number)

    def others_wait(self) -> bool:
        return self.other_sweep_waits

    def want(self, footprints: Sequence[Footprint]) -> None:
        self.wanted = footprints


@dataclass
class FakeLaw:
    """A law actor as far as the broker asks it of tasks; it answers ``says``, raises it, or is silent for ever."""

    says: Outcome | Exception | None = None
    is_silent: bool = False
    asked: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.recorded = SimpleNamespace(remote=self._recorded)
        self.tell_waiting = SimpleNamespace(remote=lambda why: None)

    async def _recorded(self, trial: Trial, milestone: int) -> Outcome | None:
        self.asked.append((trial.name, milestone))
        if self.is_silent:
            await asyncio.get_running_loop().create_future()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def task(milestone: int = 100, n_params: int = 14_000) -> Task:
    trunk = Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=milestone, milestones=(milestone,))
    return Task(trial=trunk, milestone=milestone)


def measured(loss: float = 2.0) -> Measured:
    return Measured(losses={"a": loss}, tokens=100, wall_seconds=1.0)


@dataclass
class Told:
    """A broker, its machines, and the time by which it goes."""

    broker: Broker
    jobs: FakeJobs
    clock: Time

    async def hand_in(self, asked_for: Task) -> "asyncio.Task[Outcome]":
        queued = asyncio.ensure_future(self.broker.run(asked_for))
        await asyncio.sleep(0)
        await self.look()
        return queued

    async def look(self, *, seconds: float = 0.0) -> None:
        """Time passes, a second at a time, and the broker looks at its lanes in each."""
        until = self.clock.now + seconds
        while True:
            await self.broker.look()
            await asyncio.sleep(0)
            if self.clock.now >= until:
                return
            self.clock.now = min(until, self.clock.now + 1.0)

    async def up(self, number: int) -> None:
        await self.broker.placed(number, f"worker {number}", None)
        await self.broker.join(number)

    async def end(self, number: int, error: Exception | None = None) -> None:
        """A lane's job ends."""
        if error is None:
            self.jobs.ends[number].set_result(None)
        else:
            self.jobs.ends[number].set_exception(error)
        await asyncio.sleep(0.01)
        await self.look()


def run(story: Callable[[Told], Awaitable[None]], *, n_nodes: int = 2, law: FakeLaw | None = None) -> None:
    async def told() -> None:
        clock, jobs = Time(), FakeJobs(n_nodes=n_nodes)
        actor: Any = law
        await story(Told(Broker(jobs, n_lanes=2, stall_seconds=STALL_SECONDS, clock=clock, law=actor), jobs, clock))

    asyncio.run(asyncio.wait_for(told(), timeout=30))


def test_a_task_opens_a_lane_and_its_outcome_finds_its_way_back() -> None:
    async def story(told: Told) -> None:
        queued = await told.hand_in(task())
        await told.up(0)
        assert await told.broker.fetch(0) == task()
        await told.broker.finish(0, measured())
        assert await queued == measured()
        assert list(told.jobs.ends) == [0]
        again = await told.hand_in(task(milestone=200))
        assert await told.broker.fetch(0) == task(milestone=200), "the lane is kept"
        await told.broker.finish(0, measured())
        await again

    run(story)


def test_a_task_asked_for_twice_is_done_once() -> None:
    async def story(told: Told) -> None:
        first, again = await told.hand_in(task()), await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        other = await told.hand_in(task())
        await told.broker.finish(0, measured())
        assert await first == await again == await other == measured()

    run(story)


def test_an_idle_lane_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysplit.lanes.broker._POLL_SECONDS", 0.01)

    async def story(told: Told) -> None:
        await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        await told.broker.finish(0, measured())
        assert await told.broker.fetch(0) == IDLE

    run(story)


def test_a_hung_lane_is_killed_and_what_it_says_later_counts_for_nothing() -> None:
    async def story(told: Told) -> None:
        queued = await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        await told.broker.progress(0, 10, 3.0)
        await told.look(seconds=LEAST_SILENCE_SECONDS)
        assert told.jobs.killed == []
        await told.look(seconds=2)
        assert told.jobs.killed == [0]
        await told.up(1)
        assert await told.broker.fetch(1) == task()
        assert await told.broker.fetch(0) == CLOSE
        await told.broker.finish(0, measured(9.0))  # the hung one wakes up after all
        assert not queued.done()
        await told.broker.finish(1, measured())
        assert await queued == measured()

    run(story)


def test_what_a_size_takes_for_saving_is_known_once_a_task_of_it_has_ended() -> None:
    async def story(told: Told) -> None:
        await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        await told.look(seconds=2)
        await told.broker.finish(0, measured())
        await told.hand_in(task(milestone=200))
        await told.broker.fetch(0)
        await told.look(seconds=LEAST_KNOWN_SECONDS)
        assert told.jobs.killed == []
        await told.look(seconds=2)
        assert told.jobs.killed == [0]

    run(story)


def test_before_any_progress_loading_may_take_long_but_not_for_ever() -> None:
    async def story(told: Told) -> None:
        await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        await told.look(seconds=STALL_SECONDS)
        assert told.jobs.killed == []
        await told.look(seconds=2)
        assert told.jobs.killed == [0]

    run(story)


def test_a_lane_is_waited_for_as_its_own_steps_and_its_size_before_have_taken() -> None:
    async def story(told: Told) -> None:
        await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        for tokens in range(3):  # a step takes so long
            await told.look(seconds=30)
            await told.broker.progress(0, tokens, 3.0)
        await told.look(seconds=STALLED * 30)
        assert told.jobs.killed == []
        await told.broker.finish(0, measured())
        await told.hand_in(task(milestone=200))
        await told.broker.fetch(0)
        await told.look(seconds=STALLED * STALLED * 30)
        assert told.jobs.killed == [], "reading held-out text once took so long"
        await told.look(seconds=2)
        assert told.jobs.killed == [0]

    run(story)


def test_lanes_are_not_blamed_for_the_time_in_which_the_broker_was_held_up() -> None:
    async def story(told: Told) -> None:
        await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        await told.broker.progress(0, 10, 3.0)
        await told.look()
        told.clock.now += 1000
        await told.look(seconds=LEAST_SILENCE_SECONDS - 1)
        assert told.jobs.killed == []

    run(story)


async def lose_three(told: Told, words: Sequence[Trouble], error: Exception) -> "asyncio.Task[Outcome]":
    queued = await told.hand_in(task())
    for number in range(3):
        await told.look(seconds=30)
        await told.up(number)
        assert await told.broker.fetch(number) == task()
        for trouble in words:
            await told.broker.say(number, trouble)
        await told.end(number, error)
    return queued


FAILED = AssertionError("why, as Ray has it")
CODE = Trouble(kind=Kind.CODE, cause="AssertionError: why (rank 1; lane-0.log)")
COLLATERAL = Trouble(kind=Kind.MACHINE, cause="RuntimeError: connection closed by peer (rank 0; lane-0.log)")


def test_the_first_last_words_are_the_cause_of_a_failure() -> None:
    async def story(told: Told) -> None:
        queued = await lose_three(told, [CODE, COLLATERAL], FAILED)
        with pytest.raises(LaneError, match=r"3 times while training it: AssertionError: why \(rank 1; lane-0.log\)$"):
            await queued
        report = await told.broker.report()
        assert report.notices[0].startswith("lane 0 was lost over n14000-s0-trunk: AssertionError: why")
        assert told.jobs.cleared == [0, 1, 2]

    run(story)


def test_where_no_worker_had_words_what_ray_says_is_the_cause() -> None:
    async def story(told: Told) -> None:
        queued = await lose_three(told, [], FAILED)
        with pytest.raises(LaneError, match=r"3 times while training it: AssertionError: why, as Ray has it$"):
            await queued

    run(story)


def test_a_worker_killed_without_a_word_is_the_cause_whatever_the_others_say() -> None:
    async def story(told: Told) -> None:
        killed = ray.exceptions.RayActorError(error_msg="SIGKILL")
        queued = await lose_three(told, [COLLATERAL], killed)
        assert not queued.done(), "machines are lost more than once"
        assert "its process has died" in (await told.broker.report()).notices[0]
        queued.cancel()

    run(story)


def test_what_cannot_be_trained_as_it_is_set_up_is_said_at_once() -> None:
    async def story(told: Told) -> None:
        queued = await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        await told.broker.say(0, Trouble(kind=Kind.SET_UP, cause="CheckpointError: of another model"))
        await told.end(0, FAILED)
        for waiting in (queued, told.broker.run(task(milestone=200))):
            with pytest.raises(RunError, match="of another model"):
                await waiting

    run(story)


def test_lanes_that_cannot_start_end_the_sweep_with_their_cause() -> None:
    async def story(told: Told) -> None:
        queued = await told.hand_in(task())
        for number in range(3):
            await told.look(seconds=60)
            await told.broker.say(number, Trouble(kind=Kind.CODE, cause="CorpusError: no such file"))
            await told.end(number, FAILED)
        for waiting in (queued, told.broker.run(task())):
            with pytest.raises(LaneError, match=r"^lanes could not start 3 times in a row: CorpusError: no such file$"):
                await waiting

    run(story)


def test_a_lane_lost_for_good_is_no_concern_of_the_others() -> None:
    async def story(told: Told) -> None:
        first, second = await told.hand_in(task()), await told.hand_in(task(milestone=200))
        for number in (0, 1):
            await told.up(number)
            await told.broker.fetch(number)
        told.jobs.n_nodes = 1
        await told.end(1, ray.exceptions.RayActorError(error_msg="its node died"))
        await told.broker.finish(0, measured())
        assert await told.broker.fetch(0) == task(milestone=200)
        await told.broker.finish(0, measured())
        assert await first == await second == measured()

    run(story)


KILLED = ray.exceptions.RayActorError(error_msg="SIGKILL")


def test_a_lane_that_dies_after_it_recorded_its_outcome_has_done_its_task() -> None:
    law = FakeLaw(says=measured())

    async def story(told: Told) -> None:
        queued = await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        await told.end(0, KILLED)
        assert await queued == measured()
        await told.look(seconds=5)
        assert list(told.jobs.ends) == [0], "no lane is started for what is done"
        assert "lane 0 was lost" in (await told.broker.report()).notices[0]

    run(story, law=law)
    assert law.asked == [("n14000-s0-trunk", 100)]


def test_a_lane_that_hangs_after_it_recorded_its_outcome_has_done_its_task() -> None:
    async def story(told: Told) -> None:
        queued = await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        await told.broker.progress(0, 10, 3.0)
        await told.look(seconds=LEAST_SILENCE_SECONDS + 2)
        assert told.jobs.killed == [0]
        assert await queued == measured()

    run(story, law=FakeLaw(says=measured()))


@pytest.mark.parametrize(
    "law",
    [FakeLaw(), FakeLaw(is_silent=True), FakeLaw(says=ray.exceptions.ActorUnavailableError("restarting", None)), None],
    ids=["knows nothing", "is silent", "is away", "is none"],
)
def test_a_task_whose_outcome_no_law_knows_is_tried_again(law: FakeLaw | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysplit.lanes.broker._RECORDED_SECONDS", 0.001)

    async def story(told: Told) -> None:
        queued = await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        await told.end(0, KILLED)
        await told.up(1)
        assert await told.broker.fetch(1) == task()
        queued.cancel()

    run(story, law=law)


def test_a_task_that_is_more_than_its_outcome_is_not_done_with_it() -> None:
    to_export = replace(task(), export_to="experts/code")

    async def story(told: Told) -> None:
        queued = await told.hand_in(to_export)
        await told.up(0)
        await told.broker.fetch(0)
        await told.end(0, KILLED)
        await told.up(1)
        assert await told.broker.fetch(1) == to_export
        queued.cancel()

    run(story, law=FakeLaw(says=measured()))


FULL = Trouble(kind=Kind.STORAGE, cause="StorageError: no space left")


def test_a_lane_outlives_storage_that_is_away_and_tries_again_as_soon_as_it_is_time() -> None:
    async def story(told: Told) -> None:
        queued = await told.hand_in(task())
        await told.up(0)
        for _ in range(2):
            assert await told.broker.fetch(0) == task(), "the second time at once"
            assert await told.broker.put_off(0, FULL)
        for pause in (4, 5, 5):
            waiting = asyncio.ensure_future(told.broker.fetch(0))
            await told.look(seconds=pause - 1)
            assert not waiting.done()
            await told.look(seconds=2)
            assert await waiting == task()
            assert await told.broker.put_off(0, FULL)
        await told.look(seconds=6)
        assert await told.broker.fetch(0) == task()
        await told.broker.finish(0, measured())
        assert await queued == measured()
        assert list(told.jobs.ends) == [0], "no other lane was started"
        assert (await told.broker.report()).notices == (
            "lane 0 could not carry out n14000-s0-trunk: StorageError: no space left",
        ), "once, not at every try"

    run(story)


def test_a_lane_whose_storage_stays_away_ends_as_it_may_be_its_node_s() -> None:
    async def story(told: Told) -> None:
        queued = await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        assert await told.broker.put_off(0, FULL)
        await told.look(seconds=PUT_OFF_SECONDS)
        await told.broker.fetch(0)
        assert not await told.broker.put_off(0, FULL)
        await told.end(0, FAILED)
        await told.look(seconds=10)
        await told.up(1)
        assert await told.broker.fetch(1) == task()
        queued.cancel()

    run(story)


def test_closed_lanes_are_sent_home_and_those_who_wait_are_told() -> None:
    async def story(told: Told) -> None:
        waiting = await told.hand_in(task())
        await told.up(0)
        await told.broker.fetch(0)
        await told.broker.finish(0, measured())
        await waiting
        idle = asyncio.ensure_future(told.broker.fetch(0))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(told.broker.close())
        assert await idle == CLOSE
        await told.end(0)
        await closing
        assert told.jobs.cleared == [0]
        with pytest.raises(LaneError, match="closed"):
            await told.broker.run(task())

    run(story)
