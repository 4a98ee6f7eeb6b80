"""What a live law is asked and what it answers: plain values, the same over Python, the command line and HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from raysplit.design.tree import Trial
from raysplit.runs import LossUnit
from raysplit.split import Advice, Interval

Limit = Annotated[float, BeforeValidator(lambda value: float("inf") if value is None else value)]
"""A number that JSON, which has no infinity, gives as null where there is no limit."""


@dataclass(frozen=True, kw_only=True)
class LawStamp:
    """Which law an answer rests on."""

    version: int
    """Counts the laws of a journal from 1, over restarts; 0 is a law fitted to a journal that is only read."""
    n_observations: int
    """That the law knows. Of more than `raysplit.runs.MAX_ROWS` a sample is fitted (`raysplit.live.observations`)."""
    n_known: int
    """That were acknowledged when the answer was given: more than the law knows while a fit is under way."""
    fitted_at: str
    """UTC, ISO 8601."""
    age_seconds: float
    forms: tuple[str, ...]
    full: bool
    """Whether it is a function of the observations alone. A quick fit, made while more keep coming, is not: it starts
    from the last full fit, and keeps that fit's forms and calibration."""


@dataclass(frozen=True, kw_only=True)
class LiveAdvice:
    advice: Advice
    law: LawStamp


@dataclass(frozen=True, kw_only=True)
class LivePrediction:
    """Expected loss at a point, in `loss_unit`, with the interval of one new measurement there."""

    mean: float
    low: float
    high: float
    level: float
    """Probability of the interval."""
    law: LawStamp
    loss_unit: LossUnit = "nats/token"


@dataclass(frozen=True, kw_only=True)
class WholeLaw:
    """As `raysplit fit` writes it."""

    law: Mapping[str, Any]
    stamp: LawStamp


@dataclass(frozen=True, kw_only=True)
class AdviceStep:
    """What one law said about the sweep's own target."""

    version: int
    n_observations: int
    fitted_at: str
    n_params: int
    pretrain_share: Interval
    loss: Interval
    expected_regret: float


@dataclass(frozen=True, kw_only=True)
class Status:
    """The sweep at a glance."""

    round: int
    n_observations: int
    n_trials: int
    """Trials of the current round."""
    n_trials_left: int
    n_stopped: int
    n_failed: int
    spent_flops: float
    budget_flops: Limit
    finished: str
    """Why the sweep has ended; empty while it runs."""
    law_version: int
    """Of the last fitted law; 0 before there is one."""
    trouble: str = ""
    """What last went wrong behind the answers, such as a law that could not be stored; empty when nothing has."""
    waiting: str = ""
    """What the sweep waits for, where nothing has happened for a while; empty as long as something does."""


@dataclass(frozen=True, kw_only=True)
class KnownObservation:
    """An observation that the law knows; None where it was not told."""

    n_params: int
    pretrain_tokens: int
    specialize_tokens: int
    domain: str
    loss: float
    seed: int
    weight: float
    flops: float | None
    bits_per_byte: float | None
    wall_seconds: float | None
    trial: str
    replay_share: float = 0.0
    general_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class ObservationPage:
    """Some of the observations."""

    n_known: int
    offset: int
    observations: Sequence[KnownObservation]


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Observations that are on disk."""

    n_new: int
    n_repeated: int
    """The same run with the same loss was known already; nothing was stored for them."""
    n_known: int


@dataclass(frozen=True, kw_only=True)
class Event:
    """One record of the journal, as a page or a stream shows it."""

    seq: int
    time: str
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GoOn:
    """Answer to "should I go on?" of a job that raysplit did not start."""

    go_on: bool
    why: str
    law: LawStamp | None = None
    """None while there is no law; one then goes on."""


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """One trunk or branch of the sweep and how far it has got."""

    name: str
    n_params: int
    seed: int
    domain: str
    """Empty for a trunk."""
    pretrain_tokens: int
    """Where a branch leaves its trunk; for a trunk, how far it goes."""
    milestones: tuple[int, ...]
    """Token counts at which it is or would be measured: D of a trunk, D' of a branch."""
    state: Literal["planned", "running", "done", "stopped", "failed"]
    """Running as far as the searcher last said; after a restart of the law it says so again at its next question."""
    why: str
    """Why it was stopped or has failed."""
    losses: Mapping[int, Mapping[str, float]]
    """By milestone and domain, in the sweep's unit."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """A trial that was stopped, or that failed."""

    time: str
    """UTC, ISO 8601."""
    kind: Literal["stop", "failure"]
    trial: Trial
    milestone: int
    """After which it was stopped, or on the way to which it failed; tokens."""
    skipped: tuple[int, ...]
    """Milestones that were planned and not measured then."""
    why: str
    law_observations: int = 0
    """That the law knew by which it was stopped."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The best loss against D / T at one size and budget, and the measurements near that line."""

    n_params: int
    budget_flops: float
    shares: Sequence[float]
    loss: Sequence[float]
    """Weighted, nats per token."""
    low: Sequence[float]
    high: Sequence[float]
    level: float
    points: Sequence[tuple[float, float]] = ()
    """(D / T, weighted loss) of measured splits of about this budget."""
    moved: Sequence[tuple[float, float]] = ()
    """Every (D, D') measured at this size, moved to this budget by the law: as far off the curve as off the law where
    it was measured, at the D / T of a split that gives every domain this D'."""
    law: LawStamp | None = None
