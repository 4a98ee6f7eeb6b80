"""What the live law fits and how: thoroughly, as a decision needs it, or quickly, from where the last fit ended.

Pure: no Ray, no threads. `raysplit.live.fit_process` runs it in a process of its own.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raysplit.errors import RaysplitError
from raysplit.law import Law, WarmStart, fit_law
from raysplit.live.asking import check_domains
from raysplit.live.observations import Reported, rows_to_fit
from raysplit.runs import to_frame
from raysplit.split import Advice, Choice, Problem, advise, fit_for_decision

_QUICK_DRAWS = 24
_QUICK_ITERATIONS = 3
"""A law that is replaced as soon as nothing new comes in: fewer draws, and fewer steps to each, to be there sooner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a law is fitted for."""

    problem: Problem
    step_tokens: float
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A law and how it came about."""

    law: Law
    choice: Choice
    seq: int
    """Of the last journal record whose observations it knows."""
    n_observations: int
    """Reported then."""
    n_fitted: int
    """Of them, as many as were fitted (`raysplit.live.observations.rows_to_fit`)."""
    thorough: bool
    """A function of the observations alone: the forms were chosen and calibrated, the fits not gone on from others."""
    n_chosen: int
    """Observations that the forms were chosen by."""
    seconds: float
    advice: Advice | None = None
    """On the target; None where there is none, and `problem` of asking it again says why."""


def fit_thoroughly(rows: Sequence[Reported], seq: int, target: Target, *, with_advice: bool = True) -> Fitted:
    """Choose the forms, fit them and calibrate: the law of these rows, whatever was fitted before.

    Raises:
        LawError: there are no rows, or no form can be fitted.
    """
    started = time.monotonic()
    kept = rows_to_fit(rows)
    frame = to_frame([row.observation for row in kept])
    law, choice = fit_for_decision(frame, target.problem, step_tokens=target.step_tokens, seed=target.seed)
    advice = advice_or_none(law, target.problem) if with_advice else None
    return Fitted(
        law=law,
        choice=choice,
        seq=seq,
        n_observations=len(rows),
        n_fitted=len(kept),
        thorough=True,
        n_chosen=len(rows),
        seconds=time.monotonic() - started,
        advice=advice,
    )


def fit_quickly(rows: Sequence[Reported], seq: int, target: Target, *, chosen: Fitted, start: Law) -> Fitted:
    """The law of these rows by the forms and the calibration of an earlier choice.

    Args:
        rows: at least one.
        seq: of the last of them.
        target: what for.
        chosen: the last thorough fit.
        start: where the fits go on; a law of the same forms.

    Raises:
        LawError: a domain that is new has no run that can be fitted.
    """
    started = time.monotonic()
    kept = rows_to_fit(rows)
    law = fit_law(
        to_frame([row.observation for row in kept]),
        forms=list(chosen.choice.weights),
        form_weights=chosen.choice.weights,
        n_draws=_QUICK_DRAWS,
        draw_iterations=_QUICK_ITERATIONS,
        step_tokens=target.step_tokens,
        start=WarmStart.of(start, explores=False),
        seed=target.seed,
    )
    law = replace(law, calibration=chosen.law.calibration)
    return Fitted(
        law=law,
        choice=chosen.choice,
        seq=seq,
        n_observations=len(rows),
        n_fitted=len(kept),
        thorough=False,
        n_chosen=chosen.n_chosen,
        advice=advice_or_none(law, target.problem),
        seconds=time.monotonic() - started,
    )


def advice_or_none(law: Law, problem: Problem) -> Advice | None:
    try:
        check_domains(law, problem.domains)
        return advise(law, problem)
    except RaysplitError:  # who asks for it is told
        return None
