"""What a sweep cost, and what stopping trials and sharing the tree of runs saved."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from raysplit.design.campaign import whole_grid
from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Trial
from raysplit.design.tree_state import key, price, tree_state_of
from raysplit.live.state import SweepState


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a set of points takes to train."""

    n_points: int
    """Pairs of (trunk or branch, milestone); a trunk's counts once, though its loss is read on every domain."""
    tokens: float
    """Tokens trained."""
    flops: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What a sweep spent, and what it would have spent otherwise."""

    spent: Cost
    """The points measured, as the tree of runs pays for them: each token once, without what a crash trained twice."""
    independent: Cost
    """The same points, each trained from initialisation."""
    stopped: Cost
    """The milestones that stopped trials skipped: what they would have added to the tree."""
    grid: Cost
    """Every point of the search space's grid, as a tree."""


def costs_of(spec: ResolvedSpec, history: SweepState) -> Costs:
    """The costs of a sweep, computed from its tree of runs; nothing here is timed."""
    by_token = replace(spec, flops_per_token=dict.fromkeys(spec.flops_per_token, 1.0))
    points = set(history.losses)
    nodes = tree_state_of(spec, history.losses).nodes
    lengths = {at: sum(at[0].point(at[1])) for at in points}
    skipped = [ending for ending in history.stops if ending.skipped]

    def as_tree(wanted: Iterable[tuple[Trial, int]]) -> Cost:
        asked = {at: dict[str, float]() for at in wanted}
        return Cost(
            n_points=len(asked), tokens=tree_state_of(by_token, asked).spent_flops,
            flops=tree_state_of(spec, asked).spent_flops,
        )  # fmt: skip

    return Costs(
        spent=as_tree(points),
        independent=Cost(
            n_points=len(points), tokens=float(sum(lengths.values())),
            flops=sum(spec.flops_per_token[at[0].n_params] * tokens for at, tokens in lengths.items()),
        ),
        stopped=Cost(
            n_points=sum(len(ending.skipped) for ending in skipped),
            tokens=sum(price(by_token, ending.trial, ending.skipped, nodes) for ending in skipped),
            flops=sum(price(spec, ending.trial, ending.skipped, nodes) for ending in skipped),
        ),
        grid=as_tree(key(trial, m) for trial in whole_grid(spec).trials for m in trial.milestones),
    )  # fmt: skip
