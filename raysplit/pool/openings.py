"""Which lanes to open and which to close, so that every task gets its machines and no machine waits for nothing.

The rooms that tasks wait for are served in the order in which they last got a task. A room for which nothing is free,
though an idle cluster would hold it, is cleared: one at a time, the longest waiting. Lanes in its way save their tasks
where they stand, give them back and are closed, and nobody else gets their machines. So two rooms never wait for each
other, and machines that are to be taken together are not idle until the last of them is free.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from raysplit.pool.lane_state import LaneState
from raysplit.pool.placement import Node, Resources, Room, on_these, place, without
from raysplit.pool.task_queue import TaskQueue

WARM_SECONDS, WARM_SECONDS_OVER_NODES = 300.0, 30.0
"""How long a lane on one node, and one on several, is kept without work; then its machines may go."""
LINGER_SECONDS = 2.0
"""A lane without work for so long is closed for another room: before that its trial's next milestone may come."""
STARTS_WORTH = 20.0
"""Lanes at work are cleared away for a room that has waited for so many times as long as a lane takes to get going, and
not sooner after the last such clearing: changing over then costs some tenth of the time."""


@dataclass(slots=True)
class Clearing:
    """For which room lanes at work were last cleared away, and since when."""

    room: Room | None = None
    begun: float = -math.inf


@dataclass(kw_only=True, slots=True)
class Moves:
    """What is to be done now."""

    open: list[tuple[Room, tuple[str, ...]]] = field(default_factory=list)
    """Room and the node of each worker."""
    close: list[LaneState] = field(default_factory=list)
    wanted: list[Room] = field(default_factory=list)
    """For which the cluster has to grow, as far as it is to hold all lanes that are allowed."""
    missing: Room | None = None
    """The room that waits longest for machines that the cluster does not have."""
    cleared: Room | None = None
    """The room for which lanes are cleared away."""


def next_moves(
    lanes: Sequence[LaneState],
    queue: TaskQueue,
    nodes: Sequence[Node],
    *,
    most_lanes: int,
    shunned: Collection[str],
    served: Mapping[Room, float],
    cleared: Clearing,
    start_seconds: float,
    now: float,
) -> Moves:
    """Decide, and mark the lanes that are to stand down or to save; all others are marked as they are not.

    Args:
        lanes: every lane whose machines are not given back yet.
        queue: tasks that wait.
        nodes: that are alive.
        most_lanes: at a time.
        shunned: names of nodes on which lanes have failed of late.
        served: room -> when a lane of it last got a task.
        cleared: the last of lanes at work.
        start_seconds: that a lane takes until it gets on with its first task.
        now: on the clock that lanes and tasks go by.
    """
    staying = {node.name: node for node in nodes if not node.leaves}
    for lane in lanes:
        lane.leaves = lane.save_now = not set(lane.spots) <= staying.keys()
        lane.stand_down = False
    free = free_of(staying.values(), lanes)
    usable: Mapping[str, Resources] = {name: have for name, have in free.items() if name not in shunned}
    moves = Moves()
    n_lanes = len(lanes)
    for room, since, n_waiting in _unserved(lanes, queue, served, now):
        room_here = on_these(room, (node.total for node in staying.values()))
        while n_waiting and room_here and n_lanes < most_lanes and (spots := place(room_here, usable)):
            moves.open.append((room, spots))
            usable, free = (without(left, room, spots) for left in (usable, free))
            n_lanes, n_waiting = n_lanes + 1, n_waiting - 1
        if not n_waiting:
            continue
        if room_here is None or place(room_here, free) is None:
            moves.wanted += [room] * min(n_waiting, most_lanes - n_lanes - len(moves.wanted))
        if room_here is None:
            moves.missing = moves.missing or room
        elif moves.cleared is None and (
            way := _in_the_way(room, room_here, lanes, staying, usable, n_lanes >= most_lanes)
        ):
            are_at_rest = all(not lane.is_open or _rests(lane, now) for lane in way.lanes)
            patience = STARTS_WORTH * start_seconds
            if are_at_rest or (now - since >= patience and (cleared.room == room or now - cleared.begun >= patience)):
                if not are_at_rest and (cleared.room != room or now - cleared.begun >= patience):
                    cleared.room, cleared.begun = room, now
                moves.cleared, usable = room, way.left_for_others
                for lane in way.lanes:
                    lane.stand_down = lane.save_now = True
    moves.close = [
        lane
        for lane in lanes
        if lane.is_idle
        and (not lane.takes_tasks or (lane.stand_down and _rests(lane, now)) or now - lane.begun >= _warm_seconds(lane))
    ]
    return moves


