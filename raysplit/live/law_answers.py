"""Answers from the fitted laws, to whoever asks: nothing here waits for a journal or changes a sweep."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from raysplit.errors import LawError, SplitError, UnknownValue, unknown
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
from raysplit.live.fitted import LawVersion
from raysplit.live.fitting import check_domains
from raysplit.live.law_store import Laws
from raysplit.live.observations import checked
from raysplit.live.of_law import curve_of, whether_to_go_on
from raysplit.live.questions import (
    A,
    AnsweringLaw,
    AskAdvice,
    AskCurve,
    AskHistory,
    AskLaw,
    AskLaws,
    AskPage,
    AskPrediction,
    AskStamp,
    AskTable,
    AskWholeLaw,
    Question,
    ShouldGoOn,
    SplitQuestion,
)
from raysplit.live.run_spec import ModelFamily
from raysplit.live.state import SweepState
from raysplit.split import Advice, Choice, Problem, advise

_ANSWERS_KEPT = 256
"""Most answers that are remembered; nothing else remembers any, whichever way a question comes."""


class LawAnswers(AnsweringLaw):
    """What anyone may ask of a sweep's laws. Methods may be called from several threads."""

    def __init__(self, state: SweepState, laws: Laws) -> None:
        self.run, self.spec = state.run, state.run.spec
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
        names = [name for name in KnownObservation.__dataclass_fields__ if name in frame]
        part = frame.iloc[question.offset : question.offset + question.limit][names].astype(object)
        rows = part.where(part.notna(), None).to_dict("records")
        found = [KnownObservation(**{str(name): value for name, value in row.items()}) for row in rows]
        return ObservationPage(n_known=len(frame), offset=question.offset, observations=found)

    def answer_law(self, question: AskLaw) -> Law:
        """Raises: LawError: there is none yet, there are too few observations for any form, or no such version."""
        return self._version(question.version).fitted.law

    def answer_whole_law(self, question: AskWholeLaw) -> WholeLaw:
        known = self._version(question.version)
        return WholeLaw(law=known.fitted.law.to_dict(), stamp=self._stamp(known))

    def answer_stamp(self, question: AskStamp) -> LawStamp | None:
        latest = self._laws.store.latest
        return self._stamp(latest) if latest else None

    def answer_laws(self, question: AskLaws) -> list[LawStamp]:
        return [self._stamp(version) for version in self._laws.store.all()]

    def answer_history(self, question: AskHistory) -> list[AdviceStep]:
        steps = []
        for version in self._laws.store.all():
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
        law, at = (
            _at(known.fitted.law, question.replay_share),
            (question.n_params, question.pretrain_tokens, question.specialize_tokens),
        )
        if question.domain not in law.domains:
            raise UnknownValue("domain", "domain", question.domain, law.domains)
        if at[1] + at[2] <= 0:
            raise LawError("pretrain_tokens with specialize_tokens = 0 is a model that saw no tokens")
        said = law.predict(question.domain, *at, level=question.level)
        mean, low, high = (float(getattr(said, name)) for name in ("mean", "low", "high"))
        if not all(map(math.isfinite, (mean, low, high))):
            raise LawError(f"pretrain_tokens: the law has no loss at D = {at[1]:g}, D' = {at[2]:g}")
        unit = self.spec.problem.loss_unit
        return LivePrediction(
            mean=mean, low=low, high=high, level=question.level, law=self._stamp(known), loss_unit=unit
        )

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
        [observation] = checked([question.observation], self.spec.domains, shares=self.spec.replay_shares)
        try:
            known = self._version(None)
            advice = self._advice(known, AskAdvice())
        except LawError as error:
            return GoOn(go_on=True, why=str(error))
        return whether_to_go_on(
            _at(known.fitted.law, None),
            observation,
            expected_regret=advice.expected_regret,
            regret_tolerance=self.spec.regret_tolerance,
            stamp=self._stamp(known),
        )

    def choice(self) -> Choice:
        """How the forms of the latest law were chosen."""
        return self._version(None).fitted.choice

    # Inside.

    def _version(self, version: int | None) -> LawVersion:
        if version is not None:
            return self._laws.store.get(version)
        if not len(self._state.table):
            raise LawError(self._state.finish or "no observations yet; the law needs the opening round")
        return self._laws.latest()

    def _stamp(self, known: LawVersion) -> LawStamp:
        return LawStamp(
            version=known.version,
            n_observations=known.fitted.n_observations,
            n_known=len(self._state.table),
            fitted_at=datetime.fromtimestamp(known.fitted_at, UTC).isoformat(timespec="milliseconds"),
            age_seconds=max(0.0, time.time() - known.fitted_at),  # a clock that was set back makes no law of tomorrow
            forms=tuple(known.fitted.law.form_weights),
            full=known.fitted.full,
        )

    def _advice(self, known: LawVersion, question: AskAdvice) -> Advice:
        asked = replace(question, version=None)
        if asked == AskAdvice() and known.fitted.advice is not None:
            return known.fitted.advice
        problem, law = self._problem(question, known), known.fitted.law
        found: Advice = self._remembered((known.version, known.fitted.seq, repr(asked)), lambda: advise(law, problem))
        return found

    def _problem(self, question: SplitQuestion, known: LawVersion) -> Problem:
        problem = problem_of(self.spec.problem, question, family=self.run.family)
        check_domains(known.fitted.law, problem.domains)
        return problem

    def _remembered(self, at: tuple[Any, ...], answer: Callable[[], Any]) -> Any:
        """The answer to a question that one law always answers alike, found again if it is among the last few."""
        found = self._answers.get(at)
        if found is None:
            found = self._answers[at] = answer()
            while len(self._answers) > _ANSWERS_KEPT:
                self._answers.popitem(last=False)
        return found


