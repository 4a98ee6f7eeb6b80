"""What the HTTP face needs of a live law: `raysplit.live.service.LawService`, or a client of one elsewhere."""

from collections.abc import Sequence
from typing import Protocol

import pandas as pd

from raysplit.law import Law
from raysplit.live.answers import (
    Accepted,
    Curve,
    Event,
    GoOn,
    LawStamp,
    LiveAdvice,
    LivePrediction,
    Question,
    TrialState,
)
from raysplit.live.service import Status
from raysplit.runs import Observation


class ServedLaw(Protocol):
    """Methods may be called from several threads; their errors are those of `raysplit.errors`.

    `stamp` is asked on the event loop and must answer at once.
    """

    def observe(self, observations: Sequence[Observation]) -> Accepted: ...
    def observations(self) -> pd.DataFrame: ...
    def advise(self, question: Question | None = None, *, version: int | None = None) -> LiveAdvice: ...
    def predict(
        self,
        domain: str,
        *,
        n_params: float,
        pretrain_tokens: float,
        specialize_tokens: float,
        level: float = 0.9,
        version: int | None = None,
    ) -> LivePrediction: ...
    def curve(
        self, question: Question | None = None, *, n_params: int | None = None, version: int | None = None
    ) -> Curve: ...
    def should_go_on(self, observation: Observation) -> GoOn: ...
    def law(self, version: int | None = None) -> Law: ...
    def laws(self) -> list[LawStamp]: ...
    def stamp(self) -> LawStamp | None: ...
    def status(self) -> Status: ...
    def events(self, after_seq: int) -> list[Event]: ...
    def trials(self) -> list[TrialState]: ...
