"""Which forms of the law to trust: those whose splits would have been good, judged on runs they did not see.

A good fit of the loss is not a good split: a law that is linear along an iso-budget line can fit well and will always
pick a corner. So every form is fitted twice, without the larger budgets and without the largest N, and picks a split at
budgets held out. What that pick really costs is read off the measured grid (`raysplit.split.measured`), against the
best of all splits that any form, or the equal share, proposed there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raysplit.errors import LawError
from raysplit.law import FitStatus, Law, fit_law
from raysplit.split.allocate import allocate
from raysplit.split.measured import Grid, comparable, largest_budget, measured_surface, row_budget
from raysplit.split.problem import Array, Problem
from raysplit.split.surface import LawLike, MeanSurface

Fitter = Callable[[pd.DataFrame, str], LawLike]
"""Fits one form by name to a table of runs; a LawError says why it cannot."""

CANDIDATES = ("law-2", "law-4", "law-5b", "law-8", "law-16")
"""Forms that can place a split inside the budget, the simplest first."""

_BUDGET_FACTORS = (1.0, 0.7)
"""Budgets at which picks are judged when larger budgets are held out, as shares of the largest comparable one."""
_TRAINED_SHARE = 0.5
"""Runs on iso-budget lines up to this share of the largest comparable budget are fitted; the rest is held out."""
_SIZE_FACTORS = (1.0, 0.5, 0.25)
_TIE_WITHOUT_NOISE = 0.003
"""Regrets this near each other are a tie where no repeated seeds tell the noise."""
_TIE_AT_LEAST = 0.001
_SIMILAR_ERROR = 1.5
"""Among forms tied in regret, those whose held-out error is within this factor of the least are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FormScore:
    """How one form did on runs held out."""

    form: str
    regret: float
    """Mean over the cases, how far the picked split's measured loss is above the best, as a share; NaN if unknown."""
    worst_regret: float
    held_out_error: float
    """Mean absolute log error of the losses held out; NaN if unknown."""
    n_cases: int
    """Held-out (N, budget) pairs at which a pick could be judged."""
    note: str = ""
    """Why the form could not be fitted, where it could not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The forms to keep, and why."""

    scores: tuple[FormScore, ...]
    weights: Mapping[str, float]
    """Of the forms kept; they sum to one."""
    criterion: Literal["regret", "held-out error", "simplicity"]
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """One budget at one size at which picks are compared."""

    n_params: int
    total_tokens: float
    grids: Mapping[int, Sequence[Grid]]
    """Measured D that can spend the budget, and each domain's grid there."""


def fit_alone(runs: pd.DataFrame, form: str) -> Law:
    """Best fit of one form to every domain.

    Raises:
        LawError: some domain has too few runs for the form.
    """
    law = fit_law(runs, forms=[form], n_draws=1)
    for fit in law.fits[form].values():
        if fit.status is FitStatus.TOO_FEW_RUNS:
            raise LawError(fit.message)
    return law.point


def choose_forms(
    runs: pd.DataFrame, problem: Problem, *, forms: Sequence[str] = CANDIDATES, fit: Fitter = fit_alone
) -> Choice:
    """Score forms by the regret of the splits they would have picked, then by held-out error.

    Args:
        runs: a checked table (`raysplit.runs.check_runs`).
        problem: tells the domains, their weights and the accounting; its budget and caps play no part.
        forms: names, the simplest first; where the table is too small for any comparison, the first that fits is kept.
        fit: fits one form; another one for laws of your own.

    Raises:
        LawError: no form can be fitted to the table.
    """
    regrets: dict[str, list[float]] = {form: [] for form in forms}
    errors: dict[str, list[float]] = {form: [] for form in forms}
    notes: dict[str, str] = {}
    for trained, cases in _held_out(runs, problem):
        laws: dict[str, LawLike] = {}
        for form in forms:
            try:
                laws[form] = fit(runs[trained], form)
            except LawError as error:
                notes[form] = str(error)
        for form, law in laws.items():
            errors[form].extend(_log_errors(law, runs[~trained & (runs["pretrain_tokens"] > 0)]))
        for case in cases:
            for form, regret in _regrets(laws, case, problem).items():
                regrets[form].append(regret)
    scores = tuple(
        FormScore(
            form=form,
            regret=float(np.mean(regrets[form])) if regrets[form] else np.nan,
            worst_regret=max(regrets[form], default=np.nan),
            held_out_error=float(np.mean(errors[form])) if errors[form] else np.nan,
            n_cases=len(regrets[form]),
            note=notes.get(form, ""),
        )
        for form in forms
    )
    return _decide(scores, _tie(runs, problem, scores), lambda form: fit(runs, form))


def _held_out(runs: pd.DataFrame, problem: Problem) -> list[tuple[NDArray[np.bool_], list[_Case]]]:
    """Rows to fit and cases to judge, first without the larger budgets, then without the largest N."""
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
            [case for n in tops for case in _cases(surface[n], n, tops[n], _BUDGET_FACTORS, problem)],
        )
    ]
    largest = int(sizes.max())
    if len(np.unique(sizes)) >= 3:  # with one size left, no form could know what N does
        cases = _cases(surface[largest], largest, tops[largest], _SIZE_FACTORS, problem) if largest in tops else []
        splits.append((sizes < largest, cases))
    return [(trained, cases) for trained, cases in splits if trained.any() and not trained.all()]


def _cases(
    grids: Mapping[int, Sequence[Grid]], n_params: int, top: float, factors: Sequence[float], problem: Problem
) -> list[_Case]:
    found = []
    for total in (factor * top for factor in factors if top > 0):
        inside = comparable(grids, total, accounting=problem.accounting)
        if len(inside) >= 3:
            found.append(_Case(n_params=n_params, total_tokens=total, grids={d: grids[d] for d in inside}))
    return found


