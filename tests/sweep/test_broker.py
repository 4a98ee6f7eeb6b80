"""The broker without Ray: tasks survive lanes that die, hang or end, and a lane that is merely slow is left alone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from raysplit.errors import RaysplitError
from raysplit.sweep.broker import IDLE, STALLED, Broker

STALL_SECONDS = 60.0


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def body(n_params: int = 14_000, milestone: int = 100) -> dict[str, Any]:
    return {"kind": "measure", "trial": {"n_params": n_params}, "milestone": milestone}


def run(story: Callable[[Broker, Time, list[str]], Awaitable[None]], *, n_lanes: int = 2) -> None:
    """Tell a story to a broker whose lanes have all started, once."""

    async def told() -> None:
        clock, killed = Time(), []  # type: ignore[var-annotated]
        broker = Broker(n_lanes, stall_seconds=STALL_SECONDS, kill=killed.append, clock=clock)
        for lane in range(n_lanes):
            assert await broker.join(lane, f"worker {lane}") == 1
        await story(broker, clock, killed)

    asyncio.run(asyncio.wait_for(told(), timeout=30))


async def hand_in(broker: Broker, task: dict[str, Any]) -> "asyncio.Task[dict[str, Any]]":
    asked = asyncio.ensure_future(broker.run(task))
    await asyncio.sleep(0)
    return asked


def test_a_lane_that_says_nothing_is_killed_and_another_takes_its_task() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, body())
        assert await broker.fetch(0, 1) == body()
        clock.now += STALL_SECONDS
        assert await broker.free_stalled() == []
        clock.now += 1
        assert await broker.free_stalled() == [0]
        assert killed == ["worker 0"]
        assert await broker.fetch(1, 1) == body()
        await broker.finish(0, 1, {"losses": {"a": 9.0}})  # the hung one wakes up after all
        assert not asked.done()
        await broker.finish(1, 1, {"losses": {"a": 2.0}})
        assert await asked == {"losses": {"a": 2.0}}
        assert await broker.free_stalled() == [], "an idle lane does not stall"
        assert await broker.join(0, "worker 0 again") == 3, "and comes back"

    run(story)


def test_a_lane_that_speaks_up_now_and_then_does_not_stall() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        await hand_in(broker, body())
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
        await hand_in(broker, body())
        await broker.fetch(0, 1)
        clock.now += silent  # it loads, compiles, reads held-out text
        await broker.finish(0, 1, {"losses": {}})
        await hand_in(broker, body(milestone=200))
        await hand_in(broker, body(n_params=28_000))
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
        asked = await hand_in(broker, body())
        start = 1
        for lane in (0, 1, 0):
            await broker.fetch(lane, start)
            clock.now += STALL_SECONDS + 1
            assert await broker.free_stalled() == [lane]
            start = await broker.join(0, "again") if lane == 1 else start
        assert await asked == {"failed": "its lane died 3 times while training it, 3 of them after it had stalled"}
        assert len(killed) == 3

    run(story)


def test_a_task_whose_lane_dies_is_given_again_three_times() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, body())
        for start in (1, 2, 3):
            assert await broker.fetch(0, start) == body()
            await broker.join(0)
        assert await asked == {"failed": "its lane died 3 times while training it"}

    run(story)


def test_the_last_lane_to_leave_tells_those_who_wait() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, body())
        await broker.fetch(0, 1)
        await broker.leave(0)
        assert not asked.done()
        await broker.died(1, "OSError: disk full")
        await broker.leave(1)
        with pytest.raises(RaysplitError, match=r"^every lane has ended: OSError: disk full$"):
            await asked
        with pytest.raises(RaysplitError, match=r"^every lane has ended: OSError: disk full$"):
            await broker.run(body())
        assert await broker.hopeless() == "every lane has ended: OSError: disk full"

    run(story)


def test_a_task_asked_for_twice_is_done_once() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        first, again = await hand_in(broker, body()), await hand_in(broker, body())
        await broker.fetch(0, 1)
        other = await hand_in(broker, body())
        await broker.finish(0, 1, {"losses": {}})
        assert await first == await again == await other == {"losses": {}}

    run(story)


def test_an_idle_lane_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysplit.sweep.broker._POLL_SECONDS", 0.01)

    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        assert await broker.fetch(0, 1) == {"kind": IDLE}

    run(story)


def test_the_first_last_words_are_the_cause_of_a_failure() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, body())
        for start in (1, 2, 3):
            assert await broker.fetch(0, start) == body()
            await broker.say(0, "AssertionError: why (rank 1; lane-0.log)")
            await broker.say(0, "RuntimeError: connection closed by peer (rank 0; lane-0.log)")
            await broker.died(0, "AssertionError: why (rank 1)")
            await broker.join(0)
        failed = "its lane died 3 times while training it: AssertionError: why (rank 1; lane-0.log)"
        assert await asked == {"failed": failed}
        assert await broker.hopeless() == "", "it may have been the task"

    run(story)


def test_a_worker_killed_without_a_word_is_the_cause_whatever_the_others_say() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, body())
        for start in (1, 2, 3):
            await broker.fetch(0, start)
            await broker.say(0, "RuntimeError: connection closed by peer (rank 0; lane-0.log)")
            await broker.died(0, "its process has died (rank 1)", without_a_word=True)
            await broker.join(0)
        assert await asked == {"failed": "its lane died 3 times while training it: its process has died (rank 1)"}

    run(story)


def test_where_no_worker_had_words_what_ray_says_is_the_cause() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        asked = await hand_in(broker, body())
        for start in (1, 2, 3):
            await broker.fetch(0, start)
            if start == 1:
                await broker.say(0, "MemoryError (rank 0; lane-0.log)")
            await broker.died(0, "ImportError: no module (rank 0)")
            await broker.join(0)
        assert await asked == {"failed": "its lane died 3 times while training it: ImportError: no module (rank 0)"}

    run(story)


async def lose(broker: Broker, milestone: int) -> dict[str, Any]:
    """A task that costs three starts of lane 0."""
    asked = await hand_in(broker, body(milestone=milestone))
    for _ in range(3):
        start = await broker.join(0)
        await broker.fetch(0, start)
        await broker.say(0, "AssertionError: why")
        await broker.died(0, "")
    await broker.join(0)
    return await asked


def test_tasks_that_all_fail_end_the_waiting_of_every_other() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        others = [await hand_in(broker, body(milestone=milestone)) for milestone in (300, 400)]
        await broker.fetch(1, 1)
        await broker.fetch(1, 1)
        first, second = await lose(broker, 100), await lose(broker, 200)
        assert first == second == {"failed": "its lane died 3 times while training it: AssertionError: why"}
        why = "the first 2 trials have failed, the last of them because its lane died 3 times"
        assert (await broker.hopeless()).startswith(why)
        with pytest.raises(RaysplitError, match=why):
            await others[1]
        with pytest.raises(RaysplitError, match="AssertionError: why"):
            await broker.run(body())

    run(story)


def test_tasks_that_fail_beside_others_that_do_not_end_nothing() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        done = await hand_in(broker, body())
        await broker.fetch(1, 1)
        await broker.finish(1, 1, {"losses": {}})
        await done
        for milestone in (100, 200, 300):
            await lose(broker, milestone)
        assert await broker.hopeless() == ""

    run(story)


def test_a_lane_that_cannot_start_ends_the_sweep_with_its_cause() -> None:
    async def story(broker: Broker, clock: Time, killed: list[str]) -> None:
        for _ in range(2):
            await broker.died(0, "CorpusError: no such file")
        await broker.join(0)
        for _ in range(2):
            await broker.died(0, "CorpusError: no such file")
        assert await broker.hopeless() == "", "it did start in between"
        await broker.died(0, "CorpusError: no such file")
        assert await broker.hopeless() == "lane 0 could not start 3 times in a row: CorpusError: no such file"

    run(story)
