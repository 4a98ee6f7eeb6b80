"""Which trials next, which to stop, when to end: pure decisions on what has been measured so far.

A sweep goes in rounds. The law is fitted when a round has ended. Every decision of the next round rests on that law and
on the losses of the trial that is judged, never on which of two lanes happened to be faster. So a sweep that a crash
interrupted, one that ran through, and the replay of a table all decide alike. Only where idle lanes are filled does a
round grow by what there was time for (`enlarged`); then the same order of arrival gives the same decisions.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from raysplit.design.candidates import CandidateGrid, candidates_of, roots, trunk
from raysplit.design.designs import DESIGNS
from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Trial
from raysplit.design.tree_state import TreeState, chain, key, price, price_together, remaining
from raysplit.design.value import Belief
from raysplit.quantities import counted

_GROWTH = 0.4
"""A round spends about this share of what was spent before: early on the law is asked again after little money."""
_ROUNDS_PER_BUDGET = 8
"""A round spends at most this part of the sweep's budget, so that the law is asked again before it is gone."""
_WORTH = 0.02
"""A trial is not begun if it removes less regret per FLOP than this share of the mean rate that would remove all regret
with the budget that is left."""
_HANDLING = 0.02
"""What starting a trial costs beside its training, as a share of a round's FLOPs: lanes and law must be asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Trials to run, in this order as far as lanes are free and the trunks they need have got there."""

    trials: tuple[Trial, ...]
    why: str
    planned: tuple[Trial, ...] = ()
    """How far each trial was worth going when the round was made; `judge` may stop it before or let it go on."""
    rate: float = 0.0
    """Expected drop of regret per FLOP of the least worthwhile planned trial: what a trial's rest must be worth; 0 for
    the classic designs."""
    spare_flops: float = float("inf")
    """FLOPs that each branch may spend beyond its plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """The end of the sweep."""

    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a trial goes on after a milestone."""

    go_on: bool
    why: str


def whole_grid(spec: ResolvedSpec) -> Round:
    """Every point of the grid: trunks, then branches, the largest sizes first in both; then the repeats."""
    trunks = [trunk(n, spec.tree.pretrain_tokens_of(n)) for n in reversed(spec.sizes)]
    branches = [
        Trial(n_params=n, seed=0, domain=domain, pretrain_tokens=d, milestones=spec.specialize_grid, replay_share=share)
        for n in reversed(spec.sizes)
        for d in roots(spec, n)
        for domain, share in product(spec.domains, spec.branch_shares)
    ]
    return Round(trials=(*trunks, *branches, *spec.repeats), why="the whole grid")


def opening(spec: ResolvedSpec) -> Round:
    """The first round, before there is a law: the cheapest that tells something of each of N, D and D'.

    The smallest size is pretrained to two D, the next two sizes to the least. Each domain branches from them a short
    way, at a D' that moves along the grid, so that D'/D and D/N both vary: runs at one ratio cannot tell a law's data
    terms apart (2605.08541). With two sizes instead of three the first laws mistook the best N more often
    (LOG 2026-11-24). Bases that are given are all measured, as they need not lie on one curve; the branches take the
    replayed shares in turn. Repeats come along, since they tell the noise.
    """
    trials: list[Trial] = []
    shares = spec.branch_shares
    for i, n_params in enumerate(spec.sizes if spec.tree.given else spec.sizes[:3]):
        reach = spec.tree.pretrain_tokens_of(n_params)[: 1 if i else 2]
        trials.append(trunk(n_params, reach))
        for k, domain in enumerate(spec.domains):
            for d in reach if i == 0 else reach[-1:]:
                at = (k + (d != reach[0]) + i) % max(1, min(2, len(spec.specialize_grid)))
                trials.append(
                    Trial(
                        n_params=n_params,
                        seed=0,
                        domain=domain,
                        pretrain_tokens=d,
                        milestones=spec.specialize_grid[: at + 1],
                        replay_share=shares[(k + i) % len(shares)],
                    )
                )
    trials.sort(key=lambda t: (bool(t.domain), -t.n_params))
    return Round(trials=(*trials, *spec.repeats), why="a small opening of varied ratios, before there is a law")


