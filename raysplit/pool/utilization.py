"""How much of the cluster was at work while there was work to do."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from raysplit.pool.lane_state import LaneState
from raysplit.pool.placement import Machine

_RESOURCES = ("GPU", "CPU")
_LONGEST_STEP_SECONDS = 10.0
"""What waited in a longer time between two looks is not known."""


@dataclass(slots=True)
class Utilization:
    """Seconds of each resource, such as CPU seconds."""

    worked: dict[str, float] = field(default_factory=partial(defaultdict, float))
    """Of lanes that had a task."""
    wanted: dict[str, float] = field(default_factory=partial(defaultdict, float))
    """Of the whole cluster while tasks waited for a lane; else what was worked."""
    _looked: float = math.nan
    _worked_before: dict[str, float] = field(default_factory=partial(defaultdict, float))

    @property
    def share(self) -> float:
        """Share that was worked, of GPUs where lanes took any, else of CPUs; NaN before there was work to do."""
        name = next((name for name in _RESOURCES if self.worked[name]), "CPU")
        return min(1.0, self.worked[name] / self.wanted[name]) if self.wanted[name] else math.nan

    def count(self, lane: LaneState, now: float) -> None:
        """Count what a lane has worked on its task since it was last counted."""
        seconds, lane.counted = now - max(lane.begun, lane.counted), now
        for name, amount in lane.footprint.in_all.items():
            self.worked[name] += amount * seconds

    def look(self, lanes: Iterable[LaneState], nodes: Sequence[Machine], *, n_waiting: int, now: float) -> None:
        """Count the time since the last look, as if as many tasks had waited in all of it as do now."""
        for lane in lanes:
            if lane.queued is not None:
                self.count(lane, now)
        seconds, self._looked = now - self._looked, now
        for name in _RESOURCES:
            worked = self.worked[name] - self._worked_before[name]
            there = sum(node.total.get(name, 0.0) for node in nodes if not node.leaves) if n_waiting else 0.0
            self.wanted[name] += max(worked, there * seconds if seconds <= _LONGEST_STEP_SECONDS else 0.0)
            self._worked_before[name] = self.worked[name]
