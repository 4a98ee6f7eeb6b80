"""The limit for designs in `sweep_regret.py`: one that knows every loss before it is bought, and what each split costs.

It buys one candidate after the other, in three steps. It takes the candidates that tell most of the regret for their
price, as any design would see it. Of these it makes a shortlist by how much the true regret of the split then taken
would fall if their losses were seen. It fits the law with each of the shortlist, and buys the candidate whose law picks
the best split for the price. It looks one candidate ahead. So it is a limit for designs that do so too, and not for
all.
"""

from collections.abc import Sequence

import numpy as np
from sweep_methods import DRAWS, Losses, Measured, fit
from sweep_truths import World

from raysplit.design.campaign import opening
from raysplit.design.candidates import Candidate, CandidateGrid, believe, candidates_of, trunk
from raysplit.design.designs import drop_of_spread
from raysplit.design.tree import Trial
from raysplit.design.tree_state import key, tree_state_of
from raysplit.design.value import Belief
from raysplit.split import best_split, best_split_per_draw

_SCREENED, _SHORTLIST = 40, 3
_CHOICE_DRAWS = 16
_GOOD_ENOUGH = 1e-4
"""Regrets below this are alike."""


def clairvoyant(world: World, *, budget_flops: float) -> Measured:
    """Measurements in the order in which they are bought."""
    spec, grid = world.spec, CandidateGrid.of(world.spec)
    order = _measurable(world, opening(spec).trials, {})
    while True:
        known = _losses(world, order)
        tree_state = tree_state_of(spec, known)
        candidates = candidates_of(spec, grid, tree_state)
        asked = [_measurable(world, _trials(c), known) for c in candidates.every]
        left = budget_flops - tree_state.spent_flops
        open_ones = [i for i, at in enumerate(asked) if at and candidates.prices[i] <= left]
        if not open_ones:
            return order
        law = fit(spec, known, n_draws=DRAWS)
        belief = believe(spec, law)
        true = np.array([world.regret(split) for split in best_split_per_draw(law, spec.problem)])
        spread = drop_of_spread(belief, candidates.groups) / candidates.prices
        open_ones = sorted(open_ones, key=lambda i: -spread[i])[:_SCREENED]
        score = {i: _drop_if_seen(world, belief, grid, asked[i], true) / candidates.prices[i] for i in open_ones}
        shortlist = sorted(score, key=lambda i: -score[i])[:_SHORTLIST]
        now = np.log(_regret(world, order))
        rate = {i: (now - np.log(_regret(world, order + asked[i]))) / candidates.prices[i] for i in shortlist}
        order = order + asked[max(rate, key=lambda i: rate[i])]


def _trials(candidate: Candidate) -> list[Trial]:
    n_params, d = candidate.root
    return [*([trunk(n_params, (d,))] if d else []), *candidate.branches]


def _measurable(world: World, trials: Sequence[Trial], known: Losses) -> Measured:
    """What trials would measure and is not known."""
    asked = [(trial, m) for trial in trials for m in trial.milestones if key(trial, m) not in known]
    return [at for at in asked if world.losses(*at) is not None]


def _losses(world: World, order: Measured) -> Losses:
    return {key(*at): dict(world.losses(*at) or {}) for at in order}


def _regret(world: World, order: Measured) -> float:
    law = fit(world.spec, _losses(world, order), n_draws=_CHOICE_DRAWS)
    return max(world.regret(best_split(law, world.spec.problem)), _GOOD_ENOUGH)


def _drop_if_seen(world: World, belief: Belief, grid: CandidateGrid, asked: Measured, true: np.ndarray) -> float:
    """By how much the log true regret (A,) of the split that is best on average would fall."""
    columns, observed = [], []
    for trial, milestone in asked:
        found = world.losses(trial, milestone) or {}
        names = grid.domains if trial.is_trunk else (trial.domain,)
        columns += grid.columns(trial, (milestone,))
        observed += [float(np.log(found[name])) for name in names]
    taken = (int(one.regret.mean(axis=0).argmin()) for one in (belief, belief.seen(columns, observed)))
    before, after = (np.log(max(true[a], _GOOD_ENOUGH)) for a in taken)
    return float(before - after)
