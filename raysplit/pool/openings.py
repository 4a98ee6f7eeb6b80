"""Which lanes to open and which to close, so that every task gets its machines and no machine is idle in vain.

Footprints that tasks wait for are served in the order in which they last got a task. If nothing is free for a footprint
that an idle cluster would hold, machines are cleared for it: for one footprint at a time, the one that has waited
longest. Lanes in its way save their tasks where they stand, give them back and are closed, and no other footprint gets
their machines. So two footprints never wait for each other, and machines that are to be taken together do not stand
idle until the last of them is free.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from raysplit.pool.lane_state import LaneState, QueuedTask
from raysplit.pool.placement import Footprint, Machine, Resources, on_these, place, without

WARM_SECONDS, WARM_SECONDS_OVER_NODES = 300.0, 30.0
"""How long a lane on one node, and a lane on several, is kept without work before it is closed."""
LINGER_SECONDS, LINGER_STARTS = 2.0, 0.25
"""How long a lane is kept without work where another footprint waits, at least, and in starts of a lane: its trial's
next milestone may come, and to close the lane too soon costs a start."""
STARTS_WORTH = 20.0
"""Lanes at work are cleared away for a footprint that has waited so many times as long as a lane takes to start, and
not sooner after the last such clearing. So starting lanes costs about a tenth of the time."""


@dataclass(slots=True)
class Clearing:
    """The footprint for which lanes at work were last cleared away, and since when."""

    footprint: Footprint | None = None
    begun: float = -math.inf


@dataclass(kw_only=True, slots=True)
class Moves:
    """Lanes to open and to close now, and footprints that have to wait."""

    open: list[tuple[Footprint, tuple[str, ...]]] = field(default_factory=list)
    """Lanes to open: footprint, and the node of each worker."""
    close: list[LaneState] = field(default_factory=list)
    wanted: list[Footprint] = field(default_factory=list)
    """Footprints of lanes for which the cluster has to grow, one for each lane, as far as lanes are allowed."""
    missing: Footprint | None = None
    """The footprint that waits longest for machines that the cluster does not have."""
    cleared: Footprint | None = None
    """The footprint for which lanes are cleared away."""


def next_moves(
    lanes: Sequence[LaneState],
    waiting: Iterable[QueuedTask],
    nodes: Sequence[Machine],
    *,
    most_lanes: int,
    shunned: Collection[str],
    served: Mapping[Footprint, float],
    cleared: Clearing,
    start_seconds: float,
    now: float,
    others_wait: bool = False,
) -> Moves:
    """Decide what to open and close, and mark which lanes are to stand down or to save, and which are not.

    Args:
        lanes: every lane whose machines are not given back yet.
        waiting: tasks without a lane.
        nodes: those that are alive.
        most_lanes: most lanes at a time.
        shunned: names of nodes on which lanes have failed of late.
        served: footprint -> when a lane of it last got a task.
        cleared: the last clearing of lanes at work, which is updated.
        start_seconds: how long a lane takes from its opening to its first progress, but for the time without a task.
        now: on the clock of lanes and tasks.
        others_wait: whether another sweep waits for machines of the cluster. A lane without work is then kept for as
            long as its start takes, so that neither its machines nor its start are wasted for longer than that.
    """
    staying = {node.name: node for node in nodes if not node.leaves}
    for lane in lanes:
        lane.leaves = lane.save_now = not set(lane.spots) <= staying.keys()
        lane.stand_down = False
    free = free_of(staying.values(), lanes)
    usable: Mapping[str, Resources] = {name: have for name, have in free.items() if name not in shunned}
    moves = Moves()
    n_lanes = len(lanes)
    for footprint, since, n_waiting in unserved(lanes, waiting, now, served=served):
        room_here = on_these(footprint, (node.total for node in staying.values()))
        while n_waiting and room_here and n_lanes < most_lanes and (spots := place(room_here, usable)):
            moves.open.append((footprint, spots))
            usable, free = (without(left, footprint, spots) for left in (usable, free))
            n_lanes, n_waiting = n_lanes + 1, n_waiting - 1
        if not n_waiting:
            continue
        if room_here is None or place(room_here, free) is None:
            moves.wanted += [footprint] * min(n_waiting, most_lanes - n_lanes - len(moves.wanted))
        if room_here is None:
            moves.missing = moves.missing or footprint
        elif moves.cleared is None and (
            way := _in_the_way(footprint, room_here, lanes, staying, usable, n_lanes >= most_lanes)
        ):
            are_at_rest = all(not lane.is_open or _rests(lane, start_seconds, now) for lane in way.lanes)
            patience = STARTS_WORTH * start_seconds
            if are_at_rest or (
                now - since >= patience and (cleared.footprint == footprint or now - cleared.begun >= patience)
            ):
                if not are_at_rest and (cleared.footprint != footprint or now - cleared.begun >= patience):
                    cleared.footprint, cleared.begun = footprint, now
                moves.cleared, usable = footprint, way.left_for_others
                for lane in way.lanes:
                    lane.stand_down = lane.save_now = True
    moves.close = [
        lane
        for lane in lanes
        if lane.is_idle
        and (
            not lane.takes_tasks
            or (lane.stand_down and _rests(lane, start_seconds, now))
            or now - lane.begun >= (min(start_seconds, _warm_seconds(lane)) if others_wait else _warm_seconds(lane))
        )
    ]
    return moves


def free_of(nodes: Collection[Machine], lanes: Sequence[LaneState]) -> Mapping[str, Resources]:
    """Node -> what is left of it: what the cluster reports, or what our lanes leave, whichever is less.

    The cluster's report has a lane that is starting only once it is placed.
    """
    mine = {node.name: node.total for node in nodes}
    for lane in lanes:
        mine = without(mine, lane.footprint, lane.spots)
    return {
        node.name: {name: min(left, node.free.get(name, 0.0)) for name, left in mine[node.name].items()}
        for node in nodes
    }


def unserved(
    lanes: Sequence[LaneState],
    tasks: Iterable[QueuedTask],
    now: float,
    *,
    served: Mapping[Footprint, float] = MappingProxyType({}),
) -> list[tuple[Footprint, float, int]]:
    """(footprint, since when it waits, tasks beyond what its lanes will take), the longest waiting first.

    A footprint waits since a lane of it was last ``served`` a task, where that is given.
    """
    takers = Counter(lane.footprint for lane in lanes if lane.queued is None and lane.takes_tasks)
    waiting: dict[Footprint, list[float]] = {}
    for queued in tasks:
        if queued.not_before <= now:
            waiting.setdefault(queued.footprint, []).append(queued.since)
    unserved = [
        (footprint, max(since[n], served.get(footprint, 0.0)), len(since) - n)
        for footprint, since in waiting.items()
        if len(since) > (n := takers[footprint])
    ]
    return sorted(unserved, key=lambda each: each[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    """Lanes that have to be closed so that a lane of another footprint finds its place."""

    lanes: Sequence[LaneState]
    left_for_others: Mapping[str, Resources]
    """Node -> resources that are free now and no part of that place."""


def _in_the_way(
    footprint: Footprint,
    room_here: Footprint,
    lanes: Sequence[LaneState],
    staying: Mapping[str, Machine],
    usable: Mapping[str, Resources],
    all_taken: bool,
) -> _Way | None:
    """The lanes to close for a place, as few as can be, idle ones first; None where closing lanes would not help.

    Their order does not change while they work, so that the lanes that stand down stay the same.
    """
    left, gone = dict(usable), list[LaneState]()
    for lane in sorted((lane for lane in lanes if lane.footprint != footprint or not lane.is_open), key=_reluctance):
        if place(room_here, left) is not None and (gone or not all_taken):
            break
        gone.append(lane)
        left |= _given_back(left, lane, staying)
    spots = place(room_here, left)
    if spots is None or (all_taken and not gone):
        return None
    for lane in list(gone[:-1] if all_taken else gone):  # those that are not in its way after all
        kept = without(left, lane.footprint, (name for name in lane.spots if name in left))
        if (again := place(room_here, kept)) is not None:
            gone.remove(lane)
            left, spots = dict(kept), again
    rest = without(usable, footprint, spots)
    return _Way(
        lanes=gone,
        left_for_others={node: {name: max(0.0, n) for name, n in have.items()} for node, have in rest.items()},
    )


def _given_back(left: Mapping[str, Resources], lane: LaneState, staying: Mapping[str, Machine]) -> dict[str, Resources]:
    """The nodes of a lane, as they are without it."""
    back: dict[str, dict[str, float]] = {}
    for name in lane.spots:
        if name in left:
            have = back.setdefault(name, dict(left[name]))
            for resource, amount in lane.footprint.of_a_worker.items():
                have[resource] = min(have.get(resource, 0.0) + amount, staying[name].total.get(resource, 0.0))
    return dict(back)


def _reluctance(lane: LaneState) -> tuple[bool, bool, int]:
    return lane.is_open, not lane.is_idle, -lane.number


def _rests(lane: LaneState, start_seconds: float, now: float) -> bool:
    return lane.is_idle and now - lane.begun >= max(LINGER_SECONDS, LINGER_STARTS * start_seconds)


def _warm_seconds(lane: LaneState) -> float:
    return WARM_SECONDS if lane.footprint.n_nodes == 1 else WARM_SECONDS_OVER_NODES