def free_of(nodes: Collection[Node], lanes: Sequence[LaneState]) -> Mapping[str, Resources]:
    """What is left of each node: by what the cluster says and by what our lanes have taken, whichever is less.

    Those that are starting are in the cluster's figures only once they are placed.
    """
    mine = {node.name: node.total for node in nodes}
    for lane in lanes:
        mine = without(mine, lane.room, lane.spots)
    return {
        node.name: {name: min(left, node.free.get(name, 0.0)) for name, left in mine[node.name].items()}
        for node in nodes
    }


def _unserved(
    lanes: Sequence[LaneState], queue: TaskQueue, served: Mapping[Room, float], now: float
) -> list[tuple[Room, float, int]]:
    """(room, since when it waits, tasks beyond what its lanes will take by themselves), the longest waiting first."""
    takers = Counter(lane.room for lane in lanes if lane.asked is None and lane.takes_tasks)
    waiting: dict[Room, list[float]] = {}
    for asked in queue:
        if asked.not_before <= now:
            waiting.setdefault(asked.room, []).append(asked.since)
    unserved = [
        (room, max(since[n], served.get(room, 0.0)), len(since) - n)
        for room, since in waiting.items()
        if len(since) > (n := takers[room])
    ]
    return sorted(unserved, key=lambda each: each[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    """What has to go for a room to be there."""

    lanes: Sequence[LaneState]
    left_for_others: Mapping[str, Resources]
    """Free now, and no part of the room."""


def _in_the_way(
    room: Room,
    room_here: Room,
    lanes: Sequence[LaneState],
    staying: Mapping[str, Node],
    usable: Mapping[str, Resources],
    all_taken: bool,
) -> _Way | None:
    """The lanes without which there is the room, as few as can be, idle ones first; None where it would not help.

    The order does not change while they work, so that lanes which stand down go on to do so.
    """
    left, gone = dict(usable), list[LaneState]()
    for lane in sorted((lane for lane in lanes if lane.room != room or not lane.is_open), key=_reluctance):
        if place(room_here, left) is not None and (gone or not all_taken):
            break
        gone.append(lane)
        left |= _given_back(left, lane, staying)
    spots = place(room_here, left)
    if spots is None or (all_taken and not gone):
        return None
    for lane in list(gone[:-1] if all_taken else gone):  # those that are not in its way after all
        kept = without(left, lane.room, (name for name in lane.spots if name in left))
        if (again := place(room_here, kept)) is not None:
            gone.remove(lane)
            left, spots = dict(kept), again
    rest = without(usable, room, spots)
    return _Way(
        lanes=gone,
        left_for_others={node: {name: max(0.0, n) for name, n in have.items()} for node, have in rest.items()},
    )


def _given_back(left: Mapping[str, Resources], lane: LaneState, staying: Mapping[str, Node]) -> dict[str, Resources]:
    """The nodes of a lane as they are without it."""
    back: dict[str, dict[str, float]] = {}
    for name in lane.spots:
        if name in left:
            have = back.setdefault(name, dict(left[name]))
            for resource, amount in lane.room.of_a_worker.items():
                have[resource] = min(have.get(resource, 0.0) + amount, staying[name].total.get(resource, 0.0))
    return dict(back)


def _reluctance(lane: LaneState) -> tuple[bool, bool, int]:
    return lane.is_open, not lane.is_idle, -lane.number


def _rests(lane: LaneState, now: float) -> bool:
    return lane.is_idle and now - lane.begun >= LINGER_SECONDS


def _warm_seconds(lane: LaneState) -> float:
    return WARM_SECONDS if lane.room.n_nodes == 1 else WARM_SECONDS_OVER_NODES
