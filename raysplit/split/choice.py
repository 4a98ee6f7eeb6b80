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

from raysplit.errors import LawError
from raysplit.law import FitStatus, Law, Repetition, fit_law
from raysplit.law.fit import ASSUMED_NOISE
from raysplit.law.posterior import FitsMade
from raysplit.split.cases import held_out, log_errors, regrets_of
from raysplit.split.problem import Problem
from raysplit.split.surface import LawLike

Fitter = Callable[[pd.DataFrame, str], LawLike]
"""Fits one form by name to a table of runs; a LawError says why it cannot."""

CANDIDATES = ("law-2+cooldown", "law-4+cooldown", "law-5b+cooldown", "law-8+cooldown", "law-16+cooldown")
"""Forms that can place a split inside the budget; the first is the simplest."""

_TIE_AT_LEAST = 0.001
_SIMILAR_ERROR = 1.2
"""Among forms tied in regret, those whose held-out error is within this factor of the least are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FormScore:
    """How one form did on runs held out."""

    form: str
    regret: float | None
    """How far the picked split's measured loss is above the best, as a share; mean over the cases, None if unknown."""
    worst_regret: float | None
    """The largest over the cases; None if unknown."""
    held_out_error: float | None
    """Mean absolute log error of the losses held out; None if unknown."""
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

    @classmethod
    def forced(cls, form: str, *, reason: str) -> "Choice":
        """The choice where no form has runs enough."""
        sentence = f"{form}, the simplest form, its priors standing in for runs: {reason}."
        return cls(scores=(), weights={form: 1.0}, criterion="simplicity", sentence=sentence)


def fit_alone(
    runs: pd.DataFrame,
    form: str,
    *,
    step_tokens: float | None = None,
    repetition: Repetition | None = None,
    seed: int = 0,
    made: FitsMade | None = None,
) -> Law:
    """Best fit of one form to every domain; a pick needs no draws. The arguments are those of `fit_law`.

    Raises:
        LawError: every domain has too few runs for the form, so that none can lend to the others.
    """
    law = fit_law(  # forms are told apart by themselves, not by what else explains their misfit
        runs,
        forms=[form],
        n_draws=1,
        draw_iterations=0,
        step_tokens=step_tokens,
        repetition=repetition,
        misfit_scale=0.0,
        seed=seed,
        made=made,
    )
    fits = law.fits[form].values()
    if all(fit.status is FitStatus.TOO_FEW_RUNS for fit in fits):
        raise LawError(next(iter(fits)).message)
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
    for trained, cases in held_out(runs, problem):
        laws: dict[str, LawLike] = {}
        for form in forms:
            try:
                laws[form] = fit(runs[trained], form)
            except LawError as error:
                notes[form] = str(error)
        for form, law in laws.items():
            errors[form].extend(log_errors(law, runs[~trained & (runs["pretrain_tokens"] > 0)]))
        for case in cases:
            for form, regret in regrets_of(laws, case, problem).items():
                regrets[form].append(regret)
    scores = tuple(
        FormScore(
            form=form,
            regret=float(np.mean(regrets[form])) if regrets[form] else None,
            worst_regret=max(regrets[form], default=None),
            held_out_error=float(np.mean(errors[form])) if errors[form] else None,
            n_cases=len(regrets[form]),
            note=notes.get(form, ""),
        )
        for form in forms
    )
    return _decide(scores, _tie(runs, problem, scores), lambda form: fit(runs, form))


def _tie(runs: pd.DataFrame, problem: Problem, scores: Sequence[FormScore]) -> float:
    """Difference of mean regrets that the noise of single runs explains, at least `_TIE_AT_LEAST`.

    The noise is the pooled standard deviation of log loss over repeated seeds, or `ASSUMED_NOISE` where no seed was
    repeated. For a weighted mean of K runs it is multiplied by the root of the sum of squared weights, for a mean over
    cases divided by the root of their number.
    """
    logs = np.log(runs["loss"]).groupby(
        [runs[c] for c in ("n_params", "pretrain_tokens", "specialize_tokens", "domain")]
    )
    squares = ((logs.transform("size") - 1) / logs.transform("size") * logs.transform("var").fillna(0.0)).sum()
    freedom = len(runs) - logs.ngroups
    variance = squares / freedom if freedom else ASSUMED_NOISE**2
    n_cases = max([score.n_cases for score in scores] + [1])
    spread = np.sqrt(2 * variance / n_cases) * np.linalg.norm(problem.weights)
    return max(_TIE_AT_LEAST, float(spread))


def _decide(scores: tuple[FormScore, ...], tie: float, fit: Callable[[str], LawLike]) -> Choice:
    errors = {score.form: score.held_out_error for score in scores if score.held_out_error is not None}
    n_cases = max(score.n_cases for score in scores)
    # A form that could not be fitted without the larger budgets, or without the largest N, was spared those cases.
    regrets = {score.form: score.regret for score in scores if score.regret is not None and score.n_cases == n_cases}
    if regrets:
        tied = [form for form, regret in regrets.items() if regret <= min(regrets.values()) + tie]
        kept = _of_similar_error(tied, errors)
        others = {form: regret for form, regret in regrets.items() if form not in kept}
        sentence = (
            f"By the regret of the splits they would have picked at {n_cases} held-out budgets (differences below "
            f"{tie:.2%} are noise) and then by held-out error, kept: {_named({form: regrets[form] for form in kept})}"
            + (f"; not kept: {_named(others)}." if others else ".")
        )
        return Choice(scores=scores, weights=_equal(kept), criterion="regret", sentence=sentence)
    if errors:
        kept = _of_similar_error(list(errors), errors)
        sentence = (
            "The table has no measured budgets at which splits could be compared; by held-out error, kept: "
            f"{_named({form: errors[form] for form in kept})}."
        )
        return Choice(scores=scores, weights=_equal(kept), criterion="held-out error", sentence=sentence)
    problems = []
    for score in scores:
        try:
            fit(score.form)
        except LawError as error:
            problems.append(f"{score.form}: {error}")
            continue
        sentence = f"Too few runs to judge a form on runs held out; the simplest that fits is kept: {score.form}."
        return Choice(scores=scores, weights={score.form: 1.0}, criterion="simplicity", sentence=sentence)
    raise LawError("no form can be fitted to these runs: " + "; ".join(problems))


def _of_similar_error(forms: Sequence[str], errors: Mapping[str, float]) -> list[str]:
    least = min((errors[form] for form in forms if form in errors), default=0.0)
    return [form for form in forms if form not in errors or errors[form] <= _SIMILAR_ERROR * least]


def _equal(kept: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(kept, 1.0 / len(kept))


def _named(values: Mapping[str, float]) -> str:
    return ", ".join(f"{form} {value:.2%}" for form, value in values.items())
