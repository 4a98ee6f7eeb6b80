"""What the baselines of `sweep_regret.py` share: points of the grid, their price in the tree, and simulated time.

A point (N, D, D') is measured as one user's trial would: the trunk to D, cooled down and evaluated, then a branch of
every domain to D'. What has been trained is not trained again. Time passes with the FLOPs that are missing.
"""

import heapq
from dataclasses import dataclass

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Checkpoints, Trial
from raysplit.design.tree_state import chain, key, price_together
from raysplit.sweep.replay import Losses

Measurement = tuple[Trial, int]
"""A trial and its one milestone."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Point:
    """A point of the grid, for all domains or for some."""

    n_params: int
    pretrain_tokens: int
    specialize_tokens: int
    domains: tuple[str, ...]

    def measurements(self) -> list[Measurement]:
        """The trunk first, since the branches leave it; none from scratch."""
        n, d, s = self.n_params, self.pretrain_tokens, self.specialize_tokens
        trunk = [(Trial(n_params=n, seed=0, domain="", pretrain_tokens=d, milestones=(d,)), d)] if d else []
        return trunk + [
            (Trial(n_params=n, seed=0, domain=name, pretrain_tokens=d, milestones=(s,)), s) for name in self.domains
        ]

    def flops(self, spec: ResolvedSpec) -> float:
        """The budget that the point spends as an answer: one seed and an expert of each of its domains."""
        tokens = self.pretrain_tokens + len(self.domains) * self.specialize_tokens
        return spec.flops_per_token[self.n_params] * tokens


def known_points(spec: ResolvedSpec, losses: Losses) -> list[Point]:
    """Every point of the grid whose losses are all known to the replay."""
    roots = (0, *spec.pretrain_grid) if spec.scratch else spec.pretrain_grid
    every = [
        Point(n_params=n, pretrain_tokens=d, specialize_tokens=s, domains=spec.domains)
        for n in spec.sizes
        for d in roots
        for s in spec.specialize_grid
    ]
    return [p for p in every if all(losses(trial, at) is not None for trial, at in p.measurements())]


class Meter:
    """The tree's price of a growing set of measurements, as `evidence_of` reckons it, one chain at a time.

    Rests on every branch coming after the measurement of its trunk at its own D.
    """

    def __init__(self, spec: ResolvedSpec) -> None:
        self._spec = spec
        self._chains: dict[Trial, tuple[set[int], float]] = {}
        self.spent_flops = 0.0

    def add(self, trial: Trial, milestone: int) -> float | None:
        """FLOPs that a measurement adds; None where it is there already."""
        own, before = self._chains.get(chain(trial), (set(), 0.0))
        if milestone in own:
            return None
        own = own | {milestone}
        whole = Trial(
            n_params=trial.n_params,
            seed=trial.seed,
            domain=trial.domain,
            pretrain_tokens=max(own) if trial.is_trunk else trial.pretrain_tokens,
            milestones=tuple(sorted(own)),
        )
        after = price_together(self._spec, [whole], Checkpoints([trial.root]))
        self._chains[chain(trial)] = own, after
        self.spent_flops += after - before
        return after - before


class Lanes:
    """Measures points in simulated time, in which one FLOP takes one unit, and keeps what was measured when."""

    def __init__(self, spec: ResolvedSpec, losses: Losses, *, budget_flops: float, most_idle_steps: int) -> None:
        self._spec, self._losses = spec, losses
        self._budget_flops, self._most_idle_steps = budget_flops, most_idle_steps
        self._booked = Meter(spec)
        self._ready: dict[tuple[Trial, int], float] = {}
        self._made: list[tuple[float, int, Measurement]] = []
        self._weight = dict(zip(spec.problem.domains, spec.problem.weights, strict=True))
        self._under_way: list[tuple[float, float]] = []
        self._spent_flops = 0.0
        self._start = 0.0
        self._idle_steps = 0

    @property
    def n_lanes(self) -> int:
        return self._spec.lanes

    def is_over(self, now: float) -> bool:
        """Whether what is done by now, a time that only moves on, passes the budget, or nothing new comes any more."""
        while self._under_way and self._under_way[0][0] <= self._start + now:
            self._spent_flops += heapq.heappop(self._under_way)[1]
        return self.is_spent or self._idle_steps > self._most_idle_steps

    @property
    def is_spent(self) -> bool:
        """Whether what was done by the last time asked about passes the budget."""
        return self._spent_flops > self._budget_flops

    def begin_again(self) -> None:
        """Count time from when everything is done."""
        self._start = max((at for at, _, _ in self._made), default=0.0)
        self._idle_steps = 0

    def measure(self, now: float, point: Point) -> tuple[float, float]:
        """Begin a point at a time; when it is done, and its weighted mean loss over its domains."""
        now += self._start
        at, loss, weight, is_new = now, 0.0, 0.0, False
        for trial, milestone in point.measurements():
            flops = self._booked.add(trial, milestone)
            if flops is None:
                at = max(at, self._ready[key(trial, milestone)])
            else:
                is_new = True
                at += flops
                self._ready[key(trial, milestone)] = at
                heapq.heappush(self._under_way, (at, flops))
                self._made.append((at, len(self._made), (trial, milestone)))
            if trial.domain:
                known = self._losses(trial, milestone)
                assert known is not None, "known_points leaves out what is not known"
                loss += self._weight[trial.domain] * known[trial.domain]
                weight += self._weight[trial.domain]
        self._idle_steps = 0 if is_new else self._idle_steps + 1
        return at - self._start, loss / weight

    def measured(self) -> list[Measurement]:
        """Everything measured, in the order of completion, as far as the budget goes."""
        meter = Meter(self._spec)
        out = []
        for _, _, (trial, milestone) in sorted(self._made, key=lambda made: made[:2]):
            meter.add(trial, milestone)
            if meter.spent_flops > self._budget_flops:
                break
            out.append((trial, milestone))
        return out
