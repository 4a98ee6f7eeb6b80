"""The bodies of answers: what FastAPI describes, and how each is written."""

from dataclasses import asdict
from typing import Any

import pandas as pd
from pydantic import BaseModel, TypeAdapter

from raysplit.live.answers import Accepted, Curve, GoOn, LawStamp, LiveAdvice, LivePrediction, TrialState
from raysplit.live.service import Status
from raysplit.runs import Observation
from raysplit.split import Advice, Interval


class Predicted(BaseModel):
    """Expected loss at a point, nats per token, with the interval of one new measurement there."""

    mean: float
    low: float
    high: float
    level: float
    law: LawStamp


class Standing(BaseModel):
    """Where the sweep stands."""

    round: int
    n_observations: int
    n_trials: int
    n_trials_left: int
    n_stopped: int
    n_failed: int
    spent_flops: float
    budget_flops: float | None
    """None without a limit."""
    finished: str
    trouble: str
    law: LawStamp | None
    reading_is_open: bool
    takes_observations: bool


class Known(BaseModel):
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


class Rows(BaseModel):
    n_known: int
    offset: int
    observations: list[Known]


class Step(BaseModel):
    """What one law said about the sweep's own target."""

    version: int
    n_observations: int
    fitted_at: str
    n_params: int
    pretrain_share: Interval
    loss: Interval
    expected_regret: float


class WholeLaw(BaseModel):
    """As `raysplit fit` writes it."""

    law: dict[str, Any]
    stamp: LawStamp


ADVICE = TypeAdapter(Advice)
STAMP = TypeAdapter(LawStamp)
STAMPS = TypeAdapter(list[LawStamp])
ACCEPTED = TypeAdapter(Accepted)
CURVE = TypeAdapter(Curve)
STEPS = TypeAdapter(list[Step])
TRIALS = TypeAdapter(list[TrialState])
GO_ON = TypeAdapter(GoOn)


def advice_json(advice: Advice) -> bytes:
    return ADVICE.dump_json(advice)


def with_stamp(advice: bytes, stamp: LawStamp) -> bytes:
    """A `LiveAdvice`, its longer part written before."""
    return b'{"advice":' + advice + b',"law":' + STAMP.dump_json(stamp) + b"}"


def predicted(live: LivePrediction, level: float) -> Predicted:
    told = live.prediction
    return Predicted(mean=float(told.mean), low=float(told.low), high=float(told.high), level=level, law=live.law)


def standing(status: Status, stamp: LawStamp | None, *, reading_is_open: bool, takes_observations: bool) -> Standing:
    fields = {name: value for name, value in asdict(status).items() if name in Standing.model_fields}
    fields["budget_flops"] = None if status.budget_flops == float("inf") else status.budget_flops
    return Standing(**fields, law=stamp, reading_is_open=reading_is_open, takes_observations=takes_observations)


def step(live: LiveAdvice) -> Step:
    advice, law = live.advice, live.law
    return Step(
        version=law.version,
        n_observations=law.n_observations,
        fitted_at=law.fitted_at,
        n_params=advice.split.n_params,
        pretrain_share=advice.pretrain_share,
        loss=advice.loss,
        expected_regret=advice.expected_regret,
    )


def rows(frame: pd.DataFrame, *, offset: int, limit: int) -> Rows:
    names = list(Observation.__dataclass_fields__)
    part = frame.iloc[offset : offset + limit][names].astype(object)
    part = part.where(part.notna(), None)
    return Rows(
        n_known=len(frame), offset=offset, observations=[Known.model_validate(row) for row in part.to_dict("records")]
    )
