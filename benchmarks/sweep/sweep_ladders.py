"""What a baseline of `sweep_regret.py` searches over: configs in the unit cube, and the points that each stands for.

A config is a trial. Its points are the rungs at which the trial reports. All ladders see the same points of the grid.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sweep_lanes import Point

from raysplit.design.resolved_spec import ResolvedSpec

_T = TypeVar("_T", int, str)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """A search space."""

    names: tuple[str, ...]
    """Of the dimensions, each in [0, 1]."""
    n_rungs: int
    """The most points of a trial."""
    every: tuple[Point, ...]
    """All points, cheapest first."""
    points: Callable[[Sequence[float]], tuple[Point, ...]]
    """The rungs of a config, cheapest first; at least one."""


LadderOf = Callable[[ResolvedSpec, Sequence[Point], float], Ladder]
"""Makes a ladder of those known points whose own FLOPs are at most the last argument; the cheapest is always in."""


def by_depth(spec: ResolvedSpec, known: Sequence[Point], most_flops: float) -> Ladder:
    """Config (N, D); a trial trains the trunk and then every domain's branch along the grid of D'."""
    points = _affordable(spec, known, most_flops)

    def rungs(config: Sequence[float]) -> tuple[Point, ...]:
        n = _pick([p.n_params for p in points], config[0])
        d = _pick([p.pretrain_tokens for p in points if p.n_params == n], config[1])
        return tuple(p for p in points if (p.n_params, p.pretrain_tokens) == (n, d))

    return Ladder(
        names=("size", "pretrain"), every=tuple(points), n_rungs=max(len(spec.specialize_grid), 1), points=rungs
    )


def by_domain(spec: ResolvedSpec, known: Sequence[Point], most_flops: float) -> Ladder:
    """Config (N, D, domain); as `by_depth`, with one domain to a trial."""
    whole = by_depth(spec, known, most_flops)

    def rungs(config: Sequence[float]) -> tuple[Point, ...]:
        domain = _pick(spec.domains, config[2])
        return tuple(replace(p, domains=(domain,)) for p in whole.points(config[:2]))

    return Ladder(names=(*whole.names, "domain"), every=whole.every, n_rungs=whole.n_rungs, points=rungs)


def by_point(spec: ResolvedSpec, known: Sequence[Point], most_flops: float) -> Ladder:
    """Config (N, D, D'); a trial is one point, without rungs."""
    points = _affordable(spec, known, most_flops)

    def rungs(config: Sequence[float]) -> tuple[Point, ...]:
        n = _pick([p.n_params for p in points], config[0])
        d = _pick([p.pretrain_tokens for p in points if p.n_params == n], config[1])
        own = [p for p in points if (p.n_params, p.pretrain_tokens) == (n, d)]
        s = _pick([p.specialize_tokens for p in own], config[2])
        return tuple(p for p in own if p.specialize_tokens == s)

    return Ladder(names=("size", "pretrain", "specialize"), every=tuple(points), n_rungs=1, points=rungs)


def by_budget(step: float) -> LadderOf:
    """Config (tokens per parameter, pretraining's share of the tokens); rungs are budgets that grow by a factor.

    What a user does who looks for the best split at the largest budget that can be tried: at each budget the config's
    size and split, taken to the nearest point of the grid that costs about as much.
    """

    def ladder(spec: ResolvedSpec, known: Sequence[Point], most_flops: float) -> Ladder:
        points = _affordable(spec, known, most_flops)
        cheapest = min(p.flops(spec) for p in points)
        levels: dict[int, list[Point]] = {}
        for p in points:
            levels.setdefault(math.floor(math.log(p.flops(spec) / cheapest, step) + 1e-9), []).append(p)
        ratios = [_log_ratio(p) for p in points]
        low, high = min(ratios), max(ratios)

        def rungs(config: Sequence[float]) -> tuple[Point, ...]:
            ratio, share = low + config[0] * (high - low), config[1]

            def distance(p: Point) -> float:
                return ((_log_ratio(p) - ratio) / max(high - low, 1e-9)) ** 2 + (_share(p) - share) ** 2

            return tuple(min(levels[level], key=distance) for level in sorted(levels))

        return Ladder(
            names=("tokens_per_parameter", "pretrain_share"), every=tuple(points), n_rungs=len(levels), points=rungs
        )

    return ladder


def _affordable(spec: ResolvedSpec, known: Sequence[Point], most_flops: float) -> list[Point]:
    points = sorted(known, key=lambda p: (p.flops(spec), p))
    return [p for p in points if p.flops(spec) <= most_flops] or points[:1]


def _pick(values: Sequence[_T], at: float) -> _T:
    """The value at a place in [0, 1] among the distinct ones, in rising order."""
    distinct = sorted(set(values))
    return distinct[min(int(at * len(distinct)), len(distinct) - 1)]


def _log_ratio(p: Point) -> float:
    return math.log((p.pretrain_tokens + len(p.domains) * p.specialize_tokens) / p.n_params)


def _share(p: Point) -> float:
    return p.pretrain_tokens / (p.pretrain_tokens + len(p.domains) * p.specialize_tokens)
