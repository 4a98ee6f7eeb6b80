"""The one list of questions: each has a handler and can be sent as an address and read back."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.live.questions import (
    QUESTIONS,
    AskAdvice,
    AskCurve,
    AskEvents,
    AskPrediction,
    Question,
    of_query,
    to_query,
)
from raysplit.live.service import LawService

_FLOPS = st.floats(min_value=1e6, max_value=1e30)
_TOKENS = st.floats(0, 1e15, allow_subnormal=False)  # no quantity is read below 1e-308
_SIZES = st.lists(st.integers(1, 10**12), max_size=4, unique=True)
_WEIGHTS = st.dictionaries(st.text("abc-=. ", min_size=1), st.floats(min_value=1e-3, max_value=1e3), max_size=3)
_CHANGES = {
    "budget_flops": st.none() | _FLOPS, "n_params": _SIZES, "weights": _WEIGHTS,
    "accounting": st.sampled_from([None, "shared", "per-expert"]), "version": st.none() | st.integers(1, 1000),
    "seeds": st.sampled_from([None, "shared", "independent"]),
}  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_every_question_has_a_handler_and_a_line_about_it(question: type[Question[Any]]) -> None:
    assert callable(getattr(LawService, f"answer_{question.name}"))
    assert (question.__doc__ or "").strip().endswith(".")
    assert getattr(LawService, question.name).__doc__ == question.__doc__


def test_no_two_share_an_address() -> None:
    there = [(question.path, bool(question.body)) for question in QUESTIONS if question.path]
    assert len(there) == len(set(there))


@given(
    st.builds(AskAdvice, **_CHANGES)
    | st.builds(AskCurve, at_n_params=st.none() | st.integers(1, 10**9), **_CHANGES)
    | st.builds(
        AskPrediction, domain=st.text(max_size=9), n_params=_FLOPS.filter(lambda n: n < 1e15),
        pretrain_tokens=_TOKENS, specialize_tokens=_TOKENS,
    )
    | st.builds(AskEvents, after=st.integers(-1, 10**6), kind=st.lists(st.text(max_size=5), max_size=3).map(tuple))
)  # fmt: skip
def test_a_question_sent_as_an_address_is_the_same(question: Any) -> None:
    read = of_query(type(question), to_query(question))
    assert {f.name: getattr(read, f.name) for f in fields(read)} == {  # type: ignore[arg-type]
        f.name: getattr(question, f.name) for f in fields(question)
    }
