"""Hypothesis strategies for trees of runs, and a lane that only counts tokens."""

from collections.abc import Iterable

from hypothesis import strategies as st

from raysplit.design.tree import Checkpoints, Tree, Trial
from raysplit.space import CooldownStart

Measurement = tuple[Trial, int]
"""A trial and one of its milestones."""


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Geometries as a search space makes them: whole steps, at least one of them in every cooldown."""
    step = draw(st.sampled_from([1, 4]))
    share = draw(st.floats(0.05, 0.9))
    grid = draw(st.sets(st.integers(2, 40), min_size=1, max_size=5))
    return Tree(
        cooldown_start=CooldownStart(fraction=share, step_tokens=step, least_steps=1),
        pretrain_grid=tuple(step * d for d in sorted(grid)),
    )


@st.composite
def measurements(draw: st.DrawFn, *, tree: Tree, max_size: int = 8) -> list[Measurement]:
    """Distinct measurements in an order in which they can be made: every trunk before the branches that leave it."""
    trunks: dict[int, int] = {}
    for n_params in draw(st.lists(st.sampled_from([10, 20]), min_size=1, max_size=2, unique=True)):
        trunks[n_params] = draw(st.integers(1, len(tree.pretrain_grid)))
    out: list[Measurement] = []
    for n_params, reach in trunks.items():
        grid = tree.pretrain_grid[:reach]
        trunk = Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=grid[-1], milestones=grid)
        out += [(trunk, d) for d in grid]
    branches = draw(
        st.lists(
            st.tuples(
                st.sampled_from(sorted(trunks)),
                st.sampled_from("ab"),
                st.integers(0, len(tree.pretrain_grid)),
                st.sampled_from(range(1, 6)),
            ),
            max_size=max_size,
            unique=True,
        )
    )
    for n_params, domain, root, times in branches:
        grid = (0, *tree.pretrain_grid[: trunks[n_params]])
        milestone = times * tree.pretrain_grid[0]
        branch = Trial(
            n_params=n_params,
            seed=0,
            domain=domain,
            pretrain_tokens=grid[root % len(grid)],
            milestones=(milestone,),
        )
        if (branch, milestone) not in out:
            out.append((branch, milestone))
    return out


def train(tree: Tree, made: Iterable[Measurement], nodes: Checkpoints) -> int:
    """Make measurements one after the other as a lane does; returns the tokens trained and grows ``nodes``."""
    total = 0
    for trial, milestone in made:
        if trial.is_trunk:
            nodes.add(trial.root)
        for segment in tree.segments(trial, milestone, nodes):
            total += segment.tokens
            if not segment.cooldown:
                nodes.add(segment.end)
    return total


def tokens_alone(tree: Tree, trial: Trial, milestone: int) -> int:
    """What a measurement takes when nothing else has been trained."""
    return tree.missing_tokens(trial, [milestone], Checkpoints())
