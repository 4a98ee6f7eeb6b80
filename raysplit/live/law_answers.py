"""Answers from the laws that are fitted, to whoever asks: nothing here waits for a journal or changes a sweep."""

import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from raysplit.errors import LawError, SplitError, UnknownValue
from raysplit.law import Law
from raysplit.live.answers import (
    AdviceStep,
    Curve,
    GoOn,
    KnownObservation,
    LawStamp,
    LiveAdvice,
    LivePrediction,
    ObservationPage,
    WholeLaw,
)
from raysplit.live.asking import check_domains, curve_of, problem_of, whether_to_go_on
from raysplit.live.observations import checked
from raysplit.live.questions import (
    A,
    AskAdvice,
    AskCurve,
    AskHistory,
    AskLaw,
    AskLaws,
    AskPage,
    AskPrediction,
    Asks,
    AskStamp,
    AskTable,
    AskWholeLaw,
    Question,
    ShouldGoOn,
)
from raysplit.live.refit import Laws
from raysplit.live.shelf import Version
from raysplit.live.state import SweepState
from raysplit.split import Advice, Choice, Problem, advise

_ANSWERS_KEPT = 256
"""Answers that are remembered: the only ones that are, wherever a question comes from."""


class LawAnswers(Asks):
    """What anyone may ask of a sweep's laws. Methods may be called from several threads."""

    def __init__(self, state: SweepState, laws: Laws) -> None:
        self.run, self.setup = state.run, state.run.setup
        self._state, self._laws = state, laws
        self._answers: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def ask(self, question: Question[A]) -> A:
        """Answer by the method that is named after the question."""
        answer: A = getattr(self, f"answer_{question.name}")(question)
        return answer

    def answer_observations(self, question: AskTable) -> pd.DataFrame:
        return self._state.table.frame()

    def answer_observations_page(self, question: AskPage) -> ObservationPage:
        frame = self._state.table.frame()
        names = list(KnownObservation.__dataclass_fields__)
        part = frame.iloc[question.offset : question.offset + question.limit][names].astype(object)
        rows = part.where(part.notna(), None).to_dict("records")
        found = [KnownObservation(**{str(name): value for name, value in row.items()}) for row in rows]
        return ObservationPage(n_known=len(frame), offset=question.offset, observations=found)

    def answer_law(self, question: AskLaw) -> Law:
        """Raises: LawError: there is none yet, there are too few observations for any form, or no such version."""
        return self._version(question.version).fitted.law

    def answer_whole_law(self, question: AskWholeLaw) -> WholeLaw:
        known = self._version(question.version)
        return WholeLaw(law=json.loads(known.fitted.law.to_json()), stamp=self._stamp(known))

    def answer_stamp(self, question: AskStamp) -> LawStamp | None:
        latest = self._laws.shelf.latest
        return self._stamp(latest) if latest else None

    def answer_laws(self, question: AskLaws) -> list[LawStamp]:
        return [self._stamp(version) for version in self._laws.shelf.all()]

    def answer_history(self, question: AskHistory) -> list[AdviceStep]:
        steps = []
        for version in self._laws.shelf.all():
            try:
                advice = self._advice(version, AskAdvice())
            except (LawError, SplitError):  # of too few domains
                continue
            stamp = self._stamp(version)
            steps.append(
                AdviceStep(
                    version=stamp.version, n_observations=stamp.n_observations, fitted_at=stamp.fitted_at,
                    n_params=advice.split.n_params, pretrain_share=advice.pretrain_share, loss=advice.loss,
                    expected_regret=advice.expected_regret,
                )
            )  # fmt: skip
        return steps

    def answer_predict(self, question: AskPrediction) -> LivePrediction:
        known = self._version(question.version)
        law, at = known.fitted.law, (question.n_params, question.pretrain_tokens, question.specialize_tokens)
        if question.domain not in law.domains:
            raise UnknownValue("domain", "domain", question.domain, law.domains)
        if at[1] + at[2] <= 0:
            raise LawError("pretrain_tokens with specialize_tokens = 0 is a model that saw no tokens")
        said = law.predict(question.domain, *at, level=question.level)
        mean, low, high = (float(getattr(said, name)) for name in ("mean", "low", "high"))
        if not all(map(math.isfinite, (mean, low, high))):
            raise LawError(f"pretrain_tokens: the law has no loss at D = {at[1]:g}, D' = {at[2]:g}")
        return LivePrediction(mean=mean, low=low, high=high, level=question.level, law=self._stamp(known))

    def answer_advise(self, question: AskAdvice) -> LiveAdvice:
        known = self._version(question.version)
        return LiveAdvice(advice=self._advice(known, question), law=self._stamp(known))

    def answer_curve(self, question: AskCurve) -> Curve:
        known, seq = self._version(question.version), self._state.table.last_seq
        problem, law = self._problem(question, known), known.fitted.law
        found: Curve = self._remembered(
            (known.version, seq, repr(question)),
            lambda: curve_of(law, problem, self._state.table.frame(), n_params=question.at_n_params),
        )
        return replace(found, law=self._stamp(known))

    def answer_should_go_on(self, question: ShouldGoOn) -> GoOn:
        [observation] = checked([question.observation], self.setup.domains)
        try:
            known = self._version(None)
            advice = self._advice(known, AskAdvice())
        except LawError as error:
            return GoOn(go_on=True, why=str(error))
        return whether_to_go_on(
            known.fitted.law,
            observation,
            expected_regret=advice.expected_regret,
            regret_tolerance=self.setup.regret_tolerance,
            stamp=self._stamp(known),
        )

    def choice(self) -> Choice:
        """How the forms of the latest law were chosen."""
        return self._version(None).fitted.choice

    # Inside.

    def _version(self, version: int | None) -> Version:
        if version is not None:
            return self._laws.shelf.get(version)
        if not len(self._state.table):
            raise LawError(self._state.finish or "no observations yet; the law needs the opening round")
        return self._laws.latest()

    def _stamp(self, known: Version) -> LawStamp:
        return LawStamp(
            version=known.version,
            n_observations=known.fitted.n_observations,
            n_known=len(self._state.table),
            fitted_at=datetime.fromtimestamp(known.fitted_at, UTC).isoformat(timespec="milliseconds"),
            age_seconds=max(0.0, time.time() - known.fitted_at),  # a clock that was set back makes no law of tomorrow
            forms=tuple(known.fitted.law.form_weights),
            settled=known.fitted.thorough,
        )

    def _advice(self, known: Version, question: AskAdvice) -> Advice:
        problem, law = self._problem(question, known), known.fitted.law
        asked = replace(question, version=None)
        found: Advice = self._remembered((known.version, known.fitted.seq, repr(asked)), lambda: advise(law, problem))
        return found

    def _problem(self, question: AskAdvice | AskCurve, known: Version) -> Problem:
        problem = problem_of(self.setup.problem, question, family=self.run.family)
        check_domains(known.fitted.law, problem.domains)
        return problem

    def _remembered(self, at: tuple[Any, ...], answer: Callable[[], Any]) -> Any:
        """An answer that the same law gives to the same question for ever."""
        found = self._answers.get(at)
        if found is None:
            found = self._answers[at] = answer()
            while len(self._answers) > _ANSWERS_KEPT:
                self._answers.popitem(last=False)
        return found