def _log_errors(law: LawLike, rows: pd.DataFrame) -> Array:
    n, d, s = (
        rows[c].to_numpy(dtype=float)[None, :, None] for c in ("n_params", "pretrain_tokens", "specialize_tokens")
    )
    domain = np.array([law.domains.index(name) for name in rows["domain"]], dtype=int)
    predicted = law.loss(n, d, s).mean(axis=0)[np.arange(len(rows)), domain]
    return np.abs(np.log(predicted / rows["loss"].to_numpy()))


def _regrets(laws: Mapping[str, LawLike], case: _Case, problem: Problem) -> dict[str, float]:
    """Regret of each form's pick at one budget; forms that cannot pick a measured split there are left out."""
    d = np.array(list(case.grids), dtype=float)[None]  # (1, n_choices)
    n, rest = np.full_like(d, case.n_params), case.total_tokens - d
    most = np.array([[grid.specialize_tokens[-1] for grid in grids] for grids in case.grids.values()])[None]
    equal = rest[..., None] * (np.asarray(problem.weights) if problem.accounting == "shared" else 1.0)
    costs = [_measured_loss(case, np.broadcast_to(equal, most.shape)[0], problem)]
    picked: dict[str, float] = {}
    for form, law in laws.items():
        surface = MeanSurface(law, problem)
        s = (
            allocate(surface, n, d, rest, most)
            if problem.accounting == "shared"
            else np.broadcast_to(equal, most.shape)
        )
        cost = _measured_loss(case, s[0], problem)
        costs.append(cost)
        if np.isfinite(cost).any():
            picked[form] = float(cost[np.argmin(np.where(np.isfinite(cost), surface.loss(n, d, s)[0], np.inf))])
    best = float(np.nanmin(costs)) if np.isfinite(costs).any() else np.nan
    return {form: loss / best - 1.0 for form, loss in picked.items()}


def _measured_loss(case: _Case, specialize_tokens: Array, problem: Problem) -> Array:
    """Weighted measured loss at each D of a case for tokens (n_choices, K); NaN where it was not measured."""
    losses = [
        [grid.loss(tokens) for grid, tokens in zip(grids, row, strict=True)]
        for grids, row in zip(case.grids.values(), specialize_tokens, strict=True)
    ]
    return np.array(losses) @ np.asarray(problem.weights)


def _tie(runs: pd.DataFrame, problem: Problem, scores: Sequence[FormScore]) -> float:
    """Difference of mean regrets that the noise of single runs explains.

    The noise is the pooled standard deviation of log loss over repeated seeds; that of a weighted mean of K runs is
    less by the root of the sum of squared weights, that of a mean over cases by the root of their number.
    """
    logs = np.log(runs["loss"]).groupby(
        [runs[c] for c in ("n_params", "pretrain_tokens", "specialize_tokens", "domain")]
    )
    squares = ((logs.transform("size") - 1) / logs.transform("size") * logs.transform("var").fillna(0.0)).sum()
    freedom = len(runs) - logs.ngroups
    if freedom == 0:
        return _TIE_WITHOUT_NOISE
    n_cases = max([score.n_cases for score in scores] + [1])
    spread = np.sqrt(2 * squares / freedom / n_cases) * np.linalg.norm(problem.weights)
    return max(_TIE_AT_LEAST, float(spread))


def _decide(scores: tuple[FormScore, ...], tie: float, fit: Callable[[str], LawLike]) -> Choice:
    # A form that could not be fitted without the larger budgets, or the largest N, was spared those cases.
    judged = [score for score in scores if score.n_cases and score.n_cases == max(other.n_cases for other in scores)]
    if judged:
        least = min(score.regret for score in judged)
        tied = [score for score in judged if score.regret <= least + tie]
        kept = _of_similar_error(tied)
        named = ", ".join(f"{score.form} {score.regret:.2%}" for score in kept)
        others = ", ".join(f"{score.form} {score.regret:.2%}" for score in judged if score not in kept)
        sentence = (
            f"By the regret of the splits they would have picked at {judged[0].n_cases} held-out budgets "
            f"(differences below {tie:.2%} are noise) and then by held-out error, kept: {named}"
            + (f"; not kept: {others}." if others else ".")
        )
        return Choice(scores=scores, weights=_equal(kept), criterion="regret", sentence=sentence)
    predicted = [score for score in scores if np.isfinite(score.held_out_error)]
    if predicted:
        kept = _of_similar_error(predicted)
        named = ", ".join(f"{score.form} {score.held_out_error:.2%}" for score in kept)
        sentence = (
            f"The table has no measured budgets at which splits could be compared; by held-out error, kept: {named}."
        )
        return Choice(scores=scores, weights=_equal(kept), criterion="held-out error", sentence=sentence)
    problems = []
    for score in scores:
        try:
            fit(score.form)
        except LawError as error:
            problems.append(f"{score.form}: {error}")
            continue
        sentence = f"The table is too small to hold anything out; the simplest form that fits is kept: {score.form}."
        return Choice(scores=scores, weights=_equal([score]), criterion="simplicity", sentence=sentence)
    raise LawError("no form can be fitted to these runs: " + "; ".join(problems))


def _of_similar_error(scores: Sequence[FormScore]) -> list[FormScore]:
    known = [score.held_out_error for score in scores if np.isfinite(score.held_out_error)]
    if not known:
        return list(scores)
    return [score for score in scores if score.held_out_error <= _SIMILAR_ERROR * min(known)]


def _equal(kept: Sequence[FormScore]) -> dict[str, float]:
    return {score.form: 1.0 / len(kept) for score in kept}
