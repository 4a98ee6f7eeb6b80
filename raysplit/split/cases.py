"""Measured budgets at which picks can be compared: what the splits of laws and of fixed rules really cost there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raysplit.law.identified import identify
from raysplit.split.allocate import allocate
from raysplit.split.measured import MeasuredGrid, comparable, largest_budget, measured_surface, row_budget
from raysplit.split.problem import Array, Problem
from raysplit.split.surface import LawLike, MeanSurface

_BUDGET_FACTORS = (1.0, 0.7)
"""Budgets at which picks are judged when larger budgets are held out, as shares of the largest comparable one."""
_TRAINED_SHARE = 0.5
"""Runs on iso-budget lines up to this share of the largest comparable budget are fitted; the rest is held out."""
_SIZE_FACTORS = (1.0, 0.5, 0.25)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One budget at one size at which picks are compared."""

    n_params: int
    total_tokens: float
    grids: Mapping[int, Sequence[MeasuredGrid]]
    """Measured D that can spend the budget, and each domain's grid there."""
    everywhere: Mapping[int, Sequence[MeasuredGrid]] = field(repr=False)
    """All measured D of the size, to interpolate between."""


def cases_at(
    grids: Mapping[int, Sequence[MeasuredGrid]], n_params: int, top: float, factors: Sequence[float], problem: Problem
) -> list[Case]:
    """Cases of one size at these shares of a budget of ``top`` tokens, where at least three D can be compared."""
    found = []
    for total in (factor * top for factor in factors if top > 0):
        inside = comparable(grids, total, accounting=problem.accounting)
        if len(inside) >= 3:
            kept = {d: grids[d] for d in inside}
            found.append(Case(n_params=n_params, total_tokens=total, grids=kept, everywhere=grids))
    return found


def held_out(runs: pd.DataFrame, problem: Problem) -> list[tuple[NDArray[np.bool_], list[Case]]]:
    """Rows to fit (a mask) and cases to judge, first without the larger budgets, then without the largest N.

    From bases each pretrained on one D, the answer is for no other size or D. So the longer half of each one's D' is
    held out, and there is no case.
    """
    if problem.bases and identify(runs).one_pretraining:
        tokens = runs["specialize_tokens"]
        trained = (tokens <= _TRAINED_SHARE * tokens.groupby(runs["n_params"]).transform("max")).to_numpy()
        return [(trained, [])] if trained.any() and not trained.all() else []
    surface = measured_surface(runs, problem.domains)
    budgets = row_budget(runs, n_domains=len(problem.domains), accounting=problem.accounting)
    sizes = runs["n_params"].to_numpy()
    tops = {n: largest_budget(grids, accounting=problem.accounting) for n, grids in surface.items()}
    limits = np.array([_TRAINED_SHARE * tops.get(int(n), 0.0) for n in sizes])
    if not limits.any():  # nothing to compare: hold out the larger half of the budgets, for the error alone
        limits = np.full(len(runs), _TRAINED_SHARE * budgets.max())
    splits = [
        (
            (budgets <= np.where(limits > 0, limits, np.inf)),
            [case for n in tops for case in cases_at(surface[n], n, tops[n], _BUDGET_FACTORS, problem)],
        )
    ]
    largest = int(sizes.max())
    if len(np.unique(sizes)) >= 3:  # with one size left, no form could know what N does
        cases = cases_at(surface[largest], largest, tops[largest], _SIZE_FACTORS, problem) if largest in tops else []
        splits.append((sizes < largest, cases))
    return [(trained, cases) for trained, cases in splits if trained.any() and not trained.all()]


def log_errors(law: LawLike, rows: pd.DataFrame) -> Array:
    """Absolute log error of a law's mean prediction for each row of a table of runs."""
    n, d, s = (
        rows[c].to_numpy(dtype=float)[None, :, None] for c in ("n_params", "pretrain_tokens", "specialize_tokens")
    )
    domain = np.array([law.domains.index(name) for name in rows["domain"]], dtype=int)
    predicted = law.loss(n, d, s).mean(axis=0)[np.arange(len(rows)), domain]
    return np.abs(np.log(predicted / rows["loss"].to_numpy()))


def regrets_of(
    laws: Mapping[str, LawLike], case: Case, problem: Problem, *, shares: Mapping[str, float] | None = None
) -> dict[str, float]:
    """How far each pick's measured loss is above the best of all that was proposed, as a share, by name.

    Each law proposes an allocation at every measured D, and picks the one that it takes for the best. The equal share
    at every D is among the proposals. A law or a rule that picks no measured split is left out.

    Args:
        laws: By name.
        case: The budget.
        problem: Domains, weights, accounting.
        shares: Fixed rules by name: the share of all tokens that goes to pretraining, the rest by weight.
    """
    d = np.array(list(case.grids), dtype=float)[None]  # (1, n_choices)
    n, rest = np.full_like(d, case.n_params), case.total_tokens - d
    most = np.array([[grid.specialize_tokens[-1] for grid in grids] for grids in case.grids.values()])[None]
    equal = np.broadcast_to(_by_weight(rest[..., None], problem), most.shape)
    costs = [_measured_loss(case, equal[0], problem)]
    picked: dict[str, float] = {}
    for name, law in laws.items():
        surface = MeanSurface(law, problem.domains, problem.weights)
        s = allocate(surface, n, d, rest, most) if problem.accounting == "shared" else equal
        cost = _measured_loss(case, s[0], problem)
        costs.append(cost)
        if np.isfinite(cost).any():
            picked[name] = float(cost[np.argmin(np.where(np.isfinite(cost), surface.loss(n, d, s)[0], np.inf))])
    for name, share in (shares or {}).items():
        fixed = _between(case, share * case.total_tokens, problem)
        costs.append(np.array([fixed]))
        if np.isfinite(fixed):
            picked[name] = fixed
    best = float(np.nanmin(np.concatenate(costs))) if any(np.isfinite(c).any() for c in costs) else np.nan
    return {name: loss / best - 1.0 for name, loss in picked.items()}


def _by_weight(rest: Array, problem: Problem) -> Array:
    """Tokens of each domain, one more axis: by weight, or all of them to each where every expert is reckoned alone."""
    return np.asarray(rest * (np.asarray(problem.weights) if problem.accounting == "shared" else 1.0))


def _measured_loss(case: Case, specialize_tokens: Array, problem: Problem) -> Array:
    """Weighted measured loss at each D of a case for tokens (n_choices, K); NaN where it was not measured."""
    losses = [
        [grid.loss(tokens) for grid, tokens in zip(grids, row, strict=True)]
        for grids, row in zip(case.grids.values(), specialize_tokens, strict=True)
    ]
    return np.array(losses) @ np.asarray(problem.weights)


def _between(case: Case, pretrain_tokens: float, problem: Problem) -> float:
    """Weighted measured loss at any D, the rest by weight; linear in log D between measured D, NaN beyond them."""
    tokens = np.broadcast_to(
        _by_weight(np.array([case.total_tokens - pretrain_tokens]), problem), (len(problem.domains),)
    )
    known = np.array(sorted(d for d in case.everywhere if d > 0), dtype=float)
    if not known.size or not known[0] <= pretrain_tokens <= known[-1] * (1 + 1e-9):
        return float("nan")
    losses = [
        float(np.dot([grid.loss(s) for grid, s in zip(case.everywhere[int(d)], tokens, strict=True)], problem.weights))
        for d in known
    ]
    return float(np.interp(np.log(pretrain_tokens), np.log(known), losses))
