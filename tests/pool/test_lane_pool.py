"""Lanes by shape, without Ray: no deadlock, nobody starves, nothing is lost or done twice, whatever machines do."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from raysplit.design.tasks import Measured
from raysplit.errors import LaneError, RunError
from raysplit.pool.lane_pool import NO_MACHINES_SECONDS
from raysplit.pool.lane_state import LaneState
from raysplit.pool.openings import STARTS_WORTH, WARM_SECONDS, WARM_SECONDS_OVER_NODES
from raysplit.pool.placement import Machine
from raysplit.pool.pool_report import QUIET_SECONDS, why_quiet
from raysplit.pool.troubles import Kind, Trouble
from raysplit.pool.utilization import Utilization
from tests.pool.simulated_cluster import START_SECONDS, Simulated, footprint

SMALL, MIDDLE, LARGE = footprint(), footprint(n_workers=2), footprint(n_workers=2, n_nodes=2, cpus=2.0)


def cluster(**cpus: float) -> Simulated:
    return Simulated(cpus=cpus)


def pass_time(simulated: Simulated, seconds: float) -> None:
    for _ in range(round(seconds)):
        simulated.second()


def rooms_open(simulated: Simulated) -> list[Any]:
    return sorted(running.lane.footprint for running in simulated.running.values())


def test_small_lanes_leave_the_large_nodes_to_the_large() -> None:
    simulated = cluster(a=2, b=1, c=2, d=1)
    for number in range(2):
        simulated.hand_in(number, SMALL, seconds=100)
    simulated.second()
    assert {running.lane.spots for running in simulated.running.values()} == {("b",), ("d",)}
    simulated.hand_in(2, LARGE, seconds=10)
    simulated.second()
    assert rooms_open(simulated)[-1] == LARGE
    assert simulated.running[2].lane.spots == ("a", "c")


def test_a_large_lane_over_nodes_waits_until_they_are_there_and_the_rest_goes_on() -> None:
    simulated = cluster(a=2, b=1)
    simulated.hand_in(0, LARGE, seconds=10)
    for number in range(1, 7):
        simulated.hand_in(number, SMALL, seconds=20)
    pass_time(simulated, 100)
    assert [queued.done.done() for queued in simulated.queued.values()] == [False] + [True] * 6
    assert simulated.pool.moves.wanted == [LARGE], "the autoscaler is asked for it"
    assert "1 task waits since" in why_quiet(simulated.pool, simulated.now)
    assert "too small for it, its nodes have 2 CPU, 1 CPU; add nodes" in why_quiet(simulated.pool, simulated.now)
    simulated.cpus["c"] = 2
    simulated.until_done(seconds=60)
    assert simulated.pool.moves.wanted == []


def test_machines_that_a_waiting_room_needs_are_cleared_of_lanes_without_work_at_once() -> None:
    simulated = cluster(a=2, b=2)
    for number in range(4):
        simulated.hand_in(number, SMALL, seconds=20)
    simulated.until_done(seconds=60)
    pass_time(simulated, 10)
    assert rooms_open(simulated) == [SMALL] * 4, "they are kept warm"
    simulated.hand_in(4, LARGE, seconds=10)
    simulated.until_done(seconds=30)


def test_lanes_at_work_save_and_give_way_once_another_room_has_waited_long_enough() -> None:
    simulated = cluster(a=2, b=2)
    for number in range(200):
        simulated.hand_in(number, SMALL, seconds=10)
    pass_time(simulated, START_SECONDS + 2)
    simulated.hand_in(200, LARGE, seconds=10)
    pass_time(simulated, STARTS_WORTH * START_SECONDS - 5)
    assert rooms_open(simulated) == [SMALL] * 4, "changing over costs a start"
    assert "other lanes have the machines" in why_quiet_of(simulated)
    pass_time(simulated, 2 * STARTS_WORTH + 30)
    assert simulated.queued[200].done.done(), "but those that came earlier do not all go first"
    simulated.until_done(seconds=3000)
    assert not any(queued.tries for queued in simulated.queued.values()), "giving way is no failure"


def test_what_a_lane_idled_before_its_first_task_makes_nobody_wait_longer() -> None:
    simulated = cluster(a=1)
    simulated.hand_in(0, SMALL, seconds=10)
    simulated.second()
    [lane] = simulated.pool.lanes.values()
    [queued] = simulated.pool.queue.waiting
    simulated.pool.queue.waiting.clear()  # as where another lane took it
    opened = simulated.now
    simulated.pool.joined(lane.number, opened + 5)
    simulated.pool.queue.add(queued)
    simulated.pool.give(lane.number, opened + 300)
    simulated.pool.heard(lane.number, tokens=1, loss=1.0, now=opened + 302)
    assert simulated.pool._start_seconds == 7


def test_a_task_for_which_a_lane_is_starting_does_not_wait_for_machines() -> None:
    simulated = cluster(a=2, b=2)
    simulated.hand_in(0, SMALL, seconds=10)
    simulated.second()
    said = why_quiet_of(simulated)
    assert "lane 0" in said
    assert "has been starting for" in said
    assert "waits since" not in said


def why_quiet_of(simulated: Simulated) -> str:
    """As if nothing had happened."""
    before, simulated.pool.happened = simulated.pool.happened, simulated.now - QUIET_SECONDS
    said = why_quiet(simulated.pool, simulated.now)
    simulated.pool.happened = before
    return said


def test_lanes_without_work_give_their_machines_back_after_a_while() -> None:
    simulated = cluster(a=2, b=2, c=1)
    simulated.hand_in(0, SMALL, seconds=10)
    simulated.hand_in(1, LARGE, seconds=10)
    simulated.until_done(seconds=60)
    pass_time(simulated, WARM_SECONDS_OVER_NODES + 1)
    assert rooms_open(simulated) == [SMALL], "a large one is not kept warm for long"
    pass_time(simulated, WARM_SECONDS)
    assert rooms_open(simulated) == []


def test_lanes_without_work_go_sooner_where_another_sweep_waits() -> None:
    simulated = cluster(a=2)
    simulated.hand_in(0, SMALL, seconds=10)
    simulated.until_done(seconds=60)
    begun = next(iter(simulated.pool.lanes.values())).begun

    def n_closed(after: int, *, others_wait: bool) -> int:
        return len(simulated.pool.look(simulated.nodes(), begun + after, others_wait=others_wait)[1])

    assert n_closed(START_SECONDS - 1, others_wait=True) == 0
    assert n_closed(START_SECONDS + 3, others_wait=False) == 0
    assert n_closed(START_SECONDS + 3, others_wait=True) == 1, "another start would take no longer"


def test_a_node_that_joins_is_used_and_one_that_leaves_is_not_missed() -> None:
    simulated = cluster(a=1)
    for number in range(30):
        simulated.hand_in(number, SMALL, seconds=20)
    pass_time(simulated, 30)
    simulated.cpus["b"] = 2
    pass_time(simulated, START_SECONDS + 3)
    assert len(rooms_open(simulated)) == 3
    simulated.lose("a")
    simulated.until_done(seconds=500)


def test_a_notice_has_the_lane_save_and_its_task_goes_elsewhere_without_counting() -> None:
    simulated = cluster(a=1, b=1)
    simulated.hand_in(0, SMALL, seconds=100)
    pass_time(simulated, 10)
    [running] = simulated.running.values()
    node = running.lane.spots[0]
    simulated.leaving.add(node)
    pass_time(simulated, 3)
    assert all(node not in running.lane.spots for running in simulated.running.values())
    simulated.until_done(seconds=120)
    assert simulated.queued[0].tries == 0


def test_the_task_of_a_lost_lane_waits_for_another_as_soon_as_the_loss_is_known() -> None:
    simulated = cluster(a=1, b=1)
    simulated.hand_in(0, SMALL, seconds=50)
    pass_time(simulated, 10)
    simulated.kill(0)
    pass_time(simulated, 4)
    assert [running.lane.number for running in simulated.running.values()] == [1]
    assert simulated.pool.notices == ["lane 0 was lost over n14000-s0-trunk: its node is gone"]
    simulated.until_done(seconds=70)


@pytest.mark.parametrize(("kind", "least_seconds"), [(Kind.STORAGE, 1800), (Kind.MACHINE, 600), (Kind.CODE, 0)])
def test_a_task_that_costs_lane_after_lane_is_given_up_in_time_and_blames_no_trial(
    kind: Kind, least_seconds: int
) -> None:
    simulated = cluster(a=1)
    simulated.hand_in(0, SMALL, seconds=1e9)
    began = simulated.now
    while not simulated.queued[0].done.done():
        simulated.second()
        for number, running in list(simulated.running.items()):
            if running.task is not None:
                del simulated.running[number]
                simulated.pool.lost(number, Trouble(kind=kind, cause="why it was"), simulated.now)
                simulated.pool.gone(number, simulated.now)
    with pytest.raises(LaneError, match=r"^n14000-s0-trunk: its lane died \d+ times while training it: why it was$"):
        simulated.queued[0].done.result()
    assert least_seconds <= simulated.now - began < 2 * least_seconds + 200
    assert simulated.queued[0].tries >= 3


def test_what_is_set_up_wrongly_stops_everything_at_once_with_what_to_mend() -> None:
    simulated = cluster(a=1, b=1)
    simulated.hand_in(0, SMALL, seconds=50)
    simulated.hand_in(1, SMALL, seconds=50)
    pass_time(simulated, 10)
    out_of_memory = Trouble(kind=Kind.SET_UP, cause="OutOfMemoryError: CUDA out of memory")
    simulated.pool.lost(0, out_of_memory, simulated.now)
    for queued in simulated.queued.values():
        with pytest.raises(RunError, match=r"CUDA out of memory; .* give it a shape in compute.shapes"):
            queued.done.result()


def test_tasks_do_not_wait_for_ever_for_machines_that_are_gone() -> None:
    simulated = cluster(a=1, b=1)
    simulated.hand_in(0, SMALL, seconds=500)
    pass_time(simulated, 10)
    simulated.lose("a")
    simulated.lose("b")
    pass_time(simulated, QUIET_SECONDS + 5)
    assert "no node of the cluster is alive" in why_quiet(simulated.pool, simulated.now)
    pass_time(simulated, NO_MACHINES_SECONDS)
    with pytest.raises(LaneError, match=r"^a lane needs 1 worker of 1 CPU, .* its nodes have nothing; add nodes"):
        simulated.queued[0].done.result()


ROOMS = (SMALL, MIDDLE, LARGE)
TASKS = st.lists(st.tuples(st.sampled_from(ROOMS), st.integers(1, 40), st.integers(0, 20)), min_size=1, max_size=25)
MISHAPS = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from(("lose", "join", "leave", "kill")), st.integers(0, 5)), max_size=12
)


@settings(max_examples=25)
@given(tasks=TASKS, mishaps=MISHAPS, most_lanes=st.integers(1, 6))
def test_whatever_arrives_and_whatever_dies_every_task_ends_once(
    tasks: list[tuple[Any, int, int]], mishaps: list[tuple[int, str, int]], most_lanes: int
) -> None:
    """Two large nodes come back whenever they were lost, since a large lane needs them."""
    simulated = Simulated(cpus={"a": 2, "b": 2, "c": 1, "d": 1}, most_lanes=most_lanes)
    arrivals = {}
    at = 0
    for number, (takes, seconds, pause) in enumerate(tasks):
        at += pause
        arrivals[number] = (at, takes, seconds)
    n_nodes = 4
    for second in range(450):
        for number, (arrives, takes, seconds) in arrivals.items():
            if arrives == second:
                simulated.hand_in(number, takes, seconds)
        for when, what, which in mishaps:
            names = sorted(simulated.cpus)
            if when != second or not names:
                continue
            if what == "kill" and simulated.running:
                simulated.kill(sorted(simulated.running)[which % len(simulated.running)])
            elif what == "join":
                simulated.cpus[f"new-{n_nodes}"] = 1 + which % 2
                n_nodes += 1
            elif what == "leave":
                simulated.leaving.add(names[which % len(names)])
            elif what == "lose":
                simulated.lose(names[which % len(names)])
        simulated.second()
    for name in ("e", "f"):  # whatever was lost, in the end there is room for the largest
        simulated.cpus[name] = 2
    simulated.until_done(seconds=5000)
    for queued in simulated.queued.values():
        assert isinstance(queued.done.result(), Measured)


def test_with_work_to_do_machines_are_busy_nearly_all_the_time() -> None:
    """Tasks of three sizes in turn, each twenty times as long as a lane takes to start, as a sweep's may be."""
    simulated = cluster(a=2, b=2, c=1, d=1)
    for number in range(200):
        simulated.hand_in(number, (SMALL, SMALL, SMALL, SMALL, MIDDLE, LARGE)[number % 6], seconds=20 * START_SECONDS)
    while {queued.footprint for queued in simulated.pool.queue} == {SMALL, MIDDLE, LARGE}:
        simulated.second()
    share = simulated.busy["busy"] / simulated.busy["all"]
    assert share >= 0.85, (share, simulated.n_changes, simulated.now)
    assert simulated.pool.utilization.share == pytest.approx(share, abs=0.03)


def test_machines_without_work_to_do_are_not_counted_as_idle() -> None:
    simulated = cluster(a=2, b=2)
    simulated.hand_in(0, SMALL, seconds=100 * START_SECONDS)
    simulated.until_done(seconds=120 * int(START_SECONDS))
    found = simulated.pool.utilization
    assert found.worked["CPU"] == pytest.approx(100 * START_SECONDS, rel=0.02)
    assert found.share >= 0.9  # three of four CPUs had nothing to do


def test_work_between_two_looks_counts() -> None:
    utilization, lane = Utilization(), LaneState(number=0, footprint=SMALL, spots=("a",), opened=0.0)
    nodes = [Machine(name="a", address="", total={"CPU": 1.0}, free={})]
    for second in range(1, 11):
        utilization.look([lane], nodes, n_waiting=1, now=float(second))
        lane.begun = second + 0.2
        utilization.count(lane, second + 0.7)
    utilization.look([lane], nodes, n_waiting=0, now=11.0)
    assert utilization.worked["CPU"] == pytest.approx(5.0)
    assert utilization.share == pytest.approx(0.5, abs=0.03)
