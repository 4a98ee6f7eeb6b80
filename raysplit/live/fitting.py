"""The two fits of a live law: a full one, as a decision needs it, and a quick one from where the last fit ended."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from raysplit.errors import LawError, RaysplitError
from raysplit.law import Law, fit_law
from raysplit.law.forgetting import forgetting_of
from raysplit.law.shares import at_every_share
from raysplit.live.fitted import FitTarget, Fitted
from raysplit.live.observations import ObservationTable, Reported, rows_to_fit
from raysplit.runs import to_frame
from raysplit.split import Advice, Problem, advise, fit_for_decision

_QUICK_DRAWS = 24
_QUICK_ITERATIONS = 3
"""Fewer draws and fewer steps for each make a quick fit quicker; a full fit follows as soon as nothing new comes in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitJob:
    """Fit what was known after a journal record: fully, or quickly where ``start`` is given."""

    seq: int
    chosen: Fitted | None = None
    """The full fit whose forms and calibration are kept; None fits fully."""
    start: Law | None = None
    """The law that a quick fit starts from; it has the same forms."""


class Fitter(Protocol):
    """Carries out one job after the other."""

    def fit(self, job: FitJob) -> Fitted:
        """The law that was asked for.

        Raises:
            LawError: no form can be fitted.
            RunError: the fitter has failed.
        """
        ...

    def close(self) -> None:
        """End the fitter, in the middle of a fit too."""


class FitterHere:
    """Fits in the thread that asks."""

    def __init__(self, table: ObservationTable, target: FitTarget) -> None:
        self._table, self._target = table, target

    def fit(self, job: FitJob) -> Fitted:
        rows = self._table.until(job.seq)
        if job.chosen is None:
            return fit_fully(rows, job.seq, self._target)
        assert job.start is not None
        return fit_quickly(rows, job.seq, self._target, chosen=job.chosen, start=job.start)

    def close(self) -> None: ...


def fit_fully(rows: Sequence[Reported], seq: int, target: FitTarget, *, with_advice: bool = True) -> Fitted:
    """Choose the forms, fit and calibrate them: a law of these rows alone, whatever was fitted before.

    Raises:
        LawError: there are no rows, or no form can be fitted.
    """
    started = time.monotonic()
    kept = rows_to_fit(rows)
    frame = to_frame([row.observation for row in kept])
    law, choice = fit_for_decision(
        frame, target.problem, step_tokens=target.step_tokens, seed=target.seed, shares=target.shares
    )
    advice = advice_or_none(law, target.problem) if with_advice else None
    return Fitted(
        law=law,
        choice=choice,
        seq=seq,
        n_observations=len(rows),
        n_fitted=len(kept),
        full=True,
        n_chosen=len(rows),
        seconds=time.monotonic() - started,
        advice=advice,
    )


def fit_quickly(rows: Sequence[Reported], seq: int, target: FitTarget, *, chosen: Fitted, start: Law) -> Fitted:
    """The law of these rows, with the forms and the calibration of an earlier full fit.

    Args:
        rows: at least one.
        seq: of the last of them.
        target: what for.
        chosen: the last full fit.
        start: the law that the fits start from; it has the same forms.

    Raises:
        LawError: a domain that is new has no run that can be fitted.
    """
    started = time.monotonic()
    kept = rows_to_fit(rows)
    frame = to_frame([row.observation for row in kept])
    law = fit_law(
        at_every_share(frame, target.shares),
        forms=list(chosen.choice.weights),
        form_weights=chosen.choice.weights,
        n_draws=_QUICK_DRAWS,
        draw_iterations=_QUICK_ITERATIONS,
        step_tokens=target.step_tokens,
        start=start.warm_start(explores=False),
        seed=target.seed,
    )
    law = replace(
        law,
        calibration=chosen.law.calibration,
        replay_shares=chosen.law.replay_shares,
        forgetting=forgetting_of(frame),
    )
    return Fitted(
        law=law,
        choice=chosen.choice,
        seq=seq,
        n_observations=len(rows),
        n_fitted=len(kept),
        full=False,
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


def check_domains(law: Law, domains: tuple[str, ...]) -> None:
    """Refuse to answer about domains of which nothing was measured.

    Raises:
        LawError: there are some.
    """
    known = law.at_share().domains
    if missing := [name for name in domains if name not in known]:
        raise LawError(f"no observation yet of {', '.join(missing)}; a split needs a loss of every domain")
