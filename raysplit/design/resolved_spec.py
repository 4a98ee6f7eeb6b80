"""Everything that the design of a sweep rests on, resolved once from the search space: plain numbers, no text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from raysplit.design.tree import Tree, Trial
from raysplit.errors import SplitError
from raysplit.space import DesignName, Space
from raysplit.split import Problem, target_problem


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedSpec:
    """The question, the grid of observations that may be bought to answer it, and their prices."""

    problem: Problem
    """The target: what the answer is judged by."""
    flops_per_token: dict[int, float]
    """Exact F(N) of each size of the sweep, by its non-embedding parameter count, rising."""
    domains: tuple[str, ...]
    tree: Tree
    specialize_grid: tuple[int, ...]
    scratch: bool
    """Whether the grid of D holds 0: experts trained on their domain alone."""
    policy: Literal["adaptive", "grid"]
    design: DesignName
    """How an adaptive sweep ranks its candidates (`raysplit.design.designs`)."""
    budget_flops: float
    """Most FLOPs that the sweep itself may train; infinite without a limit."""
    regret_tolerance: float
    repeats: tuple[Trial, ...]
    """Trials under other seeds: each trunk, then its branches."""
    lanes: int
    step_tokens: int
    """Tokens in one optimizer step."""
    seed: int
    fills_idle_lanes: bool = False
    """Whether a lane that has nothing to do in a round is given one more trial."""
    replay_share: float = 0.0
    """p of every branch from a base, unless `replay_shares` gives several."""
    replay_shares: tuple[float, ...] = ()
    """The p that are tried; empty where all branches have one."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.flops_per_token)

    @property
    def branch_shares(self) -> tuple[float, ...]:
        """Each `Trial.replay_share` that a branch may have; 0 alone where the sweep tries no others."""
        return self.replay_shares or (0.0,)

    @property
    def pretrain_grid(self) -> tuple[int, ...]:
        return self.tree.pretrain_grid


def spec_of(
    space: Space,
    *,
    vocab_size: int,
    domain_tokens: Mapping[str, float] | None = None,
    base_tokens: Mapping[int, Mapping[str, float]] | None = None,
) -> ResolvedSpec:
    """Resolve a search space for a tokenizer of ``vocab_size`` tokens and a corpus of so many tokens per domain.

    Where bases have several tokenizers, ``base_tokens`` are these tokens for each base, by its size.

    Raises:
        SplitError: the target contradicts itself, or its budget is too small for any split.
    """
    shapes = {size: space.shape(size, vocab_size) for size in sorted(space.model.sizes)}
    flops = {shape.n_params_non_embedding: float(shape.flops_per_token) for shape in shapes.values()}
    problem = target_problem(space, vocab_size=vocab_size, domain_tokens=domain_tokens, base_tokens=base_tokens)
    _check_budget(space, problem)
    return ResolvedSpec(
        problem=problem,
        flops_per_token=flops,
        domains=space.domains,
        tree=tree_of(space),
        specialize_grid=space.specialize_grid,
        scratch=0 in space.pretrain_grid,
        policy=space.sweep.policy,
        design=space.sweep.design,
        budget_flops=space.sweep.budget_flops or float("inf"),
        regret_tolerance=space.sweep.regret_tolerance,
        repeats=_repeats(space, vocab_size=vocab_size),
        lanes=space.compute.lanes,
        step_tokens=space.training.batch_tokens,
        seed=space.sweep.seed,
        fills_idle_lanes=space.sweep.idle_lanes == "fill",
        replay_share=space.training.replay_share if space.model.checkpoints else 0.0,
        replay_shares=space.sweep.replay_shares,
    )


def _check_budget(space: Space, problem: Problem) -> None:
    """Refuse a target that cannot pay one optimizer step of pretraining and one of each expert at any size."""
    n_paths = (0 if problem.bases else problem.n_seeds) + (
        len(problem.domains) if problem.accounting == "shared" else 1
    )
    least_flops = n_paths * space.training.batch_tokens * min(problem.sizes.values())
    if problem.budget_flops < least_flops:
        raise SplitError(
            f"target.budget_flops = {problem.budget_flops:g} is too small for any split: one step of "
            f"{space.training.batch_tokens} tokens for the seed and for each expert at the smallest size of "
            f"{min(problem.sizes)} parameters takes {least_flops:.3g} FLOPs"
        )


def tree_of(space: Space) -> Tree:
    """The geometry of a space's checkpoints."""
    return Tree(
        cooldown_start=space.cooldown_start,
        pretrain_grid=tuple(d for d in space.pretrain_grid if d),
        given=tuple(
            (checkpoint.counted.n_params, checkpoint.trunk_tokens)
            for checkpoint in space.model.checkpoints
            if checkpoint.counted is not None
        ),
    )


def _repeats(space: Space, *, vocab_size: int) -> tuple[Trial, ...]:
    trials = []
    for repeat in space.sweep.repeats:
        n_params = space.shape(repeat.n_params, vocab_size).n_params_non_embedding
        pretrain, specialize = space.round_tokens(repeat.pretrain_tokens), space.round_tokens(repeat.specialize_tokens)
        for seed in repeat.seeds:
            trials.append(
                Trial(n_params=n_params, seed=seed, domain="", pretrain_tokens=pretrain, milestones=(pretrain,))
            )
            trials += [
                Trial(n_params=n_params, seed=seed, domain=domain, pretrain_tokens=pretrain, milestones=(specialize,))
                for domain in space.domains
            ]
    return tuple(trials)
