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
    """The replayed shares, where a sweep tries several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A law and how it came about."""

    law: Law
    choice: Choice
    seq: int
    """Number of the last journal record whose observations it knows."""
    n_observations: int
    """Observations that were known then."""
    n_fitted: int
    """How many of them were fitted (`raysplit.live.observations.rows_to_fit`)."""
    full: bool
    """Whether it is a function of the observations alone: forms chosen and calibrated anew, fits begun from nothing."""
    n_chosen: int
    """Observations by which the forms were chosen."""
    seconds: float
    """How long the fit took."""
    advice: Advice | None = None
    """On the target, found where nobody waits for it: 0.4 s of a core (LOG 2026-11-30); None where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LawVersion:
    """One fitted law that was made known."""

    version: int
    fitted_at: float
    """Seconds since 1970, UTC."""
    of_round: bool
    """Whether a round of the sweep rests on it; such a law is never pruned."""
    fitted: Fitted
