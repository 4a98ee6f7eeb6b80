"""A small sweep's set-up, and evidence of it without training."""

from collections.abc import Collection, Iterable, Sequence
from itertools import product

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Tree, Trial
from raysplit.design.tree_state import TreeState, chain, key, remaining, tree_state_of
from raysplit.space import CooldownStart
from raysplit.split import Problem
from tests.split.doubles import known_law

SIZES = (14_000, 36_000)
PRETRAIN = (250_000, 500_000, 1_000_000, 2_000_000)
SPECIALIZE = (125_000, 250_000, 500_000)


def spec(
    *,
    n_domains: int = 2,
    sizes: Sequence[int] = SIZES,
    pretrain_grid: Sequence[int] = PRETRAIN,
    specialize_grid: Sequence[int] = SPECIALIZE,
    scratch: bool = False,
    policy: str = "adaptive",
    budget_flops: float = 4e12,
    regret_tolerance: float = 0.0,
    repeats: tuple[Trial, ...] = (),
    lanes: int = 2,
) -> ResolvedSpec:
    """Domains are those of `tests.split.doubles.known_law`, FLOPs 6N a token, cooldowns a quarter."""
    flops = {n: 6.0 * n for n in sizes}
    domains = tuple(f"domain-{k}" for k in range(n_domains))
    return ResolvedSpec(
        problem=Problem(budget_flops=1e12, sizes=flops, domains=domains),
        flops_per_token=flops,
        domains=domains,
        tree=Tree(cooldown_start=CooldownStart(fraction=0.25), pretrain_grid=tuple(pretrain_grid)),
        specialize_grid=tuple(specialize_grid),
        scratch=scratch,
        policy="grid" if policy == "grid" else "adaptive",
        design="value",
        budget_flops=budget_flops,
        regret_tolerance=regret_tolerance,
        repeats=repeats,
        lanes=lanes,
        step_tokens=4096,
        seed=0,
    )


def every_point(spec: ResolvedSpec) -> set[tuple[int, str, int, int]]:
    """(N, domain, D, D') of the whole grid; the domain of a trunk's point is empty."""
    roots = (0, *spec.pretrain_grid) if spec.scratch else spec.pretrain_grid
    trunks = {(n, "", d, 0) for n, d in product(spec.sizes, spec.pretrain_grid)}
    return trunks | set(product(spec.sizes, spec.domains, roots, spec.specialize_grid))


def points(trials: Iterable[Trial]) -> list[tuple[int, str, int, int]]:
    return [(trial.n_params, trial.domain, *trial.point(m)) for trial in trials for m in trial.milestones]


def measured(spec: ResolvedSpec, trials: Iterable[Trial], closed: Collection[Trial] = ()) -> TreeState:
    """Evidence after the trials, every loss the known law's first draw's."""
    law = known_law(n_domains=len(spec.domains))
    losses = {}
    for trial in trials:
        for milestone in trial.milestones:
            d, s = trial.point(milestone)
            every = law.loss([[trial.n_params]], [[d]], [[s]])[0]
            losses[key(trial, milestone)] = dict(zip(spec.domains, map(float, every), strict=True))
    return tree_state_of(spec, losses, closed)


def carried_out(spec: ResolvedSpec, trials: Iterable[Trial], before: TreeState) -> TreeState:
    """Evidence after a round more."""
    more = measured(spec, [t for t in trials if remaining(t, before)])
    return tree_state_of(spec, {**before.losses, **more.losses}, {chain(t) for t in before.closed})