def problem_of(target: Problem, question: SplitQuestion, *, family: ModelFamily | None) -> Problem:
    """The target with what the question changes of it.

    Args:
        target: the problem of a question that changes nothing.
        question: may change budget, sizes, weights, accounting, seeds, and what experts may lose on general text.
        family: tells the FLOPs of sizes that are not the target's; None where only the target's can be asked for.

    Raises:
        SplitError: a domain or size is unknown, or there are no bases to lose anything beside.
    """
    problem = target
    if question.budget_flops is not None:
        problem = replace(problem, budget_flops=question.budget_flops)
    if question.accounting is not None:
        problem = replace(problem, accounting=question.accounting)
    if question.seeds is not None:
        problem = replace(problem, seeds=question.seeds)
    if question.weights:
        for name in question.weights:
            if name not in target.domains:
                raise SplitError("weights: " + unknown("domain", name, target.domains))
        problem = replace(problem, weights=[question.weights.get(name, 1.0) for name in target.domains])
    if question.max_general_loss is not None:
        problem = replace(problem, max_general_loss=question.max_general_loss)
    if question.max_general_rise is not None:
        problem = replace(problem, max_general_rise=question.max_general_rise)
    if question.n_params:
        problem = replace(problem, sizes=dict(_size(n, target.sizes, family) for n in question.n_params))
    return problem


def _at(law: Law, share: float | None) -> Law:
    """The law at a replayed share; at the least one where ``share`` is None.

    Raises:
        LawError: no run had this share.
    """
    if share is not None and share not in law.replay_shares:
        raise LawError(unknown("replay_share", share, law.replay_shares or (0.0,)))
    return law.at_share(share)


def _size(n_params: int, known: Mapping[int, float], family: ModelFamily | None) -> tuple[int, float]:
    if n_params in known:
        return n_params, known[n_params]
    if family is None:
        raise SplitError("n_params: " + unknown("model size", n_params, known))
    return family.nearest(n_params)
