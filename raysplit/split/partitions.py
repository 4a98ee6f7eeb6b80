"""Is it worth splitting the text into eight domains rather than four? Partitions of one text, compared at one budget.

Every partition has a law of its own, fitted to runs of its own domains; the loss that counts is that of the whole text,
so the weights of a partition's domains are their shares of it. More domains specialize more closely and leave each
expert fewer tokens: which wins is for the runs to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysplit.errors import SplitError
from raysplit.quantities import format_count
from raysplit.split.advice import Interval
from raysplit.split.losses import losses_of
from raysplit.split.problem import Problem, Split
from raysplit.split.search import best_split
from raysplit.split.surface import LawLike


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionAdvice:
    """One partition at its best split."""

    name: str
    n_domains: int
    split: Split
    loss: Interval
    """Of the whole text, nats per token."""
    excess: Interval
    """How far the loss is above that of the best partition, as a share of it."""
    probability: float
    """Share of the draws in which this partition is the best."""


def compare_partitions(
    candidates: Mapping[str, tuple[LawLike, Problem]], *, level: float = 0.9
) -> list[PartitionAdvice]:
    """Every partition's best split at the same budget, the best partition first.

    Args:
        candidates: By name, the law of each partition and its problem. Weights are shares of the text; the laws must
            have been measured on the same held-out text with the same tokenizer, and have the same number of draws.
        level: Probability of the intervals.

    Raises:
        SplitError: fewer than two partitions; problems that differ in budget, accounting, seeds or inference tokens;
            laws that differ in their number of draws; or no feasible split.
    """
    if len(candidates) < 2:
        raise SplitError(f"a comparison needs at least two partitions, got {', '.join(candidates) or 'none'}")
    first_name, (first_law, first) = next(iter(candidates.items()))
    for name, (law, problem) in candidates.items():
        for what in ("budget_flops", "accounting", "seeds", "inference_tokens"):
            here, there = getattr(problem, what), getattr(first, what)
            if here != there:
                raise SplitError(f"partitions differ in {what}: {there!r} for {first_name}, {here!r} for {name}")
        if law.n_draws != first_law.n_draws:
            raise SplitError(f"laws differ in draws: {first_law.n_draws} for {first_name}, {law.n_draws} for {name}")
    splits = {name: best_split(law, problem) for name, (law, problem) in candidates.items()}
    draws = {name: losses_of(law, [splits[name]], problem)[:, 0] for name, (law, problem) in candidates.items()}
    best = min(draws, key=lambda name: float(draws[name].mean()))
    winner = np.argmin(np.stack(list(draws.values())), axis=0)
    found = [
        PartitionAdvice(
            name=name,
            n_domains=len(problem.domains),
            split=splits[name],
            loss=Interval.of(draws[name], level),
            excess=Interval.of(draws[name] / draws[best] - 1.0, level),
            probability=float((winner == j).mean()),
        )
        for j, (name, (_, problem)) in enumerate(candidates.items())
    ]
    return sorted(found, key=lambda one: one.loss.mean)


def render_partitions(found: Sequence[PartitionAdvice]) -> str:
    """The comparison as a table for a person."""
    lines = [
        f"{'partition':20} {'domains':>8} {'model size':>11} {'pretrain':>9} {'loss':>8} {'worse by':>9}  interval"
    ]
    for one in found:
        lines.append(
            f"{one.name:20} {one.n_domains:8} {format_count(one.split.n_params):>11} "
            f"{format_count(one.split.pretrain_tokens):>9} {one.loss.mean:8.4f} {one.excess.mean:9.2%}  "
            f"{one.excess.low:.2%} to {one.excess.high:.2%}, best in {one.probability:.0%}"
        )
    return "\n".join(lines)
