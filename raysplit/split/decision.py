"""From a table of runs to the law that a decision should rest on: choose the forms by regret, then fit those."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from raysplit.errors import LawError
from raysplit.law import DEFAULT_FORMS, FORMS, Law, Repetition, fit_law
from raysplit.law.forgetting import forgetting_of
from raysplit.law.identified import identify
from raysplit.law.posterior import FitsMade
from raysplit.law.shares import at_every_share, name_at, replay_shares
from raysplit.split.calibration import calibrate
from raysplit.split.choice import Choice, choose_forms, fit_alone
from raysplit.split.problem import Problem

_CALIBRATION_DRAWS = 32
"""Draws of the laws that are calibrated: enough for a standard deviation."""
ONE_STAGE_FORMS = ("hoffmann",)
"""Forms where no run was specialized: only the priors would set the parameters of a second stage."""
GIVEN_FORMS = ("law-2-given", "law-8-given")
"""Forms where every base was pretrained on one D: only the priors would set the terms of D."""
_ONE_D = "Every base was pretrained on one D, so the forms have no term of it: what more pretraining does is not known."
MOST_JUDGED = 8
"""Most domains by which forms are chosen and intervals checked; of more, so many at even distances stand for all."""


def fit_for_decision(
    runs: pd.DataFrame,
    problem: Problem,
    *,
    forms: Sequence[str] = DEFAULT_FORMS,
    step_tokens: float | None = None,
    n_draws: int = 64,
    repetition: Repetition | None = None,
    seed: int = 0,
    shares: Sequence[float] = (),
) -> tuple[Law, Choice]:
    """The law of the forms whose splits would have been good on held-out runs, calibrated, and how they were chosen.

    Of runs at several replayed shares it is a law of all of them (`Law.at_share`).

    Args:
        runs: a checked table (`raysplit.runs.check_runs`).
        problem: domains, weights and accounting by which picks are judged.
        forms: to choose between, by name; each costs two more fits.
        step_tokens: tokens per optimizer step, to weight down points of few steps.
        n_draws: of the law's posterior.
        repetition: how many unique tokens there are, where runs or answers repeat some.
        seed: of starts and draws; the same runs and seed give the same law.
        shares: that are replayed, where some of them have no run yet; those of the runs when left out.

    Raises:
        LawError: there are no runs, or no form is known.
    """
    shares, forgetting = tuple(shares) or replay_shares(runs), forgetting_of(runs)
    if repetition is not None and len(shares) > 1:
        repetition = repetition.renamed({name_at(name, share): name for name in problem.domains for share in shares})
    runs, problem = at_every_share(runs, shares), _at_every_share(problem, shares)
    if tuple(forms) == DEFAULT_FORMS:
        forms = _forms_for(runs, problem)
    judged, judged_problem = _judged(runs, problem)
    simplest_first = sorted(forms, key=lambda name: len(FORMS[name].parameters))
    made: FitsMade = {}  # what is held out to choose the forms is held out again to check the intervals
    try:
        fit = partial(fit_alone, step_tokens=step_tokens, repetition=repetition, seed=seed, made=made)
        choice = choose_forms(judged, judged_problem, forms=simplest_first, fit=fit)
    except LawError as error:  # the priors of the simplest form stand in for runs until there are enough
        choice = Choice.forced(simplest_first[0], reason=str(error))
    if tuple(forms) == GIVEN_FORMS:
        choice = replace(choice, sentence=f"{choice.sentence} {_ONE_D}")
    fit_kept = partial(
        fit_law,
        forms=list(choice.weights),
        form_weights=choice.weights,
        step_tokens=step_tokens,
        repetition=repetition,
        seed=seed,
        made=made,
    )
    calibration = None
    if choice.scores:
        before = partial(fit_kept, n_draws=min(n_draws, _CALIBRATION_DRAWS))
        calibration = calibrate(judged, judged_problem, before)
    law = fit_kept(runs, n_draws=n_draws, misfit_scale=calibration.stretch if calibration else 1.0)
    return replace(law, calibration=calibration, replay_shares=shares, forgetting=forgetting), choice


def _at_every_share(problem: Problem, shares: Sequence[float]) -> Problem:
    """The question by which forms are judged: each domain once at each share, without limits on an expert's loss."""
    of_seed = math.inf if problem.bases else problem.max_general_loss
    free = replace(problem, max_general_rise=math.inf, max_general_loss=of_seed)
    if len(shares) < 2:
        return free
    return replace(
        free,
        budget_flops=len(shares) * problem.budget_flops,
        domains=tuple(name_at(name, share) for name in problem.domains for share in shares),
        weights=[weight for weight in problem.weights for _ in shares],
        max_specialize_tokens={},
        available_tokens={},
        mixture={},
    )


def _forms_for(runs: pd.DataFrame, problem: Problem) -> Sequence[str]:
    if problem.bases and identify(runs).one_pretraining:
        return GIVEN_FORMS
    return ONE_STAGE_FORMS if (runs["specialize_tokens"] == 0).all() else DEFAULT_FORMS


def _judged(runs: pd.DataFrame, problem: Problem) -> tuple[pd.DataFrame, Problem]:
    """The runs and the question of at most `MOST_JUDGED` domains."""
    if len(problem.domains) <= MOST_JUDGED:
        return runs, problem
    kept = np.linspace(0, len(problem.domains) - 1, MOST_JUDGED).astype(int)
    domains = tuple(problem.domains[k] for k in kept)

    def of_kept(by_domain: Mapping[str, float]) -> dict[str, float]:
        return {name: value for name, value in by_domain.items() if name in domains}

    asked = replace(
        problem,
        domains=domains,
        weights=[problem.weights[k] for k in kept],
        max_specialize_tokens=of_kept(problem.max_specialize_tokens),
        available_tokens=of_kept(problem.available_tokens),
        mixture=of_kept(problem.mixture),
    )
    return runs[runs["domain"].isin(domains)], asked
