"""A report on the lanes for a user: what each does, which were lost, and after a while why nothing happens."""

from collections.abc import Iterator
from dataclasses import dataclass

from raysplit.design.tasks import Task
from raysplit.pool.lane_pool import LanePool
from raysplit.pool.openings import STARTS_WORTH, unserved
from raysplit.pool.placement import Footprint, place, words
from raysplit.quantities import format_seconds

QUIET_SECONDS = 30.0
"""After so long without progress a report says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneReport:
    """One lane."""

    number: int
    footprint: Footprint
    addresses: tuple[str, ...]
    """Addresses of its nodes."""
    state: str
    """``starting``, ``idle``, ``training``, ``saving`` or ``ending``."""
    task: Task | None
    tokens: int
    """Tokens trained for the task so far."""
    loss: float
    """Training loss of the last step, nats per token; NaN before the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolReport:
    """All lanes, and what a user is to know of them."""

    lanes: tuple[LaneReport, ...]
    n_waiting: int
    """Tasks without a lane."""
    utilization: float
    """Share of the machines' time with work to do in which they had a task; NaN before."""
    notices: tuple[str, ...]
    """The last of all ``n_notices`` notices."""
    n_notices: int
    quiet: str
    """Why nothing happens; empty as long as something does."""


def report_on(pool: LanePool, now: float) -> PoolReport:
    """The pool's report."""
    addresses = {node.name: node.address for node in pool.nodes}
    return PoolReport(
        lanes=tuple(
            LaneReport(
                number=lane.number, footprint=lane.footprint, task=lane.task, tokens=lane.tokens, loss=lane.loss,
                addresses=tuple(dict.fromkeys(addresses.get(name, "a node that is gone") for name in lane.spots)),
                state=(
                    "ending" if not lane.is_open else "starting" if lane.joined is None
                    else "idle" if lane.queued is None else "saving" if lane.save_now else "training"
                ),
            )
            for lane in pool.lanes.values()
        ),
        n_waiting=len(pool.queue.waiting),
        utilization=pool.utilization.share,
        notices=tuple(pool.notices),
        n_notices=pool.n_notices,
        quiet=why_quiet(pool, now),
    )  # fmt: skip


def why_quiet(pool: LanePool, now: float) -> str:
    """What has waited for what, since when, and what would help; empty if something happened within `QUIET_SECONDS`."""
    if now - pool.happened < QUIET_SECONDS:
        return ""
    reasons = "; ".join(_reasons(pool, now)) or "no task has been handed in: the sweep decides what to train next"
    return f"nothing has happened for {format_seconds(now - pool.happened)}: {reasons}"


def _reasons(pool: LanePool, now: float) -> Iterator[str]:
    for lane in pool.lanes.values():
        if not lane.is_open:
            yield f"lane {lane.number} is being ended since {format_seconds(now - (lane.ended or now))}"
        elif lane.joined is None:
            yield f"lane {lane.number} ({lane.footprint}) has been starting for {format_seconds(now - lane.opened)}"
        elif lane.queued is not None:
            yield (
                f"lane {lane.number} has said nothing of {lane.queued.task.trial.name} for "
                f"{format_seconds(now - lane.heard)}"
            )
    for queued in pool.queue:
        if queued.not_before > now and queued.trouble is not None:
            yield (
                f"{queued.task.trial.name} is tried again in {format_seconds(queued.not_before - now)}, after "
                f"{queued.trouble.cause}"
            )
    for footprint, since, n in unserved(list(pool.lanes.values()), pool.queue, now):
        tasks = "1 task waits" if n == 1 else f"{n} tasks wait"
        yield f"{tasks} since {format_seconds(now - since)} for {footprint}: {_why_no_lane(pool, footprint)}"


def _why_no_lane(pool: LanePool, footprint: Footprint) -> str:
    staying = [node for node in pool.nodes if not node.leaves]
    there = words(node.total for node in staying)
    if not staying:
        return "no node of the cluster is alive that stays; add one"
    if footprint == pool.moves.missing or place(footprint, {node.name: node.total for node in staying}) is None:
        return f"the cluster is too small for it, its nodes have {there}; add nodes, or ask for less in compute"
    if len(pool.lanes) >= pool.most_lanes:
        return f"all {pool.most_lanes} lanes of compute.lanes are taken"
    if footprint == pool.moves.cleared:
        return "lanes of other sizes are being closed for it"
    if pool.lanes:
        return (
            f"other lanes have the machines ({there}), and give way when they have nothing to do or it has waited "
            f"{STARTS_WORTH:g} times as long as a lane takes to start"
        )
    return f"somebody else has the machines ({there}), which `ray status` shows; wait for them, or add nodes"
