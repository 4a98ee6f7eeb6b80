"""Which trials next, which to stop, when to end: pure decisions on what has been measured so far.

A sweep goes in rounds. The law is fitted when a round has ended, and every decision of the next round rests on that law
and on the deciding trial's own losses, never on which of two lanes happened to be faster. So the sweep that a crash
interrupted, the one that ran through, and the replay of a table all decide alike.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysplit.design.setup import Setup
from raysplit.design.tree import Node, Trial
from raysplit.design.value import Array, NoisyLaw, belief_of, distances, foreseen_log_loss

_ROUNDS_PER_BUDGET = 8
"""A round spends about this part of the sweep's budget, so that the law is asked again before it is gone."""
_WORTH = 0.1
"""A trial is not begun when it gains less regret per FLOP than this share of the rate at which the sweep must gain to
remove all of it with the budget it has left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What a sweep has measured and paid for; made by `evidence_of`."""

    losses: Mapping[tuple[Trial, int], Mapping[str, float]]
    """`key` of a measurement -> held-out loss of every domain, nats per token."""
    closed: frozenset[Trial]
    """Chains that were stopped or failed, by `chain`."""
    nodes: frozenset[Node]
    """Checkpoints that the measurements left behind."""
    spent_flops: float
    """Price of the measurements, each token of the tree paid once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Trials to run, in this order as far as lanes are free and the trunks they need have got there."""

    trials: tuple[Trial, ...]
    why: str
    planned: tuple[Trial, ...] = ()
    """How far each trial was worth going when the round was made; `judge` may stop it before or let it go on."""
    rate: float = 0.0
    """Expected drop of regret per FLOP of the least worthwhile planned trial: what a trial's rest must be worth."""
    spare_flops: float = float("inf")
    """What each branch may spend beyond its plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """The end of the sweep."""

    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a trial goes on after a milestone."""

    go_on: bool
    why: str


def chain(trial: Trial) -> Trial:
    """The trial without its milestones: the trunk or branch that it measures."""
    return replace(trial, milestones=(), pretrain_tokens=trial.pretrain_tokens if trial.domain else 0)


def key(trial: Trial, milestone: int) -> tuple[Trial, int]:
    """What identifies a measurement, whichever trial asked for it."""
    return chain(trial), milestone


def evidence_of(
    setup: Setup, losses: Mapping[tuple[Trial, int], Mapping[str, float]], closed: Collection[Trial] = ()
) -> Evidence:
    """Evidence of a set of measurements, whatever the order in which they came in.

    What was spent follows from the tree and not from a meter, so that tokens lost in a crash change no decision.
    """
    nodes: set[Node] = set()
    spent = 0.0
    for at, milestone in sorted(losses, key=lambda k: (bool(k[0].domain), k)):
        trial = replace(at, milestones=(milestone,), pretrain_tokens=at.pretrain_tokens if at.domain else milestone)
        spent += price_together(setup, [trial], nodes)
    return Evidence(losses=losses, closed=frozenset(closed), nodes=frozenset(nodes), spent_flops=spent)


def is_orphan(trial: Trial, evidence: Evidence) -> bool:
    """Whether a trial can never start, because the trunk that should reach its root was closed before."""
    trunk = Trial(n_params=trial.n_params, seed=trial.seed, domain="", pretrain_tokens=0, milestones=())
    return bool(trial.domain) and trunk in evidence.closed and trial.root not in evidence.nodes


def remaining(trial: Trial, evidence: Evidence) -> tuple[int, ...]:
    """Milestones of a trial that are still to be measured; none when its chain is closed."""
    if chain(trial) in evidence.closed or is_orphan(trial, evidence):
        return ()
    return tuple(m for m in trial.milestones if key(trial, m) not in evidence.losses)


def price(setup: Setup, trial: Trial, milestones: Sequence[int], nodes: Collection[Node]) -> float:
    """FLOPs still to train for a trial's milestones, its trunk's missing part included."""
    return setup.tree.missing_tokens(trial, milestones, nodes) * setup.flops_per_token[trial.n_params]


def price_together(setup: Setup, trials: Iterable[Trial], nodes: set[Node]) -> float:
    """FLOPs of trials trained one after the other; the checkpoints that they leave are added to ``nodes``."""
    flops = 0.0
    for trial in trials:
        flops += price(setup, trial, trial.milestones, nodes)
        nodes.add(replace(trial.root, pretrain_tokens=0))
        for milestone in trial.milestones:
            nodes.update(s.end for s in setup.tree.segments(trial, milestone, nodes) if not s.cooldown)
    return flops


