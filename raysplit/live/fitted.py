"""A fitted law and how it came about."""

from dataclasses import dataclass

from raysplit.law import Law
from raysplit.split import Advice, Choice, Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class FitTarget:
    """What a law is fitted for."""

    problem: Problem
    step_tokens: float
    seed: int
    shares: tuple[float, ...] = ()
    """That are replayed, where a sweep tries several."""


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
    full: bool
    """A function of the observations alone: the forms were chosen and calibrated, the fits not gone on from others."""
    n_chosen: int
    """Observations that the forms were chosen by."""
    seconds: float
    advice: Advice | None = None
    """On the target, made where nobody waits for it: 0.4 s of a core (LOG 2026-11-30); None where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LawVersion:
    """One fitted law that was made known."""

    version: int
    fitted_at: float
    """Seconds since 1970, UTC."""
    of_round: bool
    """Whether a round of the sweep rests on it; such are never pruned."""
    fitted: Fitted
