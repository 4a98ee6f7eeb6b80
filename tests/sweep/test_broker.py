"""The broker without Ray: tasks survive lanes that die, hang or end, and a lane that is merely slow is left alone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

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
        await broker.leave(1)
        with pytest.raises(RuntimeError, match="every lane has ended"):
            await asked
        with pytest.raises(RuntimeError, match="every lane has ended"):
            await broker.run(body())

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
