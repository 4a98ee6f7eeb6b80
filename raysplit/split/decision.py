"""From a table of runs to the law that a decision should rest on: choose the forms by regret, then fit those."""

import pandas as pd

from raysplit.law import DEFAULT_FORMS, FORMS, Law, fit_law
from raysplit.split.choice import Choice, choose_forms
from raysplit.split.problem import Problem

_CHOICE_DRAWS = 1  # a pick needs the best guess alone


def fit_for_decision(
    runs: pd.DataFrame, problem: Problem, *, step_tokens: float | None = None, n_draws: int = 64, seed: int = 0
) -> tuple[Law, Choice]:
    """The law of the forms whose splits would have been good on held-out runs, and how they were chosen.

    Args:
        runs: a checked table (`raysplit.runs.check_runs`).
        problem: domains, weights and accounting by which picks are judged.
        step_tokens: tokens per optimizer step, to weight down points of few steps.
        n_draws: of the law's posterior.
        seed: of starts and draws; the same runs and seed give the same law.

    Raises:
        LawError: no form can be fitted.
    """

    def fit(rows: pd.DataFrame, form: str) -> Law:
        return fit_law(
            rows, forms=[form], n_draws=_CHOICE_DRAWS, draw_iterations=0, step_tokens=step_tokens, seed=seed
        ).point

    simplest_first = sorted(DEFAULT_FORMS, key=lambda name: len(FORMS[name].parameters))
    choice = choose_forms(runs, problem, forms=simplest_first, fit=fit)
    law = fit_law(
        runs,
        forms=list(choice.weights),
        form_weights=choice.weights,
        n_draws=n_draws,
        step_tokens=step_tokens,
        seed=seed,
    )
    return law, choice
