"""The set-up of a search over plain grids, for who trains with a program of their own and has no search space file."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, get_args

from raysplit.design.setup import Setup
from raysplit.design.tree import Tree
from raysplit.errors import SpaceError, unknown
from raysplit.space import CooldownStart, DesignName
from raysplit.split import Problem


def setup_of_grid(
    *,
    flops_per_token: Mapping[int, float] | Sequence[int],
    pretrain_tokens: Sequence[int],
    specialize_tokens: Sequence[int],
    domains: Sequence[str],
    target_flops: float,
    target_flops_per_token: Mapping[int, float] | Sequence[int] | None = None,
    accounting: Literal["shared", "per-expert"] = "shared",
    weights: Mapping[str, float] | None = None,
    cooldown_fraction: float = 0.0,
    budget_flops: float = math.inf,
    regret_tolerance: float = 0.002,
    policy: Literal["adaptive", "grid"] = "adaptive",
    design: DesignName = "value",
    lanes: int = 1,
    step_tokens: int = 1,
    seed: int = 0,
    fills_idle_lanes: bool = False,
    shares_trunks: bool = True,
) -> Setup:
    """Resolve the question and the grid of runs that may be trained to answer it.

    Prices are those of the tree: a branch goes on from its trunk's checkpoint (unless trunks are not shared), and a
    trunk or branch that was stopped from its own.

    Args:
        flops_per_token: F(N) of each size of the runs, or the sizes alone, rising, for F(N) = 6N.
        pretrain_tokens: grid of D, rising; 0 is training from scratch on the domain.
        specialize_tokens: grid of D' > 0, rising.
        domains: names; what a trunk reports the losses of.
        target_flops: the budget whose best split is asked for.
        target_flops_per_token: likewise of the sizes that the answer may choose between; the runs' own when left out.
        accounting: shared: the target pays for one seed and all experts; per-expert: for the seed and one of them.
        weights: how much a domain's loss counts; 1 for those not named.
        cooldown_fraction: share of a point's tokens that are trained for its measurement alone, beside the path that
            others go on from; 0 where the loss is read in passing.
        budget_flops: most FLOPs that the search itself may train; its opening round is run whatever that costs.
        regret_tolerance: the search ends when the expected regret is below this share of the loss.
        policy: adaptive, or grid: every point.
        design: by what an adaptive search ranks its trials, see `raysplit.design.designs`.
        lanes: most trials that run at the same time.
        step_tokens: tokens in one optimizer step.
        seed: of the design's own draws.
        fills_idle_lanes: whether a lane that would wait for a round's last trials gets one more, which makes the search
            depend on how fast each trial is.
        shares_trunks: whether a branch goes on from the checkpoint of its trunk. Where the trainable cannot, every
            branch pretrains by itself: it is charged D + D', waits for no trunk, and fewer but longer runs pay.

    Raises:
        SpaceError: a grid or number is impossible; the message names it.
        SplitError: the target is.
    """
    for name, grid, least in (
        ("flops_per_token", flops_per_token, 1),
        ("target_flops_per_token", flops_per_token if target_flops_per_token is None else target_flops_per_token, 1),
        ("pretrain_tokens", pretrain_tokens, 0),
        ("specialize_tokens", specialize_tokens, 1),
    ):
        _check_grid(name, list(grid), least)
    flops = _flops_of("flops_per_token", flops_per_token)
    if isinstance(domains, str) or not domains or not all(isinstance(name, str) and name for name in domains):
        raise SpaceError(f"domains must be names, none of them empty, got {domains!r}")
    for name, choice, choices in (
        ("accounting", accounting, ("shared", "per-expert")),
        ("policy", policy, ("adaptive", "grid")),
        ("design", design, get_args(DesignName)),
    ):
        if choice not in choices:
            raise SpaceError(f"{name}: " + unknown(name, choice, choices))
    for name, number in (("target_flops", target_flops), ("budget_flops", budget_flops)):
        if not _is_number(number):
            raise SpaceError(f"{name} must be a number, got {number!r}")
    for name, count, least in (("lanes", lanes, 1), ("step_tokens", step_tokens, 1), ("seed", seed, 0)):
        if not _is_count(count, least):
            raise SpaceError(f"{name} must be a whole number of at least {least}, got {count!r}")
    if max(pretrain_tokens) == 0:
        raise SpaceError("pretrain_tokens: at least one D must be above 0, got [0]")
    for name, value in (("cooldown_fraction", cooldown_fraction), ("regret_tolerance", regret_tolerance)):
        if not _is_number(value) or not 0 <= value < 1:
            raise SpaceError(f"{name} must be at least 0 and below 1, got {value!r}")
    if not budget_flops > 0:
        raise SpaceError(f"budget_flops must be positive, got {budget_flops!r}")
    for name, weight in (weights or {}).items():
        if name not in domains:
            raise SpaceError("weights: " + unknown("domain", name, domains))
        if not _is_number(weight):
            raise SpaceError(f"weights: {name} must be a number, got {weight!r}")
    target = flops
    if target_flops_per_token is not None:
        target = _flops_of("target_flops_per_token", target_flops_per_token)
    return Setup(
        problem=Problem(
            budget_flops=target_flops,
            sizes=target,
            domains=tuple(domains),
            weights=[(weights or {}).get(name, 1.0) for name in domains],
            accounting=accounting,
        ),
        flops_per_token=flops,
        domains=tuple(domains),
        tree=Tree(
            cooldown_start=CooldownStart(fraction=cooldown_fraction),
            pretrain_grid=tuple(int(d) for d in pretrain_tokens if d),
            shares_trunks=shares_trunks,
        ),
        specialize_grid=tuple(map(int, specialize_tokens)),
        scratch=0 in pretrain_tokens,
        policy=policy,
        design=design,
        budget_flops=float(budget_flops),
        regret_tolerance=regret_tolerance,
        repeats=(),
        lanes=lanes,
        step_tokens=step_tokens,
        seed=seed,
        fills_idle_lanes=fills_idle_lanes,
    )


def _flops_of(name: str, sizes: Mapping[int, float] | Sequence[int]) -> dict[int, float]:
    if isinstance(sizes, Mapping):
        for n, flops in sizes.items():
            if not _is_number(flops) or not 0 < flops < math.inf:
                raise SpaceError(f"{name}: F({n}) must be a positive number, got {flops!r}")
        return {int(n): float(flops) for n, flops in sizes.items()}
    return {int(n): 6.0 * n for n in sizes}


def _check_grid(name: str, grid: list[int], least: int) -> None:
    if not grid or not all(_is_count(value, least) for value in grid) or grid != sorted(set(grid)):
        raise SpaceError(f"{name} must be whole numbers of at least {least} that rise, got {grid}")


def _is_count(value: Any, least: int) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real)