def next_round(spec: ResolvedSpec, tree_state: TreeState, belief: Belief) -> Round | Finish:
    """The most valuable trials for their price, or the end, by the belief that the law gives (`candidates.believe`).

    Trials are added one by one; those already chosen count as observations on their way, so that a round does not ask
    the same question four times.
    """
    grid = CandidateGrid.of(spec)
    regret = belief.expected_regret
    if regret <= spec.regret_tolerance:
        return Finish(
            why=f"the answer is certain enough: expected regret {100 * regret:.2f} % of the loss, "
            f"tolerance {100 * spec.regret_tolerance:.2f} %"
        )
    budget_left = spec.budget_flops - tree_state.spent_flops
    if budget_left <= 0:
        return Finish(why="the sweep's budget is spent")
    most = _most(spec)
    round_flops = min(budget_left, _GROWTH * tree_state.spent_flops, most / _ROUNDS_PER_BUDGET)
    candidates = candidates_of(spec, grid, tree_state)
    if not candidates.every:
        given_up = f", but for {counted(len(tree_state.closed), 'trial')} given up" if tree_state.closed else ""
        return Finish(why=f"every point of the grid is measured{given_up}; expected regret {100 * regret:.2f} %")
    rng = np.random.default_rng([spec.seed, len(tree_state.losses)])
    design = DESIGNS[spec.design](belief, candidates.groups, rng)
    chosen: list[Trial] = []
    planned, rate = 0.0, np.inf
    least_rate = _least_rate(spec, regret, min(budget_left, most))
    while planned < round_flops or len(chosen) < spec.lanes:
        affordable = candidates.open & (planned + candidates.prices <= budget_left)
        if not affordable.any():
            break
        handling = _HANDLING * round_flops
        best, best_rate = design.best(affordable, candidates.prices + handling)
        if best_rate <= least_rate:
            break
        planned += float(candidates.prices[best])
        rate = min(rate, best_rate)
        design.expect(best)
        chosen += candidates.take(best)
    if not chosen:
        if not affordable.any():
            return Finish(why="the sweep's budget is spent")
        return Finish(why=f"nothing left is worth its cost; expected regret {100 * regret:.2f} % of the loss")
    plan = _merged(chosen)
    return Round(
        trials=tuple(_to_its_end(spec, trial) for trial in plan) if _judges(spec) else plan,
        why=f"expected regret {100 * regret:.2f} % of the loss",
        planned=plan,
        rate=rate if _judges(spec) else 0.0,
        spare_flops=_per_branch(min(budget_left - planned, round_flops), plan),
    )


def enlarged(
    spec: ResolvedSpec, tree_state: TreeState, belief: Belief, within: Round, taken: Collection[Trial] = ()
) -> Round | None:
    """The round with one more trial, for a lane that would else wait for the others to end it; None where none is worth
    its cost.

    The trial can start at once and trains no more FLOPs than the longest one under way. The choice rests on the round's
    belief; what the round has planned counts as on its way and as spent. ``taken`` are other trials that still hold a
    lane.
    """
    grid = CandidateGrid.of(spec)
    for trial in within.planned:
        belief = belief.expecting(grid.columns(trial, trial.milestones))
    budget_left = spec.budget_flops - tree_state.spent_flops
    budget_left -= price_together(spec, _left_of(within.planned, tree_state), tree_state.nodes.copy())
    under_way = _left_of(within.trials, tree_state)
    longest_flops = max((price(spec, t, t.milestones, tree_state.nodes) for t in under_way), default=0.0)
    if budget_left <= 0:
        return None
    candidates = candidates_of(spec, grid, tree_state)
    asked = {chain(trial) for trial in (*within.trials, *taken)}
    single = [(*c.branches, trunk(c.root[0], (c.root[1],)))[0] for c in candidates.every]
    for i, (candidate, trial) in enumerate(zip(candidates.every, single, strict=True)):
        starts = len(candidate.branches) <= 1 and tree_state.can_start(trial)
        candidates.open[i] &= starts and chain(trial) not in asked
    affordable = candidates.open & (candidates.prices <= min(budget_left, longest_flops))
    if not affordable.any():
        return None
    rng = np.random.default_rng([spec.seed, len(tree_state.losses)])
    design = DESIGNS[spec.design](belief, candidates.groups, rng)
    best, rate = design.best(affordable, candidates.prices)
    if rate <= _least_rate(spec, belief.expected_regret, min(budget_left, _most(spec))):
        return None
    budget_left -= float(candidates.prices[best])
    planned = (*within.planned, *candidates.take(best))
    return replace(
        within,
        trials=(*within.trials, planned[-1]),
        planned=planned,
        spare_flops=min(within.spare_flops, _per_branch(budget_left, planned)),
    )


