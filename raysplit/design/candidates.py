"""What a sweep could run next: every trial that is open, what it would measure, and what it would cost.

A candidate is a handful of trials that make sense together: a branch to some D', with the trunk that it needs first; a
trunk alone; or a new branch point with a branch of every domain, for a trunk that none of them would be worth alone.

Notation
    M   candidates          P   points (N, D, D') of the grid          K   domains          X = P x K
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Checkpoints, Node, Tree, Trial
from raysplit.design.tree_state import TreeState, chain, price, price_together
from raysplit.design.value import Array, Belief, Index, NoisyLaw, belief_of
from raysplit.law.shares import name_at


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Trials to run together, in this order."""

    branches: tuple[Trial, ...]
    """Branches of one branch point; none where the trunk alone is wanted."""
    root: tuple[int, int]
    """(N, D) to which a trunk must go; D = 0 from scratch."""
    columns: tuple[int, ...]
    """What the branches measure, as indices into X."""
    branch_flops: float
    """FLOPs of the branches, without the trunk."""


class Candidates:
    """Everything that is open, with prices that fall as trunks are chosen."""

    def __init__(
        self, spec: ResolvedSpec, grid: "CandidateGrid", every: Sequence[Candidate], nodes: Checkpoints
    ) -> None:
        self.every = list(every)
        self.open: NDArray[np.bool_] = np.ones(len(every), dtype=bool)
        """(M,) whether each can still be chosen."""
        self._spec, self._grid = spec, grid
        self._nodes = nodes.copy()  # those that exist, and those that will once what was chosen has run
        self._branch_flops = np.array([c.branch_flops for c in every])
        self._with_root: dict[tuple[int, int, bool], list[int]] = {}
        self._with_chain: dict[Trial, list[int]] = {}
        for i, c in enumerate(every):
            self._with_root.setdefault((*c.root, not c.branches), []).append(i)
            for trial in c.branches:
                self._with_chain.setdefault(chain(trial), []).append(i)
        width = max((len(c.columns) for c in every), default=0) + len(grid.domains)
        self.prices: Array = np.zeros(len(every))
        """(M,) FLOPs"""
        self.groups: Index = np.full((len(every), width), -1, dtype=np.intp)
        """(M, m) what each would measure, as indices into X or -1; its trunk's own point too, if it must be trained."""
        for i, c in enumerate(every):
            self.groups[i, len(grid.domains) : len(grid.domains) + len(c.columns)] = c.columns
        self._price({n_params for n_params, _, _ in self._with_root})

    def take(self, index: int) -> list[Trial]:
        """Choose a candidate; returns its trials, trunk first. Others of its chains, and its trunk alone, close."""
        chosen = self.every[index]
        trunks = self._trunks(chosen.root, measured=not chosen.branches)
        trials = [*trunks, *chosen.branches]
        price_together(self._spec, trials, self._nodes)  # adds the checkpoints
        for trial in chosen.branches:
            self.open[self._with_chain[chain(trial)]] = False
        if trunks:
            self.open[self._with_root.get((*chosen.root, True), [])] = False
            # A bundle was for a trunk that is not there.
            at_root = self._with_root.get((*chosen.root, False), [])
            self.open[[i for i in at_root if len(self.every[i].branches) > 1]] = False
            self._price({chosen.root[0]})
        return trials

    def _price(self, sizes: Collection[int]) -> None:
        for (n_params, tokens, measured), own in self._with_root.items():
            if n_params not in sizes:
                continue
            trunks = self._trunks((n_params, tokens), measured=measured)
            nodes = Checkpoints(self._nodes.on_trunk(n_params, 0))
            self.prices[own] = self._branch_flops[own] + sum(price(self._spec, t, t.milestones, nodes) for t in trunks)
            self.groups[own, : len(self._grid.domains)] = (
                [i for t in trunks for i in self._grid.columns(t, t.milestones)] if trunks else -1
            )

    def _trunks(self, root: tuple[int, int], *, measured: bool) -> list[Trial]:
        """The trunk that has to reach a root; none where it is there, unless its own point is wanted."""
        n_params, tokens = root
        at = Node(n_params=n_params, seed=0, pretrain_tokens=tokens)
        tree = self._spec.tree
        is_missing = tree.shares_trunks and at not in self._nodes and not tree.is_given(at)
        return [trunk(n_params, (tokens,))] if tokens and (measured or is_missing) else []


@dataclass(frozen=True, slots=True)
class CandidateGrid:
    """Which column of a belief is which observation."""

    domains: tuple[str, ...]
    """The law's domains: where there are several replayed shares, each domain once for each of them."""
    has_shares: bool
    index: Mapping[tuple[int, int, int], int]

    @classmethod
    def of(cls, spec: ResolvedSpec) -> "CandidateGrid":
        points = [(n, d, 0) for n in spec.sizes for d in spec.tree.pretrain_tokens_of(n)]
        points += [(n, d, s) for n in spec.sizes for d in roots(spec, n) for s in spec.specialize_grid]
        shares = spec.replay_shares
        domains = tuple(name_at(*each) for each in product(spec.domains, shares)) if shares else spec.domains
        return cls(domains, bool(shares), {point: i for i, point in enumerate(points)})

    def columns(self, trial: Trial, milestones: Iterable[int]) -> tuple[int, ...]:
        """Indices into X of what a trial measures at these milestones: a trunk every domain, a branch its own."""
        own = range(len(self.domains)) if trial.is_trunk else (self.domains.index(self._name_of(trial)),)
        at = [self.index[(trial.n_params, *trial.point(m))] * len(self.domains) for m in milestones]
        return tuple(i + k for i in at for k in own)

    def _name_of(self, branch: Trial) -> str:
        return name_at(branch.domain, branch.replay_share) if self.has_shares else branch.domain


