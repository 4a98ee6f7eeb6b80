"""Losses measured on the target budget's line of splits: those of the final run's variants, and the sweep's own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from raysplit.quantities import format_count
from raysplit.report.story import Story
from raysplit.split import Split, loss_curve
from raysplit.split.measured import comparable, measured_surface


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One measured split on the target budget's line."""

    name: str
    pretrain_share: float
    """Share of the split's tokens that goes into pretraining, 0 to 1."""
    loss: float
    """Mean over the domains by the advice's weights, nats per token."""


def measured_variants(story: Story) -> list[Point]:
    """The final run's variants as points; none where the final run was made at another size or budget."""
    if story.final is None or not story.final_is_comparable:
        return []
    points = []
    for name, variant in story.final.variants.items():
        problem = replace(story.problem, seeds=variant.seeds)
        split = Split(
            n_params=story.final.n_params, pretrain_tokens=variant.pretrain_tokens,
            specialize_tokens={k: float(tokens) for k, tokens in variant.specialize_tokens.items()},
        )  # fmt: skip
        points.append(
            Point(name=name, pretrain_share=problem.pretrain_share(split), loss=weighted(story, variant.losses))
        )
    return points


def weighted(story: Story, losses: Mapping[str, float]) -> float:
    """Mean over the domains by the advice's weights."""
    return float(sum(weight * losses[name] for name, weight in story.advice.weights.items()))


def sweep_readings(story: Story) -> list[Point]:
    """The sweep's own losses on the target budget's line, where its grid reaches: nothing is extrapolated.

    At each measured D the law divides the other tokens among the domains. Each domain's loss there is interpolated in
    D'. From bases there are none.
    """
    n_params = story.advice.split.n_params
    problem = story.problem
    grids = measured_surface(story.observations, problem.domains).get(n_params, {})
    if problem.bases:
        return []
    *_, total = problem.pretrain_range(n_params)
    n_seeds = problem.n_seeds
    inside = [
        d for d in comparable(grids, total, accounting=problem.accounting, n_seeds=n_seeds) if 0 < n_seeds * d <= total
    ]
    if not inside:
        return []
    curve = loss_curve(story.law, problem, n_params=n_params, shares=[n_seeds * d / total for d in inside])
    points = []
    for d, share, tokens in zip(inside, curve.shares, curve.specialize_tokens, strict=True):
        losses = [grid.loss(s) for grid, s in zip(grids[d], tokens, strict=True)]
        if np.isfinite(losses).all():
            loss = float(np.asarray(losses) @ np.asarray(problem.weights))
            points.append(Point(name=format_count(d), pretrain_share=float(share), loss=loss))
    return points
