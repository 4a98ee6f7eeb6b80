"""How much of the cluster was at work while there was work to do."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raysplit.pool.lane_state import LaneState
from raysplit.pool.placement import Machine

_LONGEST_STEP_SECONDS = 10.0
"""What happened in a longer time between two looks is not known."""


@dataclass(slots=True)
class Utilization:
    """Seconds of a resource: of GPUs where the lanes take any, else of CPUs."""

    worked_seconds: float = 0.0
    """With a task, from the lane's first sign of progress on it until its end or its last word."""
    wanted_seconds: float = 0.0
    """The whole cluster's while tasks waited for a lane; else those of the lanes that had a task."""
    _looked: float = math.nan

    @property
    def share(self) -> float:
        """Share of the wanted seconds that were worked; NaN before there was work to do."""
        return self.worked_seconds / self.wanted_seconds if self.wanted_seconds else math.nan

    def look(self, lanes: Iterable[LaneState], nodes: Sequence[Machine], *, n_waiting: int, now: float) -> None:
        """Count the time since the last look, as if all of it had been as it is now."""
        seconds, self._looked = now - self._looked, now
        if not 0.0 < seconds <= _LONGEST_STEP_SECONDS:
            return
        having = [lane for lane in lanes if lane.queued is not None]
        name = "GPU" if any(lane.footprint.gpus_per_worker for lane in having) else "CPU"
        held = sum(lane.footprint.in_all[name] for lane in having)
        at_work = sum(lane.footprint.in_all[name] for lane in having if lane.has_progressed)
        there = sum(node.total.get(name, 0.0) for node in nodes if not node.leaves)
        self.worked_seconds += seconds * at_work
        self.wanted_seconds += seconds * (max(there, held) if n_waiting else held)
