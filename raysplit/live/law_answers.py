"""Answers from the laws that are fitted, to whoever asks: nothing here waits for a journal or changes a sweep."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from raysplit.errors import LawError
from raysplit.law import Law
from raysplit.live.answers import Curve, GoOn, LawStamp, LiveAdvice, LivePrediction, Question
from raysplit.live.asking import check_domains, check_numbers, curve_of, problem_of, whether_to_go_on
from raysplit.live.observations import checked
from raysplit.live.refit import Laws
from raysplit.live.shelf import Version
from raysplit.live.state import SweepState
from raysplit.runs import Observation
from raysplit.split import Advice, Choice, advise

_ANSWERS_KEPT = 256
"""Questions about laws whose answers are remembered."""


class LawAnswers:
    """What anyone may ask of a sweep's laws. Methods may be called from several threads."""

    def __init__(self, state: SweepState, laws: Laws) -> None:
        self.run, self.setup = state.run, state.run.setup
        self._state, self._laws = state, laws
        self._answers: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def observations(self) -> pd.DataFrame:
        """Every observation so far, as `raysplit.runs.to_frame` lays it out."""
        return self._state.table.frame()

    def law(self, version: int | None = None) -> Law:
        """The latest law, or an old one.

        Raises:
            LawError: there is none yet, there are too few observations for any form, or no such version.
        """
        return self._version(version).fitted.law

    def choice(self) -> Choice:
        """How the forms of `law` were chosen."""
        return self._version(None).fitted.choice

    def stamp(self) -> LawStamp | None:
        """Which law is the latest; None before there is one."""
        latest = self._laws.shelf.latest
        return self._stamp(latest) if latest else None

    def laws(self) -> list[LawStamp]:
        """The laws that can be asked for, newest last."""
        return [self._stamp(version) for version in self._laws.shelf.all()]

    def predict(
        self,
        domain: str,
        *,
        n_params: float,
        pretrain_tokens: float,
        specialize_tokens: float,
        level: float = 0.9,
        version: int | None = None,
    ) -> LivePrediction:
        """Expected loss at a point, with an interval for one new measurement.

        Raises:
            LawError: there is no law yet, the domain is unknown, or the point or level is impossible.
        """
        known = self._version(version)
        at = {"n_params": n_params, "pretrain_tokens": pretrain_tokens, "specialize_tokens": specialize_tokens}
        check_numbers(LawError, **at, level=level)
        for name, value in at.items():
            if not 0 <= value < math.inf or (name == "n_params" and not value):
                rule = "positive and finite" if name == "n_params" else "finite and not negative"
                raise LawError(f"{name} = {value!r} must be {rule}")
        if pretrain_tokens + specialize_tokens <= 0:
            raise LawError("pretrain_tokens with specialize_tokens = 0 is a model that saw no tokens")
        prediction = known.fitted.law.predict(domain, n_params, pretrain_tokens, specialize_tokens, level=level)
        return LivePrediction(prediction=prediction, law=self._stamp(known))

    def advise(self, question: Question | None = None, *, version: int | None = None) -> LiveAdvice:
        """The best split of the target, or of another question.

        Raises:
            LawError: there is no law yet, or it knows a domain not.
            SplitError: no split satisfies the question.
        """
        known = self._version(version)
        return LiveAdvice(advice=self._advice(known, question or Question()), law=self._stamp(known))

    def curve(
        self, question: Question | None = None, *, n_params: int | None = None, version: int | None = None
    ) -> Curve:
        """The best loss against D / T at one size, by default the advised one.

        Raises:
            LawError: there is no law yet, or it knows a domain not.
            SplitError: the size is not among those of the question.
        """
        question = question or Question()
        known, seq = self._version(version), self._state.table.last_seq
        problem = problem_of(self.setup.problem, question, family=self.run.family)
        law = known.fitted.law
        check_domains(law, problem.domains)
        found: Curve = self._remembered(
            ("curve", known.version, seq, n_params, _key_of(question)),
            lambda: curve_of(law, problem, self.observations(), n_params=n_params, stamp=None),
        )
        return replace(found, law=self._stamp(known))

    def should_go_on(self, observation: Observation) -> GoOn:
        """Whether a run that raysplit did not start is worth its next tokens; nothing is stored.

        Raises:
            TableError: the observation is impossible, or of an unknown domain.
        """
        [observation] = checked([observation], self.setup.domains)
        try:
            known = self._version(None)
            advice = self._advice(known, Question())
        except LawError as error:
            return GoOn(go_on=True, why=str(error))
        return whether_to_go_on(
            known.fitted.law,
            observation,
            expected_regret=advice.expected_regret,
            regret_tolerance=self.setup.regret_tolerance,
            stamp=self._stamp(known),
        )

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

    def _advice(self, known: Version, question: Question) -> Advice:
        if question == Question() and known.fitted.advice is not None:
            return known.fitted.advice
        problem = problem_of(self.setup.problem, question, family=self.run.family)
        law = known.fitted.law
        check_domains(law, problem.domains)
        key = ("advice", known.version, known.fitted.seq, _key_of(question))
        found: Advice = self._remembered(key, lambda: advise(law, problem))
        return found

    def _remembered(self, at: tuple[Any, ...], answer: Callable[[], Any]) -> Any:
        """An answer that the same law gives to the same question for ever."""
        found = self._answers.get(at)
        if found is None:
            found = self._answers[at] = answer()
            while len(self._answers) > _ANSWERS_KEPT:
                self._answers.popitem(last=False)
        return found


def _key_of(question: Question) -> tuple[Any, ...]:
    weights = None if question.weights is None else tuple(sorted(question.weights.items()))
    sizes = None if question.n_params is None else tuple(question.n_params)
    return question.budget_flops, sizes, weights, question.accounting
