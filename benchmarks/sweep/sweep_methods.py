"""raysplit's own way through a world of `sweep_regret.py`, and the other designs that a sweep can go by.

Each gives a list of measurements. The decisions are those of `raysplit.design`, round by round as the law service makes
them, without its journal. The fit alone differs, and is cheaper than the product's: the forms are given, and not chosen
in each round.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sweep_truths import World

from raysplit.design.campaign import Finish, Round, judge, next_round, opening
from raysplit.design.candidates import believe
from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Trial
from raysplit.design.tree_state import TreeState, chain, key, remaining, tree_state_of
from raysplit.design.value import Belief
from raysplit.law import Law, fit_law
from raysplit.runs import Observation, to_frame
from raysplit.space import DesignName

Measured = list[tuple[Trial, int]]
"""Measurements in the order in which they were made."""
Losses = dict[tuple[Trial, int], dict[str, float]]

FORMS = ("law-2+cooldown", "law-8+cooldown")
_POOLING = 1.0
DRAWS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How a sweep of raysplit's goes."""

    design: DesignName = "value"
    forms: tuple[str, ...] = FORMS
    prune: Callable[[TreeState, Trial], bool] | None = None
    """Whether to stop a trial, in place of raysplit's judgement; None for that."""
    tree: bool = True
    """Whether a price is reckoned with what others have trained already."""


def fit(spec: ResolvedSpec, losses: Losses, *, forms: tuple[str, ...] = FORMS, n_draws: int = 1) -> Law:
    """The law of some measurements."""
    return fit_law(
        table(spec, losses),
        forms=forms,
        n_draws=n_draws,
        pooling=_POOLING,
        step_tokens=spec.step_tokens,
        seed=spec.seed,
    )


def table(spec: ResolvedSpec, losses: Losses) -> pd.DataFrame:
    """Measurements as a table of runs: a trunk's is an observation of every domain, a branch's of its own."""
    rows = []
    for (at, milestone), found in losses.items():
        d, s = at.point(milestone)
        for name in spec.domains if at.is_trunk else (at.domain,):
            rows.append(
                Observation(
                    n_params=at.n_params,
                    pretrain_tokens=d,
                    specialize_tokens=s,
                    domain=name,
                    loss=found[name],
                    seed=at.seed,
                )
            )
    return to_frame(rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """What a sweep did."""

    measured: Measured
    skipped: Measured
    """Points that stopped trials left out and that no later round made up."""


def sweep(world: World, way: Way, *, seed: int, budget_flops: float) -> Swept:
    """Measure until the budget is spent or the sweep ends by itself."""
    spec = replace(world.spec, design=way.design, budget_flops=budget_flops, seed=seed)
    losses: Losses = {}
    order: Measured = []
    closed: set[Trial] = set()
    left_out: Measured = []
    now = opening(spec)
    belief: Belief | None = None
    tree_state = tree_state_of(spec, losses)
    while True:
        paused: set[Trial] = set()
        for trial in now.trials:
            for milestone in trial.milestones:
                tree_state = tree_state_of(spec, dict(losses), closed, paused, before=tree_state)
                if milestone not in remaining(trial, tree_state):
                    continue
                found = world.losses(trial, milestone)
                if found is None:
                    closed.add(chain(trial))
                    break
                losses[key(trial, milestone)] = dict(found)
                order.append((trial, milestone))
                tree_state = tree_state_of(spec, dict(losses), closed, paused, before=tree_state)
                if _stops(spec, tree_state, belief, trial, now, way):
                    paused.add(chain(trial))
                    left_out += [(trial, m) for m in trial.milestones if key(trial, m) not in losses]
        tree_state = tree_state_of(spec, dict(losses), closed, before=tree_state)
        belief = believe(spec, fit(spec, losses, forms=way.forms, n_draws=DRAWS)) if _asks_law(way) else _UNSURE
        decision = next_round(spec, tree_state, belief)
        if isinstance(decision, Finish):
            skipped = {key(*at): at for at in left_out if key(*at) not in losses}
            return Swept(measured=order, skipped=list(skipped.values()))
        now = decision


def _asks_law(way: Way) -> bool:
    """The designs that go by price, or by nothing, need no law to go on."""
    return way.design not in ("cheapest", "random")


_UNSURE = Belief(regret=np.ones((1, 1)), target=np.zeros((1, 1)), foreseen=np.zeros((1, 1)), noise=np.ones(1))


def _stops(
    spec: ResolvedSpec, tree_state: TreeState, belief: Belief | None, trial: Trial, within: Round, way: Way
) -> bool:
    if way.prune is not None and belief is not None:
        return way.prune(tree_state, trial)
    return not judge(spec, tree_state, belief, trial, within).go_on


def never(tree_state: TreeState, trial: Trial) -> bool:
    """Every trial to its end."""
    return False


def by_rank(tree_state: TreeState, trial: Trial) -> bool:
    """Successive halving's rule: stop what is not in the better half of all losses seen at the same D'."""
    if trial.is_trunk:
        return False
    reached = max(m for m in trial.milestones if key(trial, m) in tree_state.losses)
    mine = tree_state.losses[key(trial, reached)][trial.domain]
    others = [
        found[trial.domain]
        for (at, milestone), found in tree_state.losses.items()
        if milestone == reached and at.domain == trial.domain
    ]
    return mine > float(np.median(others))