def judge(spec: ResolvedSpec, tree_state: TreeState, belief: Belief | None, trial: Trial, within: Round) -> Verdict:
    """Whether the rest of a trial can still change the decision enough for its price.

    The rest must be worth at least as much per FLOP as the least worthwhile trial that the round planned, the round's
    other trials being on their way. ``belief`` is that of the round (None where it had no law); the trial's own losses
    update it. Trunks go on: branches wait for them. A classic design measures what it has planned, no more and no less.
    How low the loss is does not count.
    """
    rest = remaining(trial, tree_state)
    if not rest:
        return Verdict(go_on=False, why="measured to the end")
    if belief is None or trial.is_trunk or not _judges(spec):
        return Verdict(go_on=True, why="part of the plan")
    grid = CandidateGrid.of(spec)
    for other in within.planned:
        if chain(other) != chain(trial):
            belief = belief.expecting(grid.columns(other, other.milestones))
    measured = {m: tree_state.losses[key(trial, m)] for m in trial.milestones if key(trial, m) in tree_state.losses}
    observed = [float(np.log(losses[trial.domain])) for losses in measured.values()]
    belief = belief.seen(grid.columns(trial, measured), observed)
    groups = np.full((len(rest), len(rest)), -1, dtype=np.intp)
    for i in range(len(rest)):
        groups[i, : i + 1] = grid.columns(trial, rest[: i + 1])
    values = belief.values(groups)
    prices = np.array([price(spec, trial, rest[: i + 1], tree_state.nodes) for i in range(len(rest))])
    planned = next((len(remaining(p, tree_state)) for p in within.planned if chain(p) == chain(trial)), 0)
    affordable = np.array(
        [price(spec, trial, rest[planned : i + 1], tree_state.nodes) <= within.spare_flops for i in range(len(rest))]
    )
    if (affordable & (values >= within.rate * prices) & (values > 0)).any():
        return Verdict(
            go_on=True,
            why=f"{len(rest)} more points may lower the expected regret by up to "
            f"{100 * values.max():.3f} % of the loss",
        )
    return Verdict(
        go_on=False,
        why=f"the remaining {len(rest)} points would lower the expected regret by "
        f"{100 * values.max():.4f} % of the loss, not worth {prices[-1]:.2g} FLOPs",
    )


def _left_of(trials: Sequence[Trial], tree_state: TreeState) -> list[Trial]:
    """The trials that have milestones left to measure, with only those."""
    return [replace(trial, milestones=left) for trial in trials if (left := remaining(trial, tree_state))]


def _most(spec: ResolvedSpec) -> float:
    """FLOPs that a sweep can spend at most: without a limit, those of the whole grid."""
    return min(spec.budget_flops, price_together(spec, whole_grid(spec).trials))


def _least_rate(spec: ResolvedSpec, regret: float, left_flops: float) -> float:
    """Drop of regret per FLOP that a trial must be worth to be begun."""
    return _WORTH * regret / left_flops if _judges(spec) else 0.0


def _judges(spec: ResolvedSpec) -> bool:
    """Whether trials are weighed by the regret that they may remove; the classic designs do not reckon with regret."""
    return spec.design == "value"


def _per_branch(flops: float, planned: Sequence[Trial]) -> float:
    return flops / max(1, sum(not trial.is_trunk for trial in planned))


def _to_its_end(spec: ResolvedSpec, trial: Trial) -> Trial:
    """A branch with every deeper milestone of the grid: where it ends is judged as its losses come in."""
    if trial.is_trunk:
        return trial
    deeper = tuple(m for m in spec.specialize_grid if m > trial.milestones[-1])
    return replace(trial, milestones=trial.milestones + deeper)


def _merged(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """One trial for each chain, with all the milestones asked of it; trunks first, the largest sizes first."""
    milestones: dict[Trial, set[int]] = {}
    for trial in trials:
        milestones.setdefault(chain(trial), set()).update(trial.milestones)
    merged = [
        trunk(c.n_params, sorted(ms)) if c.is_trunk else replace(c, milestones=tuple(sorted(ms)))
        for c, ms in milestones.items()
    ]
    return tuple(sorted(merged, key=lambda t: (bool(t.domain), -t.n_params)))
