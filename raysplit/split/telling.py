"""Which parts of an answer the runs tell, and which are withheld because only a prior would say them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from raysplit.law import Law
from raysplit.law.identified import FEWEST_POINTS, Identified
from raysplit.quantities import format_count
from raysplit.split.advice import ALL, EXPERTS, GAINS, MODEL_SIZE, SHARE
from raysplit.split.problem import Problem
from raysplit.split.search import best_split_per_draw

WIDENED = 1.5
"""An interval that grows by this factor where the priors are twice as wide is mostly the priors': if priors and runs
are independent normal pieces of knowledge, three quarters of its precision are theirs."""


def told_by_priors(law: Law, problem: Problem, fit: Callable[[float], Law]) -> dict[str, str]:
    """Which parts of an answer are mostly the priors', and why: the law is fitted again with priors twice as wide.

    Args:
        law: as it answers.
        problem: the question.
        fit: makes the law of the same runs, forms and seed for a factor on the priors' precision.
    """
    asked, withheld = question_told(law, problem)
    if SHARE in withheld or problem.bases:
        return {}
    wide = fit(0.25)
    before, after = (_spread_of_share(one, asked) for one in (law, wide))
    if after < WIDENED * before or after < _LEAST_SPREAD:
        return {}
    why = (
        f"with priors twice as wide its interval is {after / max(before, 1e-9):.1f} times as wide: it is mostly theirs"
    )
    return {SHARE: why, GAINS: why}


_LEAST_SPREAD = 0.02
"""A share that the wide priors leave known to two hundredths is not withheld."""


def _spread_of_share(law: Law, problem: Problem) -> float:
    """Standard deviation over the draws of the best D / T, each at its own best size."""
    return float(np.std([problem.pretrain_share(split) for split in best_split_per_draw(law, problem)]))


def question_told(law: Law, problem: Problem) -> tuple[Problem, dict[str, str]]:
    """The part of a question that the runs behind a law can answer, and what is withheld of its answer, with reasons.

    Where no run varies D', the question is Chinchilla's, the best N and D (2203.15556). Where only one size was
    measured, it is the split at that size.
    """
    known = law.identified
    if known is None:
        return problem, {}
    if problem.bases:
        return problem, _untold_of_bases(known, problem)
    withheld: dict[str, str] = {}
    if known.n_points < FEWEST_POINTS:
        withheld[ALL] = f"{known.n_points} distinct runs tell no curve; {FEWEST_POINTS} of several N, D and D' begin to"
    if not known.sizes:
        [only] = {round(n) for n in law.support.n_params}
        withheld[MODEL_SIZE] = f"every run has N = {format_count(only)}: what another size would reach is not known"
        if only in problem.sizes:
            problem = replace(problem, sizes={only: problem.sizes[only]})
    elif known.one_size_ratio is not None:
        withheld[MODEL_SIZE] = (
            f"every run has D/N = {known.one_size_ratio:.3g}: what is due to the size and what to the tokens is not "
            "told apart"
        )
    if not known.specialization:
        withheld[EXPERTS] = (
            "no run varies D': what a domain's own tokens are worth is not known, so all are pretraining"
        )
        withheld[SHARE] = withheld[GAINS] = "no run varies D'"
        problem = replace(problem, max_specialize_tokens=dict.fromkeys(problem.domains, 0.0), available_tokens={})
    elif not known.pretraining:
        withheld[SHARE] = withheld[GAINS] = (
            "no two runs differ in D > 0: what more or less pretraining would do is not known"
        )
    elif known.one_branch_ratio is not None:
        withheld[SHARE] = withheld[GAINS] = (
            f"every run has D'/D = {known.one_branch_ratio:.3g}: tokens of the two stages are not told apart"
        )
    return problem, withheld | _untold_of_domains(known, problem)


def _untold_of_bases(known: Identified, problem: Problem) -> dict[str, str]:
    """What is withheld of an answer that starts from bases."""
    if known.n_points < FEWEST_POINTS or not known.specialization:
        return {ALL: f"no base was trained on: {FEWEST_POINTS} runs of several D' begin to tell what a domain gains"}
    withheld = {}
    for n_params in known.unspecialized_sizes:
        if n_params in problem.bases:
            name = problem.bases[n_params].name or format_count(n_params)
            withheld[f"{EXPERTS} of base {name}"] = f"no run varies D' of {name}; it is taken to gain as other sizes do"
    return withheld | _untold_of_domains(known, problem)


def _untold_of_domains(known: Identified, problem: Problem) -> dict[str, str]:
    """What is withheld of single domains: their D', which is taken from other domains."""
    withheld = {}
    for name in known.without_specialization:
        if name in problem.domains:
            withheld[f"{EXPERTS} of {name}"] = f"no run varies D' of {name}; it is taken to be as the other domains"
    for name in known.few_points:
        if name in problem.domains:
            withheld.setdefault(
                f"{EXPERTS} of {name}",
                f"{name} has fewer than {FEWEST_POINTS} distinct runs; it is taken to be as the other domains",
            )
    return withheld