def whole_grid(setup: Setup) -> Round:
    """Every point of the grid, and the repeats: trunks first, then the branches with the most to train."""
    trunks = [_trunk(n, setup.pretrain_grid) for n in reversed(setup.sizes)]
    branches = [
        Trial(n_params=n, seed=0, domain=domain, pretrain_tokens=d, milestones=setup.specialize_grid)
        for n in reversed(setup.sizes)
        for d in _roots(setup)
        for domain in setup.domains
    ]
    return Round(trials=(*trunks, *branches, *setup.repeats), why="the whole grid")


def opening(setup: Setup) -> Round:
    """The first round, before there is a law: ratio-diverse, and cheap where it can be.

    The smallest size's trunk runs the whole grid of D, the others to its middle. From each trunk every domain gets one
    short branch, at a D that moves along the grid from size to size and domain to domain, so that D'/D and D/N both
    vary: runs at one ratio cannot tell a law's data terms apart (2605.08541). Where the grid of D holds 0, some of the
    branches are trained from scratch.
    """
    middle = (len(setup.pretrain_grid) + 1) // 2
    trials: list[Trial] = []
    for i, n_params in enumerate(setup.sizes):
        reach = setup.pretrain_grid if i == 0 else setup.pretrain_grid[:middle]
        trials.append(_trunk(n_params, reach))
        roots = (0, *reach) if setup.scratch else reach
        for k, domain in enumerate(setup.domains):
            trials.append(
                Trial(
                    n_params=n_params,
                    seed=0,
                    domain=domain,
                    pretrain_tokens=roots[(i + k) % len(roots)],
                    milestones=setup.specialize_grid[: max(2, (len(setup.specialize_grid) + 1) // 2)],
                )
            )
    trials.sort(key=lambda t: (bool(t.domain), -t.n_params))
    return Round(trials=(*trials, *setup.repeats), why="an opening of varied ratios, before there is a law")


def next_round(setup: Setup, evidence: Evidence, law: NoisyLaw) -> Round | Finish:
    """The most valuable trials for their price, or the end.

    Trials are added one by one; those already chosen count as observations on their way, so that a round is not four
    times the same question.
    """
    belief = belief_of(law, setup.problem)
    regret = belief.expected_regret
    if regret <= setup.regret_tolerance:
        return Finish(
            why=f"the answer is certain enough: expected regret {100 * regret:.2f} % of the loss, "
            f"tolerance {100 * setup.regret_tolerance:.2f} %"
        )
    budget_left = setup.budget_flops - evidence.spent_flops
    # Without a limit a sweep still goes in rounds: the whole grid is the most that it can buy.
    grid_flops = price_together(setup, whole_grid(setup).trials, set())
    to_spend = min(budget_left, grid_flops)
    round_flops = min(budget_left, min(setup.budget_flops, grid_flops) / _ROUNDS_PER_BUDGET)
    candidates = _candidates(setup, evidence)
    if not candidates:
        given_up = f", but for {len(evidence.closed)} trials given up" if evidence.closed else ""
        return Finish(why=f"every point of the grid is measured{given_up}; expected regret {100 * regret:.2f} %")
    apart = _apart(law, candidates)
    nodes = set(evidence.nodes)
    open_ones = np.ones(len(candidates), dtype=bool)
    chosen: list[Trial] = []
    planned, rate = 0.0, np.inf
    while planned < round_flops or len(chosen) < setup.lanes:
        prices = np.array([price_together(setup, _with_trunk(trial, nodes), set(nodes)) for trial in candidates])
        affordable = open_ones & (planned + prices <= budget_left)
        values = belief.values(apart)
        rates = np.where(affordable, values / np.maximum(prices, 1.0), 0.0)
        best = int(np.argmax(rates))
        if rates[best] * to_spend < _WORTH * regret:
            break
        trial = candidates[best]
        wanted = _with_trunk(trial, nodes)
        chosen += wanted
        planned += price_together(setup, wanted, nodes)
        rate = min(rate, float(rates[best]))
        belief = belief.expecting(apart[best])
        open_ones &= np.array([chain(c) != chain(trial) for c in candidates])
    if not chosen:
        if not (open_ones & (prices <= budget_left)).any():
            return Finish(why="the sweep's budget is spent")
        return Finish(why=f"nothing left is worth its cost; expected regret {100 * regret:.2f} % of the loss")
    plan = _merged(chosen)
    n_branches = max(1, sum(not trial.is_trunk for trial in plan))
    return Round(
        trials=tuple(trial if trial.is_trunk else _to_its_end(setup, trial, evidence) for trial in plan),
        why=f"expected regret {100 * regret:.2f} % of the loss",
        planned=plan,
        rate=rate,
        spare_flops=(budget_left - planned) / n_branches,
    )


def judge(setup: Setup, evidence: Evidence, law: NoisyLaw | None, trial: Trial, within: Round) -> Verdict:
    """Whether the rest of a trial can still change the decision enough for its price.

    It must be worth at least as much per FLOP as the least worthwhile trial that the round planned, the round's other
    trials being on their way. ``law`` is that of the round (None where it had none); the trial's own losses update it.
    Trunks go on: branches wait for them. Never decided on how low the loss is.
    """
    rest = remaining(trial, evidence)
    if not rest:
        return Verdict(go_on=False, why="measured to the end")
    if law is None or trial.is_trunk:
        return Verdict(go_on=True, why="part of the plan")
    column = law.domains.index(trial.domain)
    points = [
        Trial(
            n_params=trial.n_params,
            seed=trial.seed,
            domain=trial.domain,
            pretrain_tokens=trial.pretrain_tokens,
            milestones=(m,),
        )
        for m in trial.milestones
    ]
    foreseen = _foreseen(law, points)[:, :, column]  # (B, milestones)
    others = [other for other in within.planned if chain(other) != chain(trial)]
    belief = belief_of(law, setup.problem)
    if others:
        belief = belief.expecting(_apart(law, others).sum(axis=0))
    for i, milestone in enumerate(trial.milestones):
        if measured := evidence.losses.get(key(trial, milestone)):
            belief = belief.seen(foreseen[:, i], float(np.log(measured[trial.domain])), float(law.noise[column]))
    apart = _apart(law, points)
    left = [i for i, m in enumerate(trial.milestones) if m in rest]
    values = belief.values(apart[left])
    prices = np.array([price(setup, trial, rest[: i + 1], evidence.nodes) for i in range(len(rest))])
    planned = next((len(remaining(p, evidence)) for p in within.planned if chain(p) == chain(trial)), 0)
    affordable = np.array(
        [price(setup, trial, rest[planned : i + 1], evidence.nodes) <= within.spare_flops for i in range(len(rest))]
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


def _candidates(setup: Setup, evidence: Evidence) -> list[Trial]:
    """Every chain prefix with something unmeasured: branches to each of their milestones, trunks to each of theirs."""
    out = []
    for n_params in setup.sizes:
        chains = [_trunk(n_params, setup.pretrain_grid)]
        chains += [
            Trial(n_params=n_params, seed=0, domain=domain, pretrain_tokens=d, milestones=setup.specialize_grid)
            for d in _roots(setup)
            for domain in setup.domains
        ]
        for whole in chains:
            rest = remaining(whole, evidence)
            for i in range(len(rest)):
                until = rest[: i + 1]
                out.append(replace(whole, milestones=until) if whole.domain else _trunk(n_params, until))
    return out


def _apart(law: NoisyLaw, trials: Sequence[Trial]) -> Array:
    """(M, B, B) how differently the draws foresee each trial's last milestone, in standard deviations."""
    measured = np.array([[trial.is_trunk or name == trial.domain for name in law.domains] for trial in trials])
    noise = np.where(measured, law.noise, np.inf)
    return distances(_foreseen(law, trials), noise)


def _foreseen(law: NoisyLaw, trials: Sequence[Trial]) -> Array:
    points = [(trial.n_params, *trial.point(trial.milestones[-1])) for trial in trials]
    n, d, s = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    return foreseen_log_loss(law, n, d, s)


def _to_its_end(setup: Setup, trial: Trial, evidence: Evidence) -> Trial:
    """The branch with every milestone of the grid that is left: where it ends is judged as its losses come in."""
    return replace(trial, milestones=remaining(replace(trial, milestones=setup.specialize_grid), evidence))


def _with_trunk(trial: Trial, nodes: Collection[Node]) -> list[Trial]:
    """The trial, and before it the trunk that has to reach its root."""
    if trial.is_trunk or not trial.pretrain_tokens or trial.root in nodes:
        return [trial]
    return [_trunk(trial.n_params, (trial.pretrain_tokens,)), trial]


def _merged(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """One trial for each chain, with all the milestones asked of it; trunks first, largest first."""
    milestones: dict[Trial, set[int]] = {}
    for trial in trials:
        milestones.setdefault(chain(trial), set()).update(trial.milestones)
    merged = [
        _trunk(c.n_params, sorted(ms)) if c.is_trunk else replace(c, milestones=tuple(sorted(ms)))
        for c, ms in milestones.items()
    ]
    return tuple(sorted(merged, key=lambda t: (bool(t.domain), -t.n_params)))


def _trunk(n_params: int, milestones: Sequence[int]) -> Trial:
    return Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=milestones[-1], milestones=tuple(milestones))


def _roots(setup: Setup) -> tuple[int, ...]:
    """Every D at which a branch may leave, 0 included when the grid has it."""
    return (0, *setup.pretrain_grid) if setup.scratch else setup.pretrain_grid
