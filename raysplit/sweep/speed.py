"""How long training takes on the machines of a space: timed where this machine has the device, else from FLOPs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raysplit.design.lane_shapes import LaneShape
from raysplit.ladder import ModelShape
from raysplit.machines import PEAK_FLOPS_PER_SECOND
from raysplit.space import Space

_COMPUTED_TWICE = 4 / 3
"""Factor on a step's FLOPs where activations are computed twice: three passes' worth become four."""
BUSY_SHARES = {
    "wait": {1: 1.0, 2: 0.87, 4: 0.57, 8: 0.31, 16: 0.17},
    "fill": {1: 1.0, 2: 0.97, 4: 0.68, 8: 0.43, 16: 0.15},
}
"""Share of the time in which lanes have work, by `sweep.idle_lanes` and number of lanes: medians over ten replayed
sweeps with equal lanes (LOG 2026-11-26)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """How fast one worker of a lane trains a size."""

    seconds_per_token: float
    is_timed: bool
    """Whether real steps on this machine were timed; else it is computed from FLOPs."""

    def of_lane(self, lane: LaneShape) -> float:
        """Tokens a second of a whole lane, without the time of communication between its workers."""
        return lane.n_workers / self.seconds_per_token


def speed_of(space: Space, model: ModelShape, lane: LaneShape, timed: Mapping[int, float]) -> Speed | None:
    """Speed of one worker of a lane, by what was ``timed`` (N -> seconds a token) or by the peak of the space's GPU.

    None where the size was not timed and the space names no GPU. A worker that shares a GPU has its share of the speed.
    """
    compute, share = space.compute, lane.gpus_per_worker or 1.0
    if (seconds := timed.get(model.n_params_non_embedding)) is not None:
        return Speed(seconds_per_token=seconds / share, is_timed=True)
    if compute.gpu is None:
        return None
    flops = model.flops_per_token * (_COMPUTED_TWICE if lane.activation_checkpointing else 1.0)
    reached = PEAK_FLOPS_PER_SECOND[compute.gpu] * compute.utilization
    return Speed(seconds_per_token=flops / reached / share, is_timed=False)


def busy_share(n_lanes: float, *, idle_lanes: str) -> float:
    """Share of the time in which a sweep's lanes have work, interpolated in the logarithm of their number, at least 1.

    Beyond the most lanes that were measured, the share falls as one over their number: more lanes end no sooner.
    """
    measured, n_lanes = BUSY_SHARES[idle_lanes], max(1.0, n_lanes)
    most = max(measured)
    if n_lanes >= most:
        return measured[most] * most / n_lanes
    above = min(n for n in measured if n > n_lanes)
    below = max(n for n in measured if n <= n_lanes)
    along = (math.log(n_lanes) - math.log(below)) / (math.log(above) - math.log(below))
    return measured[below] + along * (measured[above] - measured[below])


def lanes_at_a_time(space: Space, lane_seconds: Iterable[tuple[LaneShape, float]]) -> float:
    """Mean number of lanes at a time, if lanes of each shape have so many seconds of work; 1 to `compute.lanes`.

    Lanes of different shapes are taken to fill the machines together.
    """
    work = list(lane_seconds)
    device_seconds = sum(seconds * lane.n_workers * (lane.gpus_per_worker or 1.0) for lane, seconds in work)
    at_once = sum(seconds for _, seconds in work) * space.compute.n_workers / device_seconds
    return max(1.0, min(float(space.compute.lanes), at_once))
