"""The broker without Ray: tasks survive lanes that die, hang or end, and a lane that is merely slow is left alone."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from raysplit.design.tasks import Failed, Measured, Outcome, Task
from raysplit.design.tree import Trial
from raysplit.errors import LaneError
from raysplit.sweep.broker import CLOSE, IDLE, STALLED, Broker

STALL_SECONDS = 60.0


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def task(n_params: int = 14_000, milestone: int = 100) -> Task:
    trunk = Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=milestone, milestones=(milestone,))
    return Task(trial=trunk, milestone=milestone)


def measured(loss: float = 2.0) -> Measured:
    return Measured(losses={"a": loss}, tokens=100, wall_seconds=1.0)


def run(story: Callable[[Broker, Time, list[str]], Awaitable[None]], *, n_lanes: int = 2) -> None:
    """Tell a story to a broker whose lanes have all started, once."""

    async def told() -> None:
        clock, killed = Time(), []  # type: ignore[var-annotated]
        broker = Broker(n_lanes, stall_seconds=STALL_SECONDS, kill=killed.append, clock=clock)
        for lane in range(n_lanes):
            assert await broker.join(lane, f"worker {lane}") == 1
        await story(broker, clock, killed)

    asyncio.run(asyncio.wait_for(told(), timeout=30))


async def hand_in(broker: Broker, asked_for: Task) -> "asyncio.Task[Outcome]":
    asked = asyncio.ensure_future(broker.run(asked_for))
    await asyncio.sleep(0)
    return asked


def test_a_lane_that_says_nothing_is_killed_and_another_takes_its_task() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, task())
        assert await broker.fetch(0, 1) == task()
        clock.now += STALL_SECONDS
        assert await broker.free_stalled() == []
        clock.now += 1
        assert await broker.free_stalled() == [0]
        assert killed == ["worker 0"]
        assert await broker.fetch(1, 1) == task()
        await broker.finish(0, 1, measured(9.0))  # the hung one wakes up after all
        assert not asked.done()
        await broker.finish(1, 1, measured())
        assert await asked == measured()
        assert await broker.free_stalled() == [], "an idle lane does not stall"
        assert await broker.join(0, "worker 0 again") == 3, "and comes back"

    run(story)


def test_a_lane_that_speaks_up_now_and_then_does_not_stall() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        await hand_in(broker, task())
        await broker.fetch(0, 1)
        for tokens in range(10):
            clock.now += STALL_SECONDS
            assert await broker.free_stalled() == []
            await broker.progress(0, tokens, 3.0)
        clock.now += STALL_SECONDS + 1
        assert await broker.free_stalled() == [0]

    run(story)


def test_a_size_known_to_be_silent_for_long_is_waited_for_longer() -> None:
    silent = STALL_SECONDS / 2

    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        await hand_in(broker, task())
        await broker.fetch(0, 1)
        clock.now += silent  # it loads, compiles, reads held-out text
        await broker.finish(0, 1, measured())
        await hand_in(broker, task(milestone=200))
        await hand_in(broker, task(n_params=28_000))
        await broker.fetch(0, 1)
        await broker.fetch(1, 1)
        clock.now += STALL_SECONDS + 1
        assert await broker.free_stalled() == [1], "the other size has shown nothing of the kind"
        clock.now += STALLED * silent - STALL_SECONDS - 1
        assert await broker.free_stalled() == []
        clock.now += 1
        assert await broker.free_stalled() == [0]

    run(story)


def test_a_task_that_stalls_every_lane_fails_with_its_reason() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, task())
        start = 1
        for lane in (0, 1, 0):
            await broker.fetch(lane, start)
            clock.now += STALL_SECONDS + 1
            assert await broker.free_stalled() == [lane]
            start = await broker.join(0, "again") if lane == 1 else start
        with pytest.raises(LaneError, match="3 times while training it, 3 of them after it had stalled"):
            await asked
        assert len(killed) == 3

    run(story)


def test_a_task_whose_lane_dies_is_given_again_three_times() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, task())
        for start in (1, 2, 3):
            assert await broker.fetch(0, start) == task()
            await broker.join(0)
        with pytest.raises(LaneError, match=r"^n14000-s0-trunk: its lane died 3 times while training it$"):
            await asked

    run(story)


def test_the_last_lane_to_end_tells_those_who_wait() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        jobs = [asyncio.get_running_loop().create_future() for _ in range(2)]
        following = [asyncio.ensure_future(broker.follow(lane, [job])) for lane, job in enumerate(jobs)]
        asked = await hand_in(broker, task())
        await broker.fetch(0, 1)
        jobs[0].set_result(None)
        await following[0]
        assert not asked.done()
        assert [lane["gone"] for lane in await broker.lanes()] == [True, False]
        assert await broker.fetch(1, 1) == task(), "the other has taken it over"
        jobs[1].set_exception(OSError("disk full"))
        await following[1]
        for waiting in (asked, broker.run(task()), broker.all_joined()):
            with pytest.raises(LaneError, match=r"^every lane has ended: OSError: disk full$"):
                await waiting

    run(story)


def test_a_lane_that_ends_before_it_has_started_is_waited_for_no_longer() -> None:
    async def story() -> None:
        broker = Broker(2)
        joined = asyncio.ensure_future(broker.all_joined())
        await broker.join(0)
        await broker.died(1, "its node is gone (rank 0)")
        job = asyncio.get_running_loop().create_future()
        job.set_exception(RuntimeError("no nodes"))
        await broker.follow(1, [job])
        with pytest.raises(LaneError, match=r"^lane 1 has failed for good: its node is gone \(rank 0\)$"):
            await joined

    asyncio.run(asyncio.wait_for(story(), timeout=30))


def test_a_task_asked_for_twice_is_done_once() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        first, again = await hand_in(broker, task()), await hand_in(broker, task())
        await broker.fetch(0, 1)
        other = await hand_in(broker, task())
        await broker.finish(0, 1, measured())
        assert await first == await again == await other == measured()

    run(story)


def test_an_idle_lane_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysplit.sweep.broker._POLL_SECONDS", 0.01)

    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        assert await broker.fetch(0, 1) == IDLE

    run(story)


def test_the_first_last_words_are_the_cause_of_a_failure() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, task())
        for start in (1, 2, 3):
            assert await broker.fetch(0, start) == task()
            await broker.say(0, "AssertionError: why (rank 1; lane-0.log)")
            await broker.say(0, "RuntimeError: connection closed by peer (rank 0; lane-0.log)")
            await broker.died(0, "AssertionError: why (rank 1)")
            await broker.join(0)
        with pytest.raises(LaneError, match=r"3 times while training it: AssertionError: why \(rank 1; lane-0.log\)$"):
            await asked

    run(story)


def test_a_worker_killed_without_a_word_is_the_cause_whatever_the_others_say() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, task())
        for start in (1, 2, 3):
            await broker.fetch(0, start)
            await broker.say(0, "RuntimeError: connection closed by peer (rank 0; lane-0.log)")
            await broker.died(0, "its process has died (rank 1)", without_a_word=True)
            await broker.join(0)
        with pytest.raises(LaneError, match=r"3 times while training it: its process has died \(rank 1\)$"):
            await asked

    run(story)


def test_where_no_worker_had_words_what_ray_says_is_the_cause() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, task())
        for start in (1, 2, 3):
            await broker.fetch(0, start)
            if start == 1:
                await broker.say(0, "MemoryError (rank 0; lane-0.log)")
            await broker.died(0, "ImportError: no module (rank 0)")
            await broker.join(0)
        with pytest.raises(LaneError, match=r"3 times while training it: ImportError: no module \(rank 0\)$"):
            await asked

    run(story)


def test_a_task_that_costs_too_many_lanes_is_no_concern_of_the_others() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        costly, other = await hand_in(broker, task()), await hand_in(broker, task(milestone=200))
        for start in (1, 2, 3):
            assert await broker.fetch(0, start) == task()
            await broker.say(0, "AssertionError: why")
            await broker.died(0, "")
            await broker.join(0)
        with pytest.raises(LaneError, match="AssertionError: why"):
            await costly
        await broker.fetch(1, 1)
        await broker.finish(1, 1, measured())
        assert await other == measured()
        again = await hand_in(broker, task())
        assert await broker.fetch(0, 4) == task(), "who asks for it again has it tried again"
        await broker.finish(0, 4, Failed(why="it diverged"))
        assert await again == Failed(why="it diverged")

    run(story)


def test_closed_lanes_are_sent_home_and_those_who_wait_are_told() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        idle = asyncio.ensure_future(broker.fetch(1, 1))
        await asyncio.sleep(0)
        await broker.close()
        assert await idle == CLOSE
        with pytest.raises(LaneError, match="closed"):
            await broker.run(task())

    run(story)


def test_a_lane_that_cannot_start_ends_the_sweep_with_its_cause() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        for _ in range(2):
            await broker.died(0, "CorpusError: no such file")
        await broker.join(0)
        for _ in range(2):
            await broker.died(0, "CorpusError: no such file")
        waiting = await hand_in(broker, task())
        assert not waiting.done(), "it did start in between"
        await broker.died(0, "CorpusError: no such file")
        for ended in (waiting, broker.run(task()), broker.all_joined()):
            with pytest.raises(
                LaneError, match=r"^lane 0 could not start 3 times in a row: CorpusError: no such file$"
            ):
                await ended

    run(story)