def believe(spec: ResolvedSpec, law: NoisyLaw) -> Belief:
    """What a law says of the decision and of every point of the grid, as `CandidateGrid.columns` numbers them."""
    grid = CandidateGrid.of(spec)
    to_law = [law.domains.index(name) for name in grid.domains]
    n, d, s = np.array(list(grid.index), dtype=float).T
    belief = belief_of(law, spec.problem, n, d, s)
    order = (np.arange(len(n))[:, None] * len(to_law) + np.array(to_law)).ravel()
    return replace(belief, foreseen=belief.foreseen[:, order], noise=belief.noise[order])


def candidates_of(spec: ResolvedSpec, grid: CandidateGrid, tree_state: TreeState) -> Candidates:
    """Everything that is open: not measured, not given up, and deeper than what its chain has reached."""
    found: list[Candidate] = []
    tokens = _BranchTokens(spec.tree)
    shares_trunks = spec.tree.shares_trunks
    for n_params in spec.sizes:
        stuck = chain(trunk(n_params, (1,))) in tree_state.closed
        reached = {node.pretrain_tokens for node in tree_state.nodes.on_trunk(n_params, 0)}
        for d in roots(spec, n_params):
            if stuck and shares_trunks and d not in reached | {0}:
                continue
            if d and not stuck and (chain(trunk(n_params, (d,))), d) not in tree_state.losses:
                found.append(Candidate(branches=(), root=(n_params, d), columns=(), branch_flops=0.0))
            together: dict[int, list[Candidate]] = {}
            for domain, share in product(spec.domains, spec.branch_shares):
                whole = Trial(
                    n_params=n_params, seed=0, domain=domain, pretrain_tokens=d, milestones=spec.specialize_grid,
                    replay_share=share,
                )  # fmt: skip
                for depth, one in _branches(spec, grid, tree_state, whole, tokens):
                    found.append(one)
                    together.setdefault(depth, []).append(one)
            is_new = d not in reached and not spec.tree.given
            if len(spec.domains) > 1 and shares_trunks and is_new:
                found += [_bundle(group) for group in together.values() if len(group) == len(spec.domains)]
    return Candidates(spec, grid, found, tree_state.nodes)


def trunk(n_params: int, milestones: Sequence[int]) -> Trial:
    """The trunk of a size, measured at these D."""
    return Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=milestones[-1], milestones=tuple(milestones))


def roots(spec: ResolvedSpec, n_params: int) -> tuple[int, ...]:
    """Every D at which a branch of a size may leave, 0 included when the grid has it."""
    grid = spec.tree.pretrain_tokens_of(n_params)
    return (0, *grid) if spec.scratch else grid


class _BranchTokens:
    """Tokens that a branch has left to train, computed once for all branches that have got equally far."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._known: dict[tuple[int, tuple[int, ...], tuple[int, ...]], int] = {}

    def missing(self, whole: Trial, milestones: tuple[int, ...], there: Checkpoints) -> int:
        root = 0 if self._tree.shares_trunks else whole.pretrain_tokens
        at = (root, tuple(sorted(node.position for node in there.on_chain(whole))), milestones)
        if at not in self._known:
            self._known[at] = self._tree.missing_tokens(whole, milestones, there)
        return self._known[at]


def _branches(
    spec: ResolvedSpec, grid: CandidateGrid, tree_state: TreeState, whole: Trial, tokens: _BranchTokens
) -> Iterable[tuple[int, Candidate]]:
    """(depth, branch) for each milestone left: with every point on the way, and as -depth with the last point only."""
    if chain(whole) in tree_state.closed:
        return
    # A checkpoint that a branch has left behind is deleted, so it only goes on.
    deepest = max((m for m in whole.milestones if (chain(whole), m) in tree_state.losses), default=0)
    rest = tuple(m for m in whole.milestones if m > deepest)
    there = Checkpoints([*tree_state.nodes.on_chain(whole), whole.root])
    for i, last in enumerate(rest):
        for depth, milestones in {last: rest[: i + 1], -last: (last,)}.items() if i else [(last, (last,))]:
            missing = tokens.missing(whole, milestones, there)
            yield (
                depth,
                Candidate(
                    branches=(replace(whole, milestones=milestones),),
                    root=(whole.n_params, whole.pretrain_tokens),
                    columns=grid.columns(whole, milestones),
                    branch_flops=missing * spec.flops_per_token[whole.n_params],
                ),
            )


def _bundle(group: Sequence[Candidate]) -> Candidate:
    return Candidate(
        branches=tuple(t for c in group for t in c.branches),
        root=group[0].root,
        columns=tuple(i for c in group for i in c.columns),
        branch_flops=sum(c.branch_flops for c in group),
    )
